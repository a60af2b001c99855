"""What a change of resolution costs: the first batch after it over a steady batch, for every pair of resolutions.

A round trip, in which every ordered pair of resolutions is neighbours once, is made in four ways: by one run of our
loader, which has been at each resolution before; with a new run for each segment, as between an epoch and an
evaluation; with a pipeline rebuilt at each change; and with torchvision's DataLoader made anew.

Each batch is timed from the one before, so tearing down and building count. Steady is the median of a segment's batches
from the third on (for the DataLoader their mean, as its batches come in bunches). A batch of a wrong size is counted.

    uv run python -m bench.switching
    uv run python -m bench.switching --data DIR --res 128,224,320 --full
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from bench.baselines.run import files_of
from bench.harness import OURS, Bench, Flags, Key, Table, in_rounds, row_of
from bench.saved import Content
from bench.workloads import open_loader, training_plan, wait
from dali_fixres.runtime import Reporter
from pipelines import IMAGENET, BatchPlan, Dataset, Resolution, UserError, usable_cores

NEW_RUN, REBUILT, DATALOADER = "dali-fixres, new run", "rebuilt pipeline", "new DataLoader"
WAYS = (OURS, NEW_RUN, REBUILT, DATALOADER)

FEWEST_BATCHES = 4
"""Of a segment: the first, the second, and two to call steady."""

Plans = Sequence[BatchPlan]


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchingFlags(Flags):
    """Flags."""

    def __post_init__(self) -> None:
        super(SwitchingFlags, self).__post_init__()
        if self.effort.num_batches < FEWEST_BATCHES:
            raise UserError(f"--num-batches must be at least {FEWEST_BATCHES} here; found {self.effort.num_batches}")
        if len(self.resolutions) < 2:
            raise UserError(f"--res must name at least two resolutions to change between; found {self.res}")


class Segment(NamedTuple):
    """Some batches at one resolution.

    Attributes:
        before: Pixels of the segment before; None of the first.
        res: Pixels that were planned.
        batch_ms: From each batch before to this one, ms.
        steady_ms: What a batch takes from the third on, ms.
        num_wrong: Batches of another size.
    """

    before: int | None
    res: int
    batch_ms: list[float]
    steady_ms: float
    num_wrong: int

    @property
    def ratio(self) -> float:
        """The first batch's time over the steady one."""
        return self.batch_ms[0] / self.steady_ms


def round_trip(resolutions: Sequence[Resolution]) -> list[Resolution]:
    """Return a way from the first resolution back to it, on which every ordered pair is neighbours exactly once."""
    to_come = {one: [other for other in resolutions if other != one] for one in resolutions}
    path, route = [resolutions[0]], []
    while path:  # Hierholzer's algorithm
        if to_come[path[-1]]:
            path.append(to_come[path[-1]].pop())
        else:
            route.append(path.pop())
    return route[::-1]


def segment_plans(dataset: Dataset, flags: Flags, number: int, resolution: Resolution) -> Plans:
    """Return the plans of a segment; each has other images, so that a slow batch is not always the first."""
    plan, size = training_plan(dataset, resolution, flags.batch_size), flags.effort.num_batches
    return [plan.at(*divmod(step, plan.num_steps(0))) for step in range(number * size, (number + 1) * size)]


def timed_segments(
    sides: Sequence[int],
    images_of: Callable[[int], Iterator[torch.Tensor]],
    device: torch.device,
    steady: Callable[[list[float]], float] = statistics.median,
) -> list[Segment]:
    """Time every batch of a trip from the one before.

    Args:
        sides: Pixels of each segment.
        images_of: Makes the batches of a segment, by its number.
        device: Waited for.
        steady: Sums up the third and later batches of a segment.
    """
    segments: list[Segment] = []
    before = time.perf_counter()
    for number, side in enumerate(sides):
        batch_ms, num_wrong = [], 0
        for images in images_of(number):
            wait(device)
            now = time.perf_counter()
            batch_ms.append(1000 * (now - before))
            before = now
            num_wrong += tuple(images.shape[-2:]) != (side, side)
        come_from = segments[-1].res if segments else None
        segments.append(Segment(come_from, side, batch_ms, steady(batch_ms[2:]), num_wrong))
    return segments


def new_dataloaders(files: Sequence[list[tuple[str, int]]], sides: Sequence[int], size: int) -> list[Segment]:
    """Make a trip with torchvision's DataLoader, made for every segment, a process per core forked each time.

    To be run in a process without DALI's threads, which a fork would inherit locked.

    Args:
        files: Of each segment, with their labels.
        sides: Pixels of each segment.
        size: Images per batch.
    """
    from bench.baselines.torchvision import images_with_pil  # noqa: PLC0415 - that process alone needs it

    def images_of(number: int) -> Iterator[torch.Tensor]:
        settings = {"files": files[number], "mean": IMAGENET.mean, "std": IMAGENET.std}
        data = images_with_pil(settings, sides[number])
        for images, _ in DataLoader(data, size, num_workers=usable_cores(), multiprocessing_context="fork"):
            yield images

    return timed_segments(sides, images_of, torch.device("cpu"), statistics.mean)


