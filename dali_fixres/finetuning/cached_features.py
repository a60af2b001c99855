"""`finetune --method one-pass`: the network runs once, then the classifier learns from its features."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from torch.nn.modules.batchnorm import _BatchNorm

from dali_fixres.config import FinetuneConfig
from dali_fixres.errors import Interrupted
from dali_fixres.evaluation.metrics import EpochStatistics
from dali_fixres.finetuning.features import (
    FeatureBank,
    FeatureEpoch,
    Rounds,
    collect_features,
    learn_from_features,
    measure_statistics,
)
from dali_fixres.models import Head
from dali_fixres.training.checkpoint import Checkpoint
from dali_fixres.training.loop import EpochMeter
from dali_fixres.training.stage import Stage, record_epoch
from dali_fixres.training.stream import Stream, Test
from pipelines.batch import Batch
from pipelines.dataset import TRAIN
from pipelines.plan import Augmentation, EvalPlan, step_seed

__all__ = ["passes_for_features", "tune_in_one_pass"]


def tune_in_one_pass(stage: Stage, config: FinetuneConfig, head: Head, start: Checkpoint) -> Checkpoint:
    """Measure the last norm's statistics, collect features, and let the classifier learn; return the new state.

    Nothing is saved on the way: it takes about one pass over the images, and a stopped run begins it again.

    Raises:
        Interrupted: If a signal asks for it.
    """
    if start.epoch >= config.epochs:
        return start
    try:
        bank = _collect(stage, config, head)
        return _learn(stage, config, head, bank, start)
    except Interrupted as interruption:
        raise stage.stopped(str(interruption), None) from None


def passes_for_features(
    config: FinetuneConfig, evaluation: EvalPlan, augmentation: Augmentation, head: Head
) -> tuple[EvalPlan | None, list[EvalPlan]]:
    """Plan what runs through the network once: some images for the last norm's statistics, and all in each view.

    The first is None where the norm has no statistics that are to follow the test resolution.
    """
    once = replace(evaluation, split=TRAIN)
    views = [replace(once, augmentation=augmentation, seed=config.seed, view=view) for view in range(config.views)]
    if config.tuned != "classifier+norm-stats" or not isinstance(head.norm, _BatchNorm):
        return None, views
    return replace(once, every=max(1, evaluation.dataset.num_train // config.statistics_images)), views


def _collect(stage: Stage, config: FinetuneConfig, head: Head) -> FeatureBank:
    network = stage.learner.network
    some, views = passes_for_features(config, stage.evaluation, stage.plan.augmentation, head)
    plans = views if some is None else [some, *views]
    started = time.perf_counter()
    stream = Stream(stage.loader, [Test(plan, stage.test_resolution) for plan in plans], stage.unreadable)
    if some is not None:
        assert isinstance(head.norm, _BatchNorm)
        with stage.reporter.bar("measuring the last norm's statistics", some.num_rounds) as bar:
            rounds = Rounds(some.num_rounds, bar, stage.stop_signals)
            measure_statistics(network, head.norm, stream.part(), rounds, stage.world)
    parts: list[Iterator[Batch]] = [_part(stream) for _ in views]
    once = views[0]
    with stage.reporter.bar("collecting features", once.num_rounds * config.views) as bar:
        rounds = Rounds(once.num_rounds, bar, stage.stop_signals)
        size = (once.num_dealt, once.dataset.num_train)
        bank = collect_features(network, head.classifier, parts, size, rounds, config.feature_memory)
    stream.share(stage.world)
    seconds = time.perf_counter() - started
    num_images = sum(plan.num_images for plan in plans)
    stage.record(
        "pass",
        test_res=config.test_res,
        num_images=num_images,
        views=config.views,
        images_per_s=round(num_images / seconds, 2),
        seconds=round(seconds, 3),
    )
    stage.reporter.line(f"features of {num_images} looks at images at {config.test_res} px  {seconds:.1f} s")
    return bank


def _part(stream: Stream) -> Iterator[Batch]:
    """Return the next part of a stream, taken off only when it is begun."""
    yield from stream.part()


def _learn(stage: Stage, config: FinetuneConfig, head: Head, bank: FeatureBank, start: Checkpoint) -> Checkpoint:
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
            meter = EpochMeter(bar, EpochStatistics())
            for _ in learn_from_features(learner, head.classifier, bank, features, meter, stage.world):
                stage.stop_signals.agree().raise_if_stopped()
        state = replace(state, step=first_step + num_steps, statistics=meter.statistics())
        stage.reporter.line(f"{label}  {record_epoch(stage, state)}")
        state = replace(state, epoch=epoch + 1, statistics=EpochStatistics())
    return replace(
        state,
        state_dict=learner.network.state_dict(),
        optimizer=learner.optimizer.state_dict(),
        global_batch=plan.global_batch(config.epochs - 1),
        num_done=0,
        unreadable=dict(stage.unreadable.reasons),
    )
