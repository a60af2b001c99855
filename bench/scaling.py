"""How throughput grows with threads, batch size, prefetch depth and processes, and planning with the data set's size.

    uv run python bench/scaling.py
    uv run python bench/scaling.py --data DIR --res 128 --processes 1,2 --full --json out.json

The loader alone by threads, batch size and prefetch depth, one of them varied at a time. Then training, where loader
and network share the cores, by the threads of both, and by batch size. Then both under torchrun, by processes that
share the machine; images/s are of all processes together. Last, with images that need not exist, what an index of up
to 10^6 of them (with --full 10^7) takes: its memory, the start of an epoch, and the milliseconds of a planned batch of
256, which should stay the same.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from dali_fixres.runtime.system import prepare_host

prepare_host()  # as the command line does, before torch is loaded

import torch
from cyclopts import App, Parameter
from harness import Flags, Key, in_turns, open_bench_data, report, row_of, spread, start
from learners import build_tuning
from loaders import training_plan
from matplotlib.figure import Figure
from rank import images_per_s
from rich.table import Table

from dali_fixres.config import Device
from dali_fixres.errors import UserError
from dali_fixres.models import ModelSpec
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.decoding import decoding_for
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from dali_fixres.training.loop import Learner
from pipelines import Decoding, Loader
from pipelines.dataset import Dataset
from pipelines.processes import loader_threads, usable_cores

PLAN_BATCH = 256

PREFETCH = 2
"""Batches made ahead where that is not what is varied, as in training."""

TRAINED_SHARE = 0.5
"""Of the images that the loader alone is measured with: with a network they take about twice as long."""

LOADER, TRAINING = "loader", "training"

NUMBERS = ("processes", "threads", "torch_threads", "batch_size", "prefetch")
"""Of a setting, in all rows."""

BY = {"threads": "threads", "batch_size": "batch size", "prefetch": "prefetch", "processes": "processes"}
"""What is varied: keys of rows, and their names in stages."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Flags):
    """Flags."""

    res: str = "224"
    """Pixels of the crops; one resolution."""

    batch_sizes: str = "16,32,64,128,256"
    """Images per batch of the loader alone, with commas between."""

    train_batch_sizes: str = "16,32,64"
    """Images per batch in training, with commas between."""

    prefetches: str = "1,2,4"
    """Batches made ahead, with commas between."""

    processes: str = "1,2,4"
    """Under torchrun, with commas between."""

    sizes: str | None = None
    """Images of the made-up indexes, with commas between; if left out powers of ten from 10^4 to 10^6, to 10^5 with
    --quick, to 10^7 with --full."""

    model: str | None = None
    """What is trained, from random weights; if left out resnet50 on a GPU, timm/mobilenetv3_small_050 on a CPU."""

    device: Device = "auto"
    """Where batches are wanted and the network trains."""

    def __post_init__(self) -> None:
        Flags.__post_init__(self)
        if len(self.resolutions) > 1:
            raise UserError(f"--res takes one resolution here; found {self.res}")

    @property
    def num_images(self) -> list[int]:
        """Sizes of the made-up indexes."""
        if self.sizes is not None:
            return _numbers(self.sizes)
        return [10**power for power in range(4, 6 if self.quick else 8 if self.full else 7)]


class Setting(NamedTuple):
    """What a measure is of.

    Attributes:
        what: The loader alone, or training.
        varied: Which of the numbers below is varied beside it.
        threads: The loader's, of each process.
        torch_threads: torch's, of each process.
        batch_size: Images per batch of each process.
        prefetch: Batches made ahead.
        processes: That share the machine.
    """

    what: str
    varied: str
    threads: int
    torch_threads: int
    batch_size: int
    prefetch: int = PREFETCH
    processes: int = 1

    @property
    def stage(self) -> str:
        """Its name in rows."""
        return _stage(self.what, self.varied)


@dataclass(frozen=True, slots=True, eq=False)
class Here:
    """What is measured in this process.

    Attributes:
        index: The data set.
        device: Where batches are wanted and the network trains.
        decoding: How a GPU decodes.
        learner: The network, and how it learns.
    """

    dataset: Dataset
    device: torch.device
    decoding: Decoding
    learner: Learner


