"""`finetune --method one-pass`: the network runs once, then the classifier learns from its features."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from torch.nn.modules.batchnorm import _BatchNorm

from dali_fixres.batch import Batch
from dali_fixres.checkpoint import Checkpoint
from dali_fixres.commands.stage import Stage, record_epoch
from dali_fixres.commands.stream import Stream, Test
from dali_fixres.config import FinetuneConfig
from dali_fixres.errors import Interrupted
from dali_fixres.features import (
    FeatureBank,
    FeatureEpoch,
    Rounds,
    collect_features,
    learn_from_features,
    measure_statistics,
)
from dali_fixres.index import TRAIN
from dali_fixres.metrics import Tally
from dali_fixres.models import Anatomy
from dali_fixres.plan import Augmentation, EvaluationPlan, step_seed
from dali_fixres.training import Meter

__all__ = ["passes_for_features", "tune_in_one_pass"]


def tune_in_one_pass(stage: Stage, config: FinetuneConfig, anatomy: Anatomy, start: Checkpoint) -> Checkpoint:
    """Measure the last norm's statistics, collect features, and let the classifier learn; return the new state.

    Nothing is saved on the way: it takes about one pass over the pictures, and a stopped run begins it again.

    Raises:
        Interrupted: If a signal asks for it.
    """
    if start.epoch >= config.epochs:
        return start
    try:
        bank = _collect(stage, config, anatomy)
        return _learn(stage, config, anatomy, bank, start)
    except Interrupted as interruption:
        raise stage.stopped(str(interruption), None) from None


def passes_for_features(
    config: FinetuneConfig, evaluation: EvaluationPlan, look: Augmentation, anatomy: Anatomy
) -> tuple[EvaluationPlan | None, list[EvaluationPlan]]:
    """Plan what runs through the network once: some pictures for the last norm's statistics, and all in each view.

    The first is None where the norm has no statistics that are to follow the test resolution.
    """
    once = replace(evaluation, split=TRAIN)
    views = [replace(once, augmentation=look, seed=config.seed, view=view) for view in range(config.views)]
    if config.tuned != "classifier+norm-stats" or not isinstance(anatomy.norm, _BatchNorm):
        return None, views
    return replace(once, every=max(1, evaluation.index.num_train // config.statistics_images)), views


def _collect(stage: Stage, config: FinetuneConfig, anatomy: Anatomy) -> FeatureBank:
    network = stage.learner.network
    some, views = passes_for_features(config, stage.evaluation, stage.plan.augmentation, anatomy)
    plans = views if some is None else [some, *views]
    started = time.perf_counter()
    stream = Stream(stage.loader, [Test(plan, stage.test_resolution) for plan in plans], stage.unreadable)
    if some is not None:
        assert isinstance(anatomy.norm, _BatchNorm)
        with stage.reporter.bar("measuring the last norm's statistics", some.num_rounds) as bar:
            rounds = Rounds(some.num_rounds, bar, stage.orders)
            measure_statistics(network, anatomy.norm, stream.part(), rounds, stage.world)
    parts: list[Iterator[Batch]] = [_part(stream) for _ in views]
    once = views[0]
    with stage.reporter.bar("collecting features", once.num_rounds * config.views) as bar:
        rounds = Rounds(once.num_rounds, bar, stage.orders)
        size = (once.num_dealt, once.index.num_train)
        bank = collect_features(network, anatomy.classifier, parts, size, rounds, config.feature_memory)
    stream.share(stage.world)
    seconds = time.perf_counter() - started
    num_images = sum(plan.num_pictures for plan in plans)
    stage.record(
        "pass",
        test_res=config.test_res,
        num_images=num_images,
        views=config.views,
        images_per_s=round(num_images / seconds, 2),
        seconds=round(seconds, 3),
    )
    stage.reporter.line(f"features of {num_images} looks at pictures at {config.test_res} px  {seconds:.1f} s")
    return bank


def _part(stream: Stream) -> Iterator[Batch]:
    """Return the next part of a stream, taken off only when it is begun."""
    yield from stream.part()


def _learn(stage: Stage, config: FinetuneConfig, anatomy: Anatomy, bank: FeatureBank, start: Checkpoint) -> Checkpoint:
    state, plan, learner = start, stage.plan, stage.learner
    for epoch in range(start.epoch, config.epochs):
        label = f"epoch {epoch + 1}/{config.epochs} on features"
        first_step, num_steps = plan.steps_before(epoch), plan.num_steps(epoch)
        batches = (plan.global_rows(epoch, step) for step in range(num_steps))
        features = FeatureEpoch(
            epoch % config.views,
            first_step,
            batches,
            dropout=config.feature_dropout,
            seed_of=partial(step_seed, config.seed, 0),
        )
        with stage.reporter.bar(label, num_steps) as bar:
            meter = Meter(bar, Tally())
            for _ in learn_from_features(learner, anatomy.classifier, bank, features, meter, stage.world):
                stage.orders.agree().raise_if_stopped()
        state = replace(state, step=first_step + num_steps, tally=meter.tally())
        stage.reporter.line(f"{label}  {record_epoch(stage, state)}")
        state = replace(state, epoch=epoch + 1, tally=Tally())
    return replace(
        state,
        state_dict=learner.network.state_dict(),
        optimizer=learner.optimizer.state_dict(),
        global_batch=plan.global_batch(config.epochs - 1),
        num_done=0,
        unreadable=dict(stage.unreadable.reasons),
    )
