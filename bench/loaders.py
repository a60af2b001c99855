"""What the benches measure loaders with: ours, and the same images as torchvision's ImageFolder gives them.

Both crop, resize, mirror and normalise as in training, into float32 batches on the CPU.
"""

import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Any

from harness import Measure
from peer_torchvision import Images, OfPil
from peers import files_of

from dali_fixres.errors import UserError
from pipelines import Loader
from pipelines.dataset import TRAIN, Dataset
from pipelines.plan import AUGMENTATIONS, TrainPlan
from pipelines.plan.colour import IMAGENET
from pipelines.resolution import Phase, Resolution, Schedule

__all__ = ["check_size", "measure_ours", "pil_images", "training_plan"]

WARM_UP = 4
"""Batches before the clock starts: what a loader has made ahead is used up by then."""

TAIL = 3
"""Batches after the clock stops, so that to its end a loader works ahead as it does in the middle."""


def pil_images(dataset: Dataset, rows: list[int], side_px: int) -> Images:
    """Return the same files as torchvision's ImageFolder would give them to a training loop."""
    return Images(files_of(dataset, rows), OfPil({"mean": IMAGENET.mean, "std": IMAGENET.std}, side_px))


def training_plan(dataset: Dataset, resolution: Resolution, batch_size: int, jitter: float = 0.0) -> TrainPlan:
    """Return training at one resolution; if not said otherwise without colour jitter, which the others do not have."""
    augmentation = replace(AUGMENTATIONS["train"], jitter=jitter)
    return TrainPlan(dataset, augmentation, Schedule((Phase(0, resolution.crop_px),)), batch_size)


def check_size(dataset: Dataset, batch_size: int, num_batches: int) -> None:
    """Refuse a data set with fewer images than a repeat takes."""
    needed = (WARM_UP + num_batches + TAIL) * batch_size
    found = len(dataset.rows(TRAIN))
    if found < needed:
        raise UserError(
            f"{dataset.root} has {found} training images and a repeat takes {needed}; "
            "lower --num-batches or --batch-size"
        )


def measure_ours(loader: Loader, plan: TrainPlan, num_batches: int) -> Measure:
    """Return what measures our loader."""
    batches = WARM_UP + num_batches + TAIL
    return lambda: _time(loader.run(islice(plan.epoch(0), batches)), plan.batch_size, num_batches)


def _time(batches: Iterable[Any], batch_size: int, num_batches: int) -> float:
    source = iter(batches)
    for _ in islice(source, WARM_UP):
        pass
    started = time.perf_counter()
    done = sum(1 for _ in islice(source, num_batches))
    seconds = time.perf_counter() - started
    assert done == num_batches, f"timed {done} batches instead of {num_batches}"
    for _ in source:
        pass
    return done * batch_size / seconds