def main(bench: Bench) -> None:
    """Measure, print the tables, write JSON and the plot."""
    reporter = Reporter()
    opened = open_bench_data(bench)
    device = choose_device(bench.device)
    model = bench.model or ("resnet50" if device.type == "cuda" else "timm/mobilenetv3_small_050")
    spec = ModelSpec(model, len(opened.dataset.classes))
    learner = build_tuning(spec, "all", bench.resolutions[0], device).learner
    here = Here(opened.dataset, device, decoding_for(device, World(), reporter), learner)
    found = _measured_here(bench, here, loader_settings(bench), reporter)
    # The measures before have filled caches and started threads.
    found |= _measured_here(bench, here, training_settings(bench), reporter, warm_up=False)
    found |= _measured_under_torchrun(bench, model, opened.dataset, device, reporter)
    rows = [_row(bench, setting, speeds) for setting, speeds in found.items()]
    plan = [_call([sys.executable, _script("plan_cost.py"), str(size), str(PLAN_BATCH)]) for size in bench.num_images]
    content = {"device": device.type, "model": model, "results": rows, "plan": plan, "plan_batch": PLAN_BATCH}
    for title, table in tables(content).items():
        print_table(title, table)
    reporter.line(f"figures in {report('scaling', bench, opened, content, _figure(rows, plan))}")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def loader_settings(bench: Bench) -> list[Setting]:
    """Return the measures of the loader alone."""
    cores, threads, size = usable_cores(), loader_threads(), bench.batch_size
    # All numbers near the cores; below, powers of two are enough.
    by_threads = sorted(
        {2**power for power in range(cores.bit_length()) if 2**power < cores} | {cores, cores + 1, cores + 2}
    )
    return [
        *(Setting(LOADER, "threads", number, cores, size) for number in by_threads),
        *(Setting(LOADER, "batch_size", threads, cores, number) for number in _numbers(bench.batch_sizes)),
        *(Setting(LOADER, "prefetch", threads, cores, size, ahead) for ahead in _numbers(bench.prefetches)),
    ]


