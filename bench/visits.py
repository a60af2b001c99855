"""Visits to one resolution after the other, each batch timed: in one stream, or with everything made anew."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from loaders import PilPictures, training_plan
from nvidia.dali import backend
from rank import endless
from torch.utils.data import DataLoader

from dali_fixres.batch import BatchPlan
from dali_fixres.commands.dataset import Dataset
from dali_fixres.commands.stream import Epoch, Stream, Test
from dali_fixres.commands.unreadable import Unreadable
from dali_fixres.index import TRAIN, Index, OpenedData
from dali_fixres.plan import AUGMENTATIONS, EvaluationPlan, TrainPlan
from dali_fixres.processes import loader_threads, usable_cores
from dali_fixres.report.progress import Reporter
from dali_fixres.resolution import Phase, Resolution, Schedule
from pipelines import Decoding, Loader
from pipelines.decoding import WHOLE

__all__ = ["STAGES", "Batches", "Visit", "circuit", "in_one_stream", "new_dataloaders", "rebuilt", "through_stages"]

STAGES = ("train", "evaluate", "fine-tune")

_backend: Any = backend
"""DALI's; its stubs lack what frees memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """What a visit has: batches of a data set's training pictures.

    Attributes:
        index: The data set.
        device: Where our batches are wanted.
        size: Pictures per batch.
        number: Batches per visit.
        decoding: How a GPU decodes them.
    """

    index: Index
    device: torch.device
    size: int
    number: int
    decoding: Decoding = WHOLE


class Visit(NamedTuple):
    """Some batches at one resolution.

    Attributes:
        res: Pixels that were ordered.
        batch_ms: From each batch before to this one, ms.
        steady_ms: What a batch takes from the third on.
        num_wrong: Batches of another size.
    """

    res: int
    batch_ms: list[float]
    steady_ms: float
    num_wrong: int

    def ratio(self, number: int) -> float:
        """Return one batch's time over the steady one."""
        return self.batch_ms[number] / self.steady_ms


Pictures = Callable[[Resolution], Iterator[torch.Tensor]]
"""The pictures of each batch of a visit."""


def circuit(resolutions: Sequence[Resolution]) -> list[Resolution]:
    """Return a round trip from the first resolution on in which every ordered pair is neighbours exactly once."""
    to_come = {one: [other for other in resolutions if other != one] for one in resolutions}
    path, route = [resolutions[0]], []
    while path:  # Hierholzer's algorithm
        if to_come[path[-1]]:
            path.append(to_come[path[-1]].pop())
        else:
            route.append(path.pop())
    return route[::-1]


def in_one_stream(batches: Batches, route: Sequence[Resolution], *, prewarm: bool) -> list[Visit]:
    """Go a route with one loader; pre-warmed, a batch at the largest resolution is made and thrown away before."""
    _backend.ReleaseUnusedMemory()  # pools never shrink by themselves: the round before would have warmed them
    orders = chain.from_iterable(_orders(batches, resolution) for resolution in route)
    first = list(islice(_orders(batches, max(route)), 1 if prewarm else 0))
    with _loader(batches) as loader:
        stream = loader.run(chain(first, orders))
        for _ in first:
            next(stream)
        return _visits(route, lambda _: (batch.images for batch in islice(stream, batches.number)), batches.device)


def rebuilt(batches: Batches, route: Sequence[Resolution]) -> list[Visit]:
    """Go a route with a pipeline built for every visit: of our graph, as if it knew one resolution only."""

    def pictures(resolution: Resolution) -> Iterator[torch.Tensor]:
        with _loader(batches) as loader:
            for batch in loader.run(_orders(batches, resolution)):
                yield batch.images

    return _visits(route, pictures, batches.device)


def new_dataloaders(batches: Batches, route: Sequence[Resolution]) -> list[Visit]:
    """Go a route with torchvision's DataLoader, made for every visit, a process per core forked each time.

    To be run in a process that has no threads of DALI, which a fork would inherit locked.
    """

    def pictures(resolution: Resolution) -> Iterator[torch.Tensor]:
        rows = [row for order in _orders(batches, resolution) for row in order.ids.tolist()]
        dataset = PilPictures(batches.index, rows, resolution.crop_px)
        for images, _ in DataLoader(dataset, batches.size, num_workers=usable_cores(), multiprocessing_context="fork"):
            yield images

    # Batches of several processes come in bunches, whose median would say nothing.
    return _visits(route, pictures, torch.device("cpu"), steady=statistics.mean)


def through_stages(
    batches: Batches, opened: OpenedData, ends: tuple[Resolution, Resolution], rounds: int
) -> list[Visit]:
    """Train low, evaluate high and fine-tune high, round after round, in one stream as a command's."""
    index, (low, high) = batches.index, ends
    train, tune = (
        TrainPlan(index, AUGMENTATIONS[name], Schedule((Phase(0, resolution.crop_px),)), batches.size)
        for name, resolution in (("train", low), ("v2", high))
    )
    # Training pictures, looked at as in an evaluation: the pictures made for benches have few others.
    every = max(1, index.num_train // (batches.number * batches.size))
    test = EvaluationPlan(index, batches.size, split=TRAIN, every=every)
    num_done = max(0, train.num_steps(0) - batches.number) * batches.size
    parts = [
        part
        for number in range(rounds)
        for part in (Epoch(train, number, num_done), Test(test, high), Epoch(tune, number, num_done))
    ]
    dataset = Dataset(index, opened.left_out, index.root, synthetic=False)
    unreadable = Unreadable(dataset, {}, strict=True, reporter=Reporter(quiet=True), listed_in=None)
    with _loader(batches) as loader:
        stream = Stream(loader, parts, unreadable)
        return _visits((low, high, high) * rounds, lambda _: (batch.images for batch in stream.part()), batches.device)


def _orders(batches: Batches, resolution: Resolution) -> Iterator[BatchPlan]:
    """Yield the plans of a visit."""
    return endless(training_plan(batches.index, resolution, batches.size), batches.number)


def _loader(batches: Batches) -> Loader:
    return Loader(
        batches.index,
        max_batch_size=batches.size,
        device=batches.device,
        num_threads=loader_threads(),
        decoding=batches.decoding,
    )


def _visits(
    route: Sequence[Resolution],
    pictures_of: Pictures,
    device: torch.device,
    steady: Callable[[list[float]], float] = statistics.median,
) -> list[Visit]:
    """Go a route and time every batch from the one before: what is torn down and built between them counts."""
    visits = []
    before = time.perf_counter()
    for resolution in route:
        batch_ms, num_wrong = [], 0
        for images in pictures_of(resolution):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            now = time.perf_counter()
            batch_ms.append(1000 * (now - before))
            before = now
            num_wrong += tuple(images.shape[-2:]) != (resolution.crop_px, resolution.crop_px)
        visits.append(Visit(resolution.crop_px, batch_ms, steady(batch_ms[2:]), num_wrong))
    return visits
