"""What the benches measure loaders with: ours, and the same pictures as torchvision's ImageFolder gives them.

Both crop, resize, mirror and normalise as in training, into float32 batches on the CPU.
"""

import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, count, islice
from typing import Any

import torch
from harness import Measure
from PIL import Image
from torch.utils.data import Dataset
from torchvision import transforms

from dali_fixres.colour import IMAGENET
from dali_fixres.errors import UserError
from dali_fixres.index import TRAIN, Index
from dali_fixres.plan import AUGMENTATIONS, TrainPlan
from dali_fixres.resolution import Phase, Resolution, Schedule
from pipelines import Loader

__all__ = ["PilPictures", "check_size", "measure_ours", "rows_of_repeat", "training_plan"]

WARM_UP = 4
"""Batches before the clock starts: what a loader has made ahead is used up by then."""

TAIL = 3
"""Batches after the clock stops, so that to its end a loader works ahead as it does in the middle."""


class PilPictures(Dataset[tuple[torch.Tensor, int]]):
    """The same files as torchvision's ImageFolder would give them to a training loop."""

    def __init__(self, index: Index, rows: list[int], side_px: int) -> None:
        self._samples = [(str(index.path(row)), int(index.labels[row])) for row in rows]
        self._transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(side_px),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET.mean, IMAGENET.std),
            ]
        )

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._samples)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        """Decode, crop and convert a picture."""
        path, label = self._samples[number]
        with Image.open(path) as image:
            return self._transform(image.convert("RGB")), label


def training_plan(index: Index, resolution: Resolution, batch_size: int) -> TrainPlan:
    """Return training at one resolution without colour jitter, which the others do not have either."""
    plain = replace(AUGMENTATIONS["train"], jitter=0.0)
    return TrainPlan(index, plain, Schedule((Phase(0, resolution.crop_px),)), batch_size)


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


def rows_of_repeat(plan: TrainPlan, num_batches: int) -> list[int]:
    """Return the pictures that a peer takes in a repeat, warm-up and tail included; the data again if it is smaller."""
    epochs = chain.from_iterable(plan.epoch(epoch) for epoch in count())
    return [row for one in islice(epochs, WARM_UP + num_batches + TAIL) for row in one.ids.tolist()]


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