def training_settings(bench: Bench) -> list[Setting]:
    """Return the measures of training in one process."""
    cores, threads, size = usable_cores(), loader_threads(), bench.batch_size
    some = max(1, cores // 2)
    splits = product(sorted({some, cores, threads}), sorted({some, cores}))
    sizes = _numbers(bench.train_batch_sizes)
    return [
        *(Setting(TRAINING, "threads", ours, torchs, size) for ours, torchs in splits),
        *(Setting(TRAINING, "batch_size", threads, cores, number) for number in sizes),
    ]


def _stage(what: str, varied: str) -> str:
    return f"{what} by {BY[varied]}"


def num_batches(bench: Bench, what: str, batch_size: int) -> int:
    """Return how many batches of a size are timed: they hold about as many images as those of any other size."""
    share = TRAINED_SHARE if what == TRAINING else 1.0
    return max(2, round(share * bench.effort.num_batches * bench.batch_size / batch_size))


def _measured_here(
    bench: Bench, here: Here, settings: list[Setting], reporter: Reporter, *, warm_up: bool = True
) -> dict[Setting, list[float]]:
    measures = {setting: partial(_speed, bench, here, setting) for setting in settings}
    return in_turns(measures, bench.effort.repeats, reporter, _told, warm_up=warm_up)


def _told(setting: Setting, speed: float) -> str:
    return f"{setting.stage}: {speed:.0f} img/s"


def _speed(bench: Bench, here: Here, setting: Setting) -> float:
    """Return images/s of a setting, once it runs."""
    size, what = setting.batch_size, setting.what
    torch.set_num_threads(setting.torch_threads)
    with Loader(
        here.dataset,
        max_batch_size=size,
        device=here.device,
        num_threads=setting.threads,
        prefetch=setting.prefetch,
        decoding=here.decoding,
    ) as loader:
        plan = training_plan(here.dataset, bench.resolutions[0], size)
        learner = here.learner if what == TRAINING else None
        return images_per_s(loader, plan, num_batches(bench, what, size), learner, here.device, World())


def _fits(number: int, device: torch.device, reporter: Reporter) -> bool:
    if device.type == "cuda" and number > torch.cuda.device_count():
        reporter.line(f"{number} processes: left out, there are {torch.cuda.device_count()} GPUs")
        return False
    return True


def _measured_under_torchrun(
    bench: Bench, model: str, dataset: Dataset, device: torch.device, reporter: Reporter
) -> dict[Setting, list[float]]:
    settings = {
        "data": str(bench.data or dataset.root),
        "val_fraction": bench.val_fraction,
        "res": bench.resolutions[0].crop_px,
        "batch_size": bench.batch_size,
        "num_batches": {what: num_batches(bench, what, bench.batch_size) for what in (LOADER, TRAINING)},
        "model": model,
        "device": bench.device,
    }
    numbers = [number for number in _numbers(bench.processes) if _fits(number, device, reporter)]
    measures: dict[int, Callable[[], Any]] = {number: partial(_under_torchrun, settings, number) for number in numbers}
    # Each start warms itself up.
    answers = in_turns(
        measures, bench.effort.repeats, reporter, lambda number, _: f"{number} process(es)", warm_up=False
    )
    return {
        Setting(
            what,
            "processes",
            same[0]["threads"],
            same[0]["torch_threads"],
            bench.batch_size,
            processes=number,
        ): [answer["images_per_s"][what] for answer in same]
        for number, same in answers.items()
        for what in (LOADER, TRAINING)
    }


def _under_torchrun(settings: Mapping[str, Any], number: int) -> Any:
    """Return what the first of some processes has told."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
    return _call([*launcher, _script("rank.py"), json.dumps(settings)])


def _script(name: str) -> str:
    return str(Path(__file__).with_name(name))


def _call(command: list[str]) -> Any:
    """Run a script of this folder and return the JSON of its last line."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own scripts
    if done.returncode != 0:
        raise UserError(f"{' '.join(command)} failed: {done.stderr.strip()[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _row(bench: Bench, setting: Setting, speeds: list[float]) -> dict[str, Any]:
    numbers = {name: getattr(setting, name) for name in NUMBERS}
    return {**numbers, **row_of(Key(setting.stage, "dali-fixres", bench.resolutions[0].crop_px), speeds)}


def tables(content: Mapping[str, Any]) -> dict[str, Table]:
    """Return the tables of a results file by their titles."""
    rows = content["results"]
    return {
        f"images/s at {rows[0]['res']} px; training of {content['model']}": _table(rows),
        f"index and plans, batches of {content['plan_batch']}": _plan_table(content["plan"]),
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table()
    for heading in ("", "processes", "loader threads", "torch threads", "batch", "prefetch", "images/s", "min-max"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row["stage"], *(str(row[name]) for name in NUMBERS), f"{row['images_per_s']:.0f}", spread(row))
    return table


def _plan_table(plan: list[dict[str, Any]]) -> Table:
    table = Table()
    headings = ("pictures", "build, s", "MiB", "MiB per million", "epoch start, ms", "plan, ms", "feed, ms", "test, ms")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in plan:
        names = ("build_s", "resident_mib", "mib_per_million", "epoch_start_ms", "plan_ms", "feed_ms", "test_plan_ms")
        table.add_row(f"{row['num_images']:,}", *(f"{row[name]:.2f}" for name in names))
    return table


def _figure(rows: list[dict[str, Any]], plan: list[dict[str, Any]]) -> Figure:
    """Draw a panel for each thing varied."""
    figure = Figure(figsize=(14, 3.2), layout="constrained")
    *panels, last = figure.subplots(1, len(BY) + 1)
    for axes, varied in zip(panels, BY, strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for row in rows:
            if row["stage"] in {_stage(LOADER, varied), _stage(TRAINING, varied)}:
                lines.setdefault(_line_of(row), []).append((row[varied], row["images_per_s"]))
        for label, points in lines.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=label)
        axes.set(xlabel=BY[varied], ylabel="images/s", ylim=(0, None))
        axes.legend(fontsize="small")
    sizes = [row["num_images"] for row in plan]
    for name in ("plan_ms", "feed_ms", "test_plan_ms"):
        last.plot(sizes, [row[name] for row in plan], marker="o", label=name)
    last.set(xlabel="pictures", ylabel=f"ms per batch of {PLAN_BATCH}", xscale="log", ylim=(0, None))
    last.legend(fontsize="small")
    return figure


def _line_of(row: dict[str, Any]) -> str:
    """Return which line a row is a point of: where training is by threads, there is one for each number of torch's."""
    by_threads = row["stage"] == _stage(TRAINING, "threads")
    return f"{row['torch_threads']} torch threads" if by_threads else row["stage"]


app = App(name="scaling.py", help=__doc__, help_format="plaintext")


@app.default
def _run(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
