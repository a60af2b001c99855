"""`finetune --method cached-features`: the network runs once, then the classifier is trained on its features."""

import time
from dataclasses import replace
from functools import partial

from torch.nn.modules.batchnorm import _BatchNorm

from dali_fixres.checkpoints import Checkpoint, EpochStatistics
from dali_fixres.config import CachedFeaturesSettings
from dali_fixres.errors import Interrupted
from dali_fixres.evaluation.evaluate import Evaluator
from dali_fixres.finetuning.feature_training import FeatureEpoch, train_on_features
from dali_fixres.finetuning.features import FeatureBank, collect_features, measure_statistics
from dali_fixres.models import Head
from dali_fixres.runtime.json_files import PassRecord
from dali_fixres.runtime.skipped import share_skipped
from dali_fixres.training.run_log import RunLog
from dali_fixres.training.statistics import EpochMeter
from dali_fixres.training.step import TrainingSetup
from pipelines import TRAIN, EvalPlan, TrainPlan
from pipelines.plan import step_seed

__all__ = ["passes_for_features", "tune_on_cached_features"]


def tune_on_cached_features(
    settings: CachedFeaturesSettings,
    setup: TrainingSetup,
    plan: TrainPlan,
    head: Head,
    evaluator: Evaluator,
    start: Checkpoint,
    log: RunLog,
) -> Checkpoint:
    """Re-estimate the last norm's statistics, cache features, train the classifier on them; return the new state.

    Nothing is saved on the way: it takes about one pass over the images, and a stopped run begins it again.

    Raises:
        Interrupted: If a signal asks for it.
    """
    if start.epoch >= settings.epochs:
        return start
    try:
        bank = _cache(settings, plan, head, evaluator, log)
        return _train(settings, setup, plan, head, bank, evaluator, start, log)
    except Interrupted as interruption:
        raise log.stopped(str(interruption), None) from None


def passes_for_features(
    settings: CachedFeaturesSettings, evaluation: EvalPlan, plan: TrainPlan, head: Head
) -> tuple[EvalPlan | None, list[EvalPlan]]:
    """Plan what runs through the network once: some images for the last norm's statistics, and all in each view.

    The first is None where the norm has no statistics that are to follow the test resolution.
    """
    once = replace(evaluation, split=TRAIN)
    augmented = replace(once, augmentation=plan.augmentation, seed=plan.seed)
    views = [replace(augmented, view=view) for view in range(settings.augmented_views)]
    if not settings.norm_stats or not isinstance(head.norm, _BatchNorm):
        return None, views
    return replace(once, every=max(1, evaluation.dataset.num_train // settings.statistics_images)), views


def _cache(
    settings: CachedFeaturesSettings, plan: TrainPlan, head: Head, evaluator: Evaluator, log: RunLog
) -> FeatureBank:
    """Run the network over the training images once, in each view."""
    batches, reporter, world = evaluator.batches, log.reporter, log.world
    resolution, started = plan.schedule.last, time.perf_counter()
    statistics, views = passes_for_features(settings, evaluator.plan, plan, head)
    if statistics is not None:
        assert isinstance(head.norm, _BatchNorm)
        with reporter.bar("re-estimating the last norm's statistics", statistics.num_rounds) as bar:
            forward = evaluator.forward(statistics.num_rounds, bar)
            measure_statistics(head.norm, batches.evaluation(statistics, resolution), forward, world)
    one = views[0]
    with reporter.bar("caching features", one.num_rounds * len(views)) as bar:
        forward = evaluator.forward(one.num_rounds, bar)
        passes = [batches.evaluation(view, resolution) for view in views]
        size = (one.num_assigned, one.dataset.num_train)
        bank = collect_features(head.classifier, passes, size, forward, settings.feature_memory)
    share_skipped(batches.skipped, world)
    seconds = time.perf_counter() - started
    num_images = sum(one.num_images for one in (*([] if statistics is None else [statistics]), *views))
    record: PassRecord = {
        "test_res": resolution.crop_px,
        "num_images": num_images,
        "views": len(views),
        "images_per_s": round(num_images / seconds, 2),
        "seconds": round(seconds, 3),
    }
    log.record("pass", **record)
    reporter.line(f"cached features of {num_images} images at {resolution.crop_px} px  {seconds:.1f} s")
    return bank


def _train(
    settings: CachedFeaturesSettings,
    setup: TrainingSetup,
    plan: TrainPlan,
    head: Head,
    bank: FeatureBank,
    evaluator: Evaluator,
    state: Checkpoint,
    log: RunLog,
) -> Checkpoint:
    for epoch in range(state.epoch, settings.epochs):
        label = f"epoch {epoch + 1}/{settings.epochs} on features"
        first_step, num_steps = plan.steps_before(epoch), plan.num_steps(epoch)
        features = FeatureEpoch(
            epoch % settings.augmented_views,
            first_step,
            (plan.global_rows(epoch, step) for step in range(num_steps)),
            dropout=settings.feature_dropout,
            seed_of=partial(step_seed, plan.seed, 0),
        )
        with log.reporter.bar(label, num_steps) as bar:
            meter = EpochMeter(bar, EpochStatistics())
            train_on_features(setup, head.classifier, bank, features, meter, log.world, evaluator.signals)
        statistics, step = meter.statistics(), first_step + num_steps
        last_lr = setup.learning_rate.at(max(step - 1, 0))
        log.record_epoch(epoch + 1, step, plan.schedule.last.crop_px, last_lr, statistics)
        log.reporter.line(f"{label}  {statistics}  {statistics.seconds:.1f} s")
        state = replace(state, epoch=epoch + 1, step=step)
    return replace(
        state,
        state_dict=setup.network.state_dict(),
        optimizer=setup.optimizer.state_dict(),
        global_batch=plan.global_batch(settings.epochs - 1),
        num_done=0,
        statistics=EpochStatistics(),
        unreadable=dict(evaluator.batches.skipped.reasons),
    )
