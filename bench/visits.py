"""Visits to one resolution after the other, each batch timed: in one stream, or with everything made anew."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Any, NamedTuple

import torch
from loaders import pil_images, training_plan
from nvidia.dali import backend
from torch.utils.data import DataLoader

from dali_fixres.runtime.data import Data
from dali_fixres.runtime.progress import Reporter
from dali_fixres.training.stream import Epoch, Stream, Test
from dali_fixres.training.unreadable import Unreadable
from pipelines import Decoding, Loader
from pipelines.dali.decoding import WHOLE
from pipelines.dataset import TRAIN, Dataset, OpenedData
from pipelines.plan import AUGMENTATIONS, EvalPlan, TrainPlan
from pipelines.plan.batch_plan import BatchPlan
from pipelines.processes import loader_threads, usable_cores
from pipelines.resolution import Phase, Resolution, Schedule

__all__ = [
    "STAGES",
    "Batches",
    "Visit",
    "circuit",
    "first_times",
    "in_one_stream",
    "new_dataloaders",
    "rebuilt",
    "rises",
    "through_stages",
]

STAGES = ("train", "evaluate", "fine-tune")

_backend: Any = backend
"""DALI's; its stubs lack what frees memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """What a visit has: batches of a data set's training images.

    Attributes:
        index: The data set.
        device: Where our batches are wanted.
        size: Images per batch.
        number: Batches per visit.
        decoding: How a GPU decodes them.
    """

    dataset: Dataset
    device: torch.device
    size: int
    number: int
    decoding: Decoding = WHOLE


class Visit(NamedTuple):
    """Some batches at one resolution.

    Attributes:
        before: Pixels of the visit before; None of a route's first.
        res: Pixels that were ordered.
        batch_ms: From each batch before to this one, ms.
        steady_ms: What a batch takes from the third on.
        num_wrong: Batches of another size.
    """

    before: int | None
    res: int
    batch_ms: list[float]
    steady_ms: float
    num_wrong: int

    def ratio(self, number: int) -> float:
        """Return one batch's time over the steady one."""
        return self.batch_ms[number] / self.steady_ms


Images = Callable[[int, Resolution], Iterator[torch.Tensor]]
"""The images of each batch of a visit, given its number and its resolution."""


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


def rises(resolutions: Sequence[Resolution]) -> list[tuple[Resolution, Resolution]]:
    """Return each of ascending resolutions with the next one, and the lowest with the highest."""
    return list(dict.fromkeys([*pairwise(resolutions), (resolutions[0], resolutions[-1])]))


def in_one_stream(batches: Batches, route: Sequence[Resolution]) -> list[Visit]:
    """Go a route with one loader that has been at each resolution before, as in a job that is under way."""
    return _streamed(batches, route, known=list(dict.fromkeys(route)))


def first_times(batches: Batches, pairs: Sequence[tuple[Resolution, Resolution]]) -> list[Visit]:
    """Go from a resolution to a higher one, for each pair with a new loader, whose buffers are to grow."""
    visits = []
    for number, pair in enumerate(pairs):
        _backend.ReleaseUnusedMemory()  # pools never shrink by themselves: the loader before would have grown them
        visits += _streamed(batches, pair, first=number * len(pair))
    return visits


def _streamed(
    batches: Batches, route: Sequence[Resolution], *, known: Sequence[Resolution] = (), first: int = 0
) -> list[Visit]:
    """Go a route with one stream of plans, after visits to what is known that are not timed."""
    numbered = [*enumerate(known, first + len(route)), *enumerate(route, first)]
    with _loader(batches) as loader:
        stream = loader.run(chain.from_iterable(_orders(batches, *visit) for visit in numbered))
        for _ in islice(stream, len(known) * batches.number):
            pass
        here = (batch.images for batch in stream)
        return _visits(route, lambda *_: islice(here, batches.number), batches.device, first=first)


