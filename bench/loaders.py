"""What the benches measure loaders with: ours, and torchvision's DataLoader on the same pictures.

Both crop, resize, mirror and normalise as in training, into float32 batches on the CPU.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from dali_fixres.colour import IMAGENET
from dali_fixres.errors import UserError
from dali_fixres.index import TRAIN, Index
from dali_fixres.plan import AUGMENTATIONS, TrainPlan
from dali_fixres.report.progress import Reporter
from dali_fixres.resolution import Phase, Resolution, Schedule
from pipelines import Loader

__all__ = ["Measure", "check_size", "interleaved", "measure_ours", "measure_torchvision", "training_plan"]

WARM_UP = 4
"""Batches before the clock starts: what a loader has made ahead is used up by then."""

TAIL = 3
"""Batches after the clock stops, so that to its end a loader works ahead as it does in the middle."""

Measure = Callable[[], float]
"""One repeat: returns images/s."""

Key = tuple[str, Resolution]
"""A loader and what it is measured at."""


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


def measure_torchvision(plan: TrainPlan, num_batches: int, workers: int) -> Measure:
    """Return what measures torchvision's loader; its processes stay alive between the repeats."""
    steps = range(WARM_UP + num_batches + TAIL)
    rows = [row for step in steps for row in plan.at(0, step).ids.tolist()]
    batches = DataLoader(
        PilPictures(plan.index, rows, plan.schedule.last.crop_px),
        plan.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        # DALI has threads by now, which a forked process would inherit locked.
        multiprocessing_context="forkserver",
    )
    return partial(_time, batches, plan.batch_size, num_batches)


def _time(batches: Iterable[Any], batch_size: int, num_batches: int) -> float:
    source = iter(batches)
    for _ in islice(source, WARM_UP):
        pass
    started = time.perf_counter()
    count = sum(1 for _ in islice(source, num_batches))
    seconds = time.perf_counter() - started
    assert count == num_batches, f"timed {count} batches instead of {num_batches}"
    for _ in source:
        pass
    return count * batch_size / seconds


def interleaved(measures: Mapping[Key, Measure], repeats: int, reporter: Reporter) -> list[dict[str, Any]]:
    """Run every measure once, and again, …; the first, unrecorded round starts processes and fills caches.

    Returns:
        One row per measure: ``loader``, ``res`` (px), ``images_per_s`` (the median) and ``repeats`` (images/s).
    """
    samples: dict[Key, list[float]] = {key: [] for key in measures}
    with reporter.bar("measuring", total=(repeats + 1) * len(measures)) as bar:
        done = 0
        for round_number in range(repeats + 1):
            for key, measure in measures.items():
                speed = measure()
                if round_number > 0:
                    samples[key].append(speed)
                done += 1
                bar.update(done, f"{key[0]} at {key[1].crop_px} px: {speed:.0f} img/s")
    return [
        {
            "loader": name,
            "res": resolution.crop_px,
            "images_per_s": round(statistics.median(values), 1),
            "repeats": [round(value, 1) for value in values],
        }
        for (name, resolution), values in samples.items()
    ]
