"""How throughput grows with threads, batch size and prefetch depth, and planning with the size of the data.

First the loader alone by threads, batch size and prefetch depth, and training by the threads of loader and torch and by
batch size; one of them varies at a time. Then what planning costs for data sets of up to 10^6 images (10^7 with --full)
that need not exist: memory, the start of an epoch, and the milliseconds of a planned batch of 256, which must not grow.

    uv run python -m bench.scaling
    uv run python -m bench.scaling --data DIR --res 128 --full
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bench.harness import OURS, Bench, Effort, Flags, Key, Table, in_rounds, row_of
from bench.saved import Content
from bench.workloads import build_setup, default_model, endless, open_loader, running, steps, timed, training_plan
from dali_fixres.models import ModelSpec
from dali_fixres.runtime import Reporter
from pipelines import TRAIN, Dataset, EvalPlan, Resolution, UserError, loader_threads, usable_cores

LOADER, TRAINING = "loader", "training"

PLAN_BATCH = 256
NUM_PLANNED = 50
"""Batches whose median is taken, spread over the epoch."""

PREFETCHES = (1, 2, 4)

CHOICES = ("threads", "torch_threads", "batch_size", "prefetch")
"""Keys of a row that describe its setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingFlags(Flags):
    """Flags."""

    res: str = "224"
    """Pixels of the crops; one resolution."""

    model: str | None = None
    """As for `bench.throughput`."""

    def __post_init__(self) -> None:
        super(ScalingFlags, self).__post_init__()
        if len(self.resolutions) > 1:
            raise UserError(f"--res takes one resolution here; found {self.res}")


class Setting(NamedTuple):
    """What is measured, and which of the numbers varies."""

    what: str
    varied: str
    threads: int
    torch_threads: int
    batch_size: int
    prefetch: int = 2

    @property
    def stage(self) -> str:
        """Its name in rows."""
        return f"{self.what} by {self.varied}"