def rebuilt(batches: Batches, route: Sequence[Resolution]) -> list[Visit]:
    """Go a route with a pipeline built for every visit: of our graph, as if it knew one resolution only."""

    def images(number: int, resolution: Resolution) -> Iterator[torch.Tensor]:
        with _loader(batches) as loader:
            for batch in loader.run(_orders(batches, number, resolution)):
                yield batch.images

    return _visits(route, images, batches.device)


def new_dataloaders(batches: Batches, route: Sequence[Resolution]) -> list[Visit]:
    """Go a route with torchvision's DataLoader, made for every visit, a process per core forked each time.

    To be run in a process that has no threads of DALI, which a fork would inherit locked.
    """

    def images(number: int, resolution: Resolution) -> Iterator[torch.Tensor]:
        rows = [row for order in _orders(batches, number, resolution) for row in order.ids.tolist()]
        data = pil_images(batches.dataset, rows, resolution.crop_px)
        for images, _ in DataLoader(data, batches.size, num_workers=usable_cores(), multiprocessing_context="fork"):
            yield images

    # Batches of several processes come in bunches, whose median would say nothing.
    return _visits(route, images, torch.device("cpu"), steady=statistics.mean)


def through_stages(
    batches: Batches, opened: OpenedData, ends: tuple[Resolution, Resolution], rounds: int
) -> list[Visit]:
    """Train low, evaluate high and fine-tune high, round after round, in one stream as a command's."""
    dataset, (low, high) = batches.dataset, ends
    train, tune = (
        TrainPlan(dataset, AUGMENTATIONS[name], Schedule((Phase(0, resolution.crop_px),)), batches.size)
        for name, resolution in (("train", low), ("v2", high))
    )
    # Training images, looked at as in an evaluation: the images made for benches have few others.
    every = max(1, dataset.num_train // (batches.number * batches.size))
    test = EvalPlan(dataset, batches.size, split=TRAIN, every=every)
    num_done = max(0, train.num_steps(0) - batches.number) * batches.size
    parts = [
        part
        for number in range(rounds)
        for part in (Epoch(train, number, num_done), Test(test, high), Epoch(tune, number, num_done))
    ]
    data = Data(dataset, opened.left_out, dataset.root, synthetic=False)
    unreadable = Unreadable(data, {}, strict=True, reporter=Reporter(quiet=True), listed_in=None)
    with _loader(batches) as loader:
        stream = Stream(loader, parts, unreadable)
        return _visits((low, high, high) * rounds, lambda *_: (batch.images for batch in stream.part()), batches.device)


def _orders(batches: Batches, number: int, resolution: Resolution) -> Iterator[BatchPlan]:
    """Yield the plans of a visit; each has other images, lest one dear batch be the first of all."""
    plan = training_plan(batches.dataset, resolution, batches.size)
    first = number * batches.number
    return (plan.at(*divmod(step, plan.num_steps(0))) for step in range(first, first + batches.number))


def _loader(batches: Batches) -> Loader:
    return Loader(
        batches.dataset,
        max_batch_size=batches.size,
        device=batches.device,
        num_threads=loader_threads(),
        decoding=batches.decoding,
    )


def _visits(
    route: Sequence[Resolution],
    images_of: Images,
    device: torch.device,
    steady: Callable[[list[float]], float] = statistics.median,
    first: int = 0,
) -> list[Visit]:
    """Go a route and time every batch from the one before: what is torn down and built between them counts.

    Args:
        route: Where to go.
        images_of: Has the batches made.
        device: Waited for.
        steady: Sums up the third and later batches of a visit.
        first: Number of the first visit, which has no batch before: its first one has the start in it.
    """
    visits: list[Visit] = []
    before = time.perf_counter()
    for number, resolution in enumerate(route, first):
        batch_ms, num_wrong = [], 0
        for images in images_of(number, resolution):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            now = time.perf_counter()
            batch_ms.append(1000 * (now - before))
            before = now
            num_wrong += tuple(images.shape[-2:]) != (resolution.crop_px, resolution.crop_px)
        come_from = visits[-1].res if visits else None
        visits.append(Visit(come_from, resolution.crop_px, batch_ms, steady(batch_ms[2:]), num_wrong))
    return visits
