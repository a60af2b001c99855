"""`finetune --method frechet`: pooled activations at the test resolution are mapped to where they lie in training."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dali_fixres.config import FinetuneConfig
from dali_fixres.errors import Interrupted
from dali_fixres.finetuning.features import Rounds, sample_features
from dali_fixres.models import Head, insert_mapping
from dali_fixres.models.frechet_distribution import describe
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.signals import StopSignals
from dali_fixres.training.checkpoint import Checkpoint
from dali_fixres.training.setup import augmentation
from dali_fixres.training.stage import Stage
from dali_fixres.training.stream import Stream, Test
from dali_fixres.training.unreadable import Unreadable
from pipelines import Loader
from pipelines.dataset import TRAIN
from pipelines.plan import AUGMENTATIONS, EvalPlan
from pipelines.resolution import Resolution

__all__ = ["adapt_activations", "sample_views", "views_to_fit"]


def adapt_activations(stage: Stage, config: FinetuneConfig, head: Head, start: Checkpoint) -> Checkpoint:
    """Fit pooled activations as in training and as in testing, put the mapping before the classifier.

    Nothing learns, and the network changes in nothing else. It counts as one epoch: the new state is that of a finished
    run. Nothing is saved on the way; a stopped run begins it again.

    Raises:
        ModelError: If the classifier does not get one vector per image.
        Interrupted: If a signal asks for it.
    """
    if start.epoch > 0:
        return start
    network = stage.learner.network
    views = views_to_fit(config, stage.evaluation, start.train_res)
    started = time.perf_counter()
    try:
        samples = sample_views(
            network, head.classifier, views, stage.loader, stage.unreadable, stage.reporter, stage.world,
            stage.stop_signals,
        )  # fmt: skip
    except Interrupted as interruption:
        raise stage.stopped(str(interruption), None) from None
    rectified, (trained, tested) = describe(*samples)
    insert_mapping(network, head.classifier_name).fill(trained.fitted, tested.fitted, rectified=rectified)
    seconds = time.perf_counter() - started
    num_images = sum(view.plan.num_images for view in views)
    stage.record(
        "pass",
        test_res=config.test_res,
        num_images=num_images,
        views=1,
        images_per_s=round(num_images / seconds, 2),
        seconds=round(seconds, 3),
        trained=asdict(trained.fitted) | {"zeros": trained.zeros},
        tested=asdict(tested.fitted) | {"zeros": tested.zeros},
    )
    for what, one, at_px in (("training", trained, start.train_res), ("testing", tested, config.test_res)):
        zeros = f", {one.zeros:.1%} zeros, which stay zeros" if rectified else ""
        stage.reporter.line(f"pooled as in {what} at {at_px} px: {one.fitted}{zeros}")
    return replace(
        start,
        model=replace(start.model, frechet=head.classifier_name),
        state_dict=network.state_dict(),
        epoch=1,
        unreadable=dict(stage.unreadable.reasons),
    )


def views_to_fit(config: FinetuneConfig, evaluation: EvalPlan, train_res: int) -> list[Test]:
    """Plan what runs through the network: some training images as training looks at them, and as testing does."""
    every = max(1, evaluation.dataset.num_train // config.statistics_images)
    some = replace(evaluation, split=TRAIN, every=every)
    as_in_training = replace(some, augmentation=augmentation(config, "train"), seed=config.seed)
    as_in_testing = replace(some, augmentation=AUGMENTATIONS["v1"])
    return [Test(as_in_training, Resolution(train_res, config.ratio)), Test(as_in_testing, config.test_resolution)]


def sample_views(
    network: nn.Module,
    classifier: nn.Module,
    views: Sequence[Test],
    loader: Loader,
    unreadable: Unreadable,
    reporter: Reporter,
    world: World,
    stop_signals: StopSignals | None = None,
) -> list[NDArray[np.float32]]:
    """Return what reaches a classifier, in several ways to look at images: of each some activations, (n,) float32.

    Raises:
        ModelError: If the classifier does not get one vector per image.
        Interrupted: If orders say so.
    """
    stream = Stream(loader, views, unreadable)
    samples = []
    for view in views:
        num_rounds = view.plan.num_rounds
        with reporter.bar(f"activations at {view.resolution.crop_px} px", num_rounds) as bar:
            rounds = Rounds(num_rounds, bar, stop_signals)
            samples.append(sample_features(network, classifier, stream.part(), view.plan, rounds, world))
        stream.share(world)
    return samples