def measure(flags: SwitchingFlags, dataset: Dataset, reporter: Reporter) -> dict[str, Any]:
    """Make the round trips, and sum up the changes."""
    if dataset.in_shards:
        raise UserError("the DataLoader of this bench reads single files; give --data a folder or a manifest")
    device, size = flags.torch_device, flags.batch_size
    trip = round_trip(flags.resolutions)
    route = [segment_plans(dataset, flags, *numbered) for numbered in enumerate(trip)]
    known = [segment_plans(dataset, flags, *numbered) for numbered in enumerate(flags.resolutions, len(route))]
    sides = [resolution.crop_px for resolution in trip]
    files = [[file for plan in plans for file in files_of(dataset, plan.ids.tolist())] for plans in route]

    def one_run() -> list[Segment]:
        with open_loader(dataset, size, device) as loader:
            images = (batch.images for batch in loader.run(chain.from_iterable([*known, *route])))
            for _ in islice(images, sum(map(len, known))):
                pass
            return timed_segments(sides, lambda number: islice(images, len(route[number])), device)

    def new_runs() -> list[Segment]:
        with open_loader(dataset, size, device) as loader:
            for _ in loader.run(chain.from_iterable(known)):
                pass
            return timed_segments(sides, lambda number: (one.images for one in loader.run(route[number])), device)

    def rebuilt() -> list[Segment]:
        def images_of(number: int) -> Iterator[torch.Tensor]:
            with open_loader(dataset, size, device) as loader:
                yield from (batch.images for batch in loader.run(route[number]))

        return timed_segments(sides, images_of, device)

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        work = (one_run, new_runs, rebuilt, lambda: pool.submit(new_dataloaders, files, sides, size).result())
        found = in_rounds(dict(zip(WAYS, work, strict=True)), flags.effort.repeats, reporter, _describe)
    rows = [row for loader, trips in found.items() for row in _rows(loader, trips, size)]
    ours = [segment for loader in (OURS, NEW_RUN) for segments in found[loader] for segment in segments]
    return {
        "results": rows,
        "summary": [summary_of(loader, [row for row in rows if row["loader"] == loader]) for loader in found],
        "num_batches": sum(len(segment.batch_ms) for segment in ours),
        "batches_at_wrong_resolution": sum(segment.num_wrong for segment in ours),
    }


def _describe(segments: list[Segment]) -> str:
    return f"first / steady {statistics.median(segment.ratio for segment in segments if segment.before):.2f}"


def _rows(loader: str, trips: list[list[Segment]], batch_size: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each change; images/s are those of the first batch after it."""
    for segments in map(list, zip(*trips, strict=True)):
        if segments[0].before is None:
            continue
        first_ms = [segment.batch_ms[0] for segment in segments]
        ratios = [segment.ratio for segment in segments]
        yield {
            **row_of(Key("switch", loader, segments[0].res), [1000 * batch_size / ms for ms in first_ms]),
            "from": segments[0].before,
            "first_ms": round(statistics.median(first_ms), 2),
            "steady_ms": round(statistics.median(segment.steady_ms for segment in segments), 2),
            "first_ratio": round(statistics.median(ratios), 3),
            "first_ratios": [round(value, 3) for value in ratios],
        }


def summary_of(loader: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all changes of a loader come to."""
    return {
        "loader": loader,
        "first_ratio": round(statistics.median(row["first_ratio"] for row in rows), 3),
        "worst_first_ratio": max(row["first_ratio"] for row in rows),
        "first_extra_ms": round(statistics.median(row["first_ms"] - row["steady_ms"] for row in rows), 2),
    }


def tables(content: Content) -> list[Table]:
    """Return the summary of all changes."""
    rows = [
        [
            one["loader"],
            *(f"{one[name]:.2f}" for name in ("first_ratio", "worst_first_ratio")),
            f"{one['first_extra_ms']:.0f}",
        ]
        for one in content["summary"]
    ]
    title = "First batch after a change of resolution over a steady batch"
    return [Table(title, ("", "median of all changes", "worst change", "ms more"), rows)]


def answer(content: Content) -> str:
    """Say what a change costs."""
    ours = next(one for one in content["summary"] if one["loader"] == OURS)
    wrong, number = content["batches_at_wrong_resolution"], content["num_batches"]
    return (
        f"The first batch after a change takes {ours['first_ratio']:.2f} times as long as a steady one, "
        f"{ours['worst_first_ratio']:.2f} at the worst change.\n{wrong} of {number} batches had a wrong size."
    )


BENCH = Bench("switching", __doc__, SwitchingFlags, measure, tables, answer)

if __name__ == "__main__":
    BENCH.main()