def measure(flags: ScalingFlags, dataset: Dataset, reporter: Reporter) -> dict[str, Any]:
    """Measure every setting, and the cost of plans."""
    model = flags.model or default_model(flags.torch_device)
    setup = build_setup(ModelSpec(model, len(dataset.classes)), flags.resolutions[0], flags.torch_device)

    def speed(setting: Setting) -> float:
        torch.set_num_threads(setting.torch_threads)
        # As many images whatever the batch size.
        number = max(2, flags.effort.num_batches * flags.batch_size // setting.batch_size)
        effort = Effort(flags.effort.repeats, number, flags.effort.seconds)
        plan = training_plan(dataset, flags.resolutions[0], setting.batch_size)
        loader = open_loader(dataset, setting.batch_size, flags.torch_device, setting.threads, setting.prefetch)
        with loader, running(loader, endless(plan)) as batches:
            work = batches if setting.what == LOADER else steps(setup, batches)
            return timed(work, setting.batch_size, effort, flags.torch_device).images_per_s

    work = {one: partial(speed, one) for one in settings_of(flags)}
    found = in_rounds(work, flags.effort.repeats, reporter)
    res = flags.resolutions[0].crop_px
    rows = [
        {**{name: getattr(one, name) for name in CHOICES}, **row_of(Key(one.stage, OURS, res), speeds)}
        for one, speeds in found.items()
    ]
    most = 5 if flags.quick else 7 if flags.full else 6
    plan = [plan_cost(10**power) for power in range(4, most + 1)]
    return {"model": model, "results": rows, "plan": plan, "plan_batch": PLAN_BATCH}


def settings_of(flags: ScalingFlags) -> Iterator[Setting]:
    """Yield the settings in one process: the loader alone, then training, each with one number that varies."""
    cores, threads, size = usable_cores(), loader_threads(), flags.batch_size
    loader = Setting(LOADER, "threads", threads, cores, size)
    # All numbers near the cores; below, powers of two are enough.
    below = {2**power for power in range(cores.bit_length()) if 2**power < cores}
    for number in sorted(below | {cores, cores + 1, cores + 2}):
        yield loader._replace(threads=number)
    for number in (max(1, size // 4), size, 4 * size):
        yield loader._replace(varied="batch size", batch_size=number)
    for number in PREFETCHES:
        yield loader._replace(varied="prefetch", prefetch=number)
    training, some = loader._replace(what=TRAINING), max(1, cores // 2)
    for ours, torchs in product(sorted({some, cores, threads}), sorted({some, cores})):
        yield training._replace(threads=ours, torch_threads=torchs)
    for number in (max(1, size // 4), max(1, size // 2), size):
        yield training._replace(varied="batch size", batch_size=number)


def synthetic_dataset(num_images: int) -> Dataset:
    """Return a data set of training images that need not exist, with paths as long as ImageNet's."""
    numbers = np.arange(num_images)
    paths = np.array([f"train/n{number % 1000:08}/{number:017}.JPEG" for number in range(num_images)], np.bytes_)
    zeros = np.zeros(num_images, np.int64)
    return Dataset(
        root=Path("/data"),
        classes=tuple(f"n{label:08}" for label in range(1000)),
        path_bytes=paths.view(np.uint8),
        path_ends=(numbers + 1) * paths.itemsize,
        labels=numbers % 1000,
        num_train=num_images,
        heights=300 + numbers * 7 % 200,
        widths=300 + numbers * 11 % 200,
        num_bytes=100_000 + numbers % 20_000,
        shards=(),
        shard_of=zeros,
        offsets=zeros,
        fingerprint="",
    )


def plan_cost(num_images: int) -> dict[str, Any]:
    """Return what planning costs for a data set of some size: memory in MiB, and milliseconds."""
    dataset = synthetic_dataset(num_images)
    columns = (getattr(dataset, field.name) for field in fields(dataset))
    mib = sum(column.nbytes for column in columns if isinstance(column, np.ndarray)) / 2**20
    plan = training_plan(dataset, Resolution(224), PLAN_BATCH)
    test = EvalPlan(dataset, PLAN_BATCH, split=TRAIN).batches(Resolution(224))
    spread = np.linspace(0, plan.num_steps(0) - 1, NUM_PLANNED).astype(int).tolist()
    found = {
        "resident_mib": mib,
        "mib_per_million": mib / num_images * 1e6,
        # Epochs that were not planned before: their permutation comes with the first batch.
        "epoch_start_ms": _median_ms([partial(plan.at, epoch, 0) for epoch in (1, 2, 3)]),
        "plan_ms": _median_ms([partial(plan.at, 3, step) for step in spread]),
        "test_plan_ms": _median_ms([partial(next, test)] * min(NUM_PLANNED, num_images // PLAN_BATCH)),
    }
    return {"num_images": num_images, **{name: round(value, 4) for name, value in found.items()}}


def _median_ms(calls: list[Callable[[], object]]) -> float:
    spent = []
    for call in calls:
        started = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - started))
    return statistics.median(spent)


def tables(content: Content) -> list[Table]:
    """Return images/s by setting, and what planning costs by size."""
    headings = ("", "loader threads", "torch threads", "batch", "prefetch", "images/s")
    rows = [
        [row["stage"], *(str(row[name]) for name in CHOICES), f"{row['images_per_s']:.0f}"]
        for row in content["results"]
    ]
    names = ("mib_per_million", "epoch_start_ms", "plan_ms", "test_plan_ms")
    plan = [[f"{row['num_images']:,}", *(f"{row[name]:.2f}" for name in names)] for row in content["plan"]]
    res = content["results"][0]["res"]
    return [
        Table(f"Images/s at {res} px, medians; training of {content['model']}", headings, rows),
        Table(
            f"Planning, batches of {content['plan_batch']}",
            ("images", "MiB per million", "epoch start, ms", "training batch, ms", "test batch, ms"),
            plan,
        ),
    ]


BENCH = Bench("scaling", __doc__, ScalingFlags, measure, tables)

if __name__ == "__main__":
    BENCH.main()
