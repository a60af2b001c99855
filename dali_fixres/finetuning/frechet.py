"""`finetune --method frechet`: pooled activations at the test resolution are mapped to where they lie in training."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dali_fixres.checkpoints import Checkpoint
from dali_fixres.config import FinetuneConfig, FrechetSettings
from dali_fixres.errors import Interrupted
from dali_fixres.evaluation.evaluate import Evaluator
from dali_fixres.finetuning.features import FeaturePass, sample_features
from dali_fixres.models import DataConfig, Head, insert_mapping
from dali_fixres.models.frechet_distribution import Pooled, describe
from dali_fixres.runtime.json_files import Fit, PassRecord
from dali_fixres.runtime.skipped import share_skipped
from dali_fixres.training.run_log import RunLog
from dali_fixres.training.setup import augmentation
from pipelines import TRAIN, EvalPlan, Resolution

__all__ = ["map_activations", "passes_to_fit", "sample_activations"]


def map_activations(
    config: FinetuneConfig,
    settings: FrechetSettings,
    head: Head,
    evaluator: Evaluator,
    start: Checkpoint,
    log: RunLog,
) -> Checkpoint:
    """Fit pooled activations as in training and as in testing, and put the mapping before the classifier.

    Nothing is trained, and the network changes in nothing else. It counts as one epoch: the new state is that of a
    finished run. Nothing is saved on the way; a stopped run begins it again.

    Raises:
        ModelError: If the classifier does not get one vector per image.
        Interrupted: If a signal asks for it.
    """
    if start.epoch > 0:
        return start
    passes = passes_to_fit(config, settings, evaluator.plan, start.data_config)
    started = time.perf_counter()
    try:
        samples = sample_activations(head.classifier, passes, evaluator)
    except Interrupted as interruption:
        raise log.stopped(str(interruption), None) from None
    rectified, (trained, tested) = describe(*samples)
    insert_mapping(evaluator.network, head.classifier_name).fill(trained.fitted, tested.fitted, rectified=rectified)
    seconds = time.perf_counter() - started
    num_images = sum(one.plan.num_images for one in passes)
    record: PassRecord = {
        "test_res": config.test_res,
        "num_images": num_images,
        "views": 1,
        "images_per_s": round(num_images / seconds, 2),
        "seconds": round(seconds, 3),
        "trained": _fit(trained),
        "tested": _fit(tested),
    }
    log.record("pass", **record)
    for what, one, at_px in (("training", trained, start.train_res), ("testing", tested, config.test_res)):
        zeros = f", {one.zeros:.1%} zeros, which stay zeros" if rectified else ""
        log.reporter.line(f"pooled as in {what} at {at_px} px: {one.fitted}{zeros}")
    return replace(
        start,
        model=replace(start.model, frechet=head.classifier_name),
        state_dict=evaluator.network.state_dict(),
        epoch=1,
        unreadable=dict(evaluator.batches.skipped.reasons),
    )


def passes_to_fit(
    config: FinetuneConfig, settings: FrechetSettings, evaluation: EvalPlan, data_config: DataConfig
) -> list[FeaturePass]:
    """Plan what runs through the network once: some training images in training crops, and in test crops."""
    every = max(1, evaluation.dataset.num_train // settings.statistics_images)
    some = replace(evaluation, split=TRAIN, every=every)
    as_in_training = replace(some, augmentation=augmentation(config, data_config, "train"), seed=config.seed)
    return [
        FeaturePass(as_in_training, Resolution(data_config.train_res, config.ratio)),
        FeaturePass(some, config.test_resolution),
    ]


def sample_activations(
    classifier: nn.Module, passes: Sequence[FeaturePass], evaluator: Evaluator
) -> list[NDArray[np.float32]]:
    """Return, for each pass, some of the activations that reach a classifier, (n,) float32.

    Raises:
        ModelError: If the classifier does not get one vector per image.
        Interrupted: If a signal asks to stop.
    """
    samples = []
    for plan, resolution in passes:
        with evaluator.reporter.bar(f"activations at {resolution.crop_px} px", plan.num_rounds) as bar:
            forward = evaluator.forward(plan.num_rounds, bar)
            batches = evaluator.batches.evaluation(plan, resolution)
            samples.append(sample_features(classifier, batches, plan, forward, evaluator.world))
        share_skipped(evaluator.batches.skipped, evaluator.world)
    return samples


def _fit(pooled: Pooled) -> Fit:
    fitted = pooled.fitted
    return {"location": fitted.location, "scale": fitted.scale, "shape": fitted.shape, "zeros": pooled.zeros}
