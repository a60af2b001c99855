"""What the benches measure loaders with: ours, and the same pictures as torchvision's ImageFolder gives them.

Both crop, resize, mirror and normalise as in training, into float32 batches on the CPU.
"""

import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Any

from harness import Measure
from peer_torchvision import OfPil, Pictures
from peers import files_of

from dali_fixres.colour import IMAGENET
from dali_fixres.errors import UserError
from dali_fixres.index import TRAIN, Index
from dali_fixres.plan import AUGMENTATIONS, TrainPlan
from dali_fixres.resolution import Phase, Resolution, Schedule
from pipelines import Loader

__all__ = ["check_size", "measure_ours", "pil_pictures", "training_plan"]

WARM_UP = 4
"""Batches before the clock starts: what a loader has made ahead is used up by then."""

TAIL = 3
"""Batches after the clock stops, so that to its end a loader works ahead as it does in the middle."""


def pil_pictures(index: Index, rows: list[int], side_px: int) -> Pictures:
    """Return the same files as torchvision's ImageFolder would give them to a training loop."""
    return Pictures(files_of(index, rows), OfPil({"mean": IMAGENET.mean, "std": IMAGENET.std}, side_px))


def training_plan(index: Index, resolution: Resolution, batch_size: int, jitter: float = 0.0) -> TrainPlan:
    """Return training at one resolution; if not said otherwise without colour jitter, which the others do not have."""
    augmentation = replace(AUGMENTATIONS["train"], jitter=jitter)
    return TrainPlan(index, augmentation, Schedule((Phase(0, resolution.crop_px),)), batch_size)


def check_size(index: Index, batch_size: int, num_batches: int) -> None:
    """Refuse a data set with fewer pictures than a repeat takes."""
    needed = (WARM_UP + num_batches + TAIL) * batch_size
    found = len(index.rows(TRAIN))
    if found < needed:
        raise UserError(
            f"{index.root} has {found} training pictures and a repeat takes {needed}; "
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
