"""How throughput grows with threads, batch size, prefetch depth and processes, and planning with the data set's size.

    uv run python bench/scaling.py
    uv run python bench/scaling.py --data DIR --res 128 --processes 1,2 --full --json out.json

The loader alone by threads, batch size and prefetch depth, one of them varied at a time. Then under torchrun, by
processes that share the machine: the loader alone, and with steps that train a network; images/s are of all processes
together. Last, with pictures that need not exist, what an index of up to 10^6 of them (with --full 10^7) takes: its
memory, the start of an epoch, and the milliseconds of a planned batch of 256, which should stay the same.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

# As the command line does, and for the same reason; it is read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from cyclopts import App, Parameter
from harness import Flags, Key, in_turns, open_bench_data, report, row_of, spread, start
from loaders import TAIL, WARM_UP, training_plan
from matplotlib.figure import Figure
from rank import endless, seconds_of
from rich.table import Table

from dali_fixres.config import Device
from dali_fixres.devices import choose_device
from dali_fixres.distributed import World
from dali_fixres.errors import UserError
from dali_fixres.index import Index
from dali_fixres.processes import loader_threads, usable_cores
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import print_table
from pipelines import Loader

PLAN_BATCH = 256

VARIED = {"loader by threads": "threads", "loader by batch size": "batch_size", "loader by prefetch": "prefetch"}
"""What each stage varies."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Flags):
    """Flags."""

    res: str = "224"
    """Pixels of the crops; one resolution."""

    batch_sizes: str = "16,32,64,128,256"
    """Pictures per batch, with commas between."""

    prefetches: str = "1,2,4"
    """Batches made ahead, with commas between."""

    processes: str = "1,2,4"
    """Under torchrun, with commas between."""

    sizes: str | None = None
    """Pictures of the made-up indexes, with commas between; if left out powers of ten from 10^4 to 10^6, to 10^5 with
    --quick, to 10^7 with --full."""

    model: str = "timm/mobilenetv2_100"
    """What the train steps train, from random weights."""

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
    """What one measure of the loader alone is of."""

    stage: str
    threads: int
    batch_size: int
    prefetch: int


def main(bench: Bench) -> None:
    """Measure, print the tables, write JSON and the plot."""
    reporter = Reporter()
    opened = open_bench_data(bench)
    device = choose_device(bench.device)
    repeats, _ = bench.effort
    alone = {setting: partial(_loader_alone, bench, opened.index, device, setting) for setting in _settings(bench)}
    found = in_turns(alone, repeats, reporter, lambda key, speed: f"{key.stage}: {speed:.0f} img/s")
    rows = [_row(bench, setting.stage, setting._asdict(), speeds) for setting, speeds in found.items()]
    root = bench.data or opened.index.root
    numbers = [number for number in _numbers(bench.processes) if _fits(number, device, reporter)]
    together: dict[int, Callable[[], dict[str, float]]] = {
        number: partial(_under_torchrun, bench, root, number) for number in numbers
    }
    # Each start warms itself up.
    told = in_turns(together, repeats, reporter, lambda number, _: f"{number} process(es)", warm_up=False)
    for number, answers in told.items():
        rows += [
            _row(bench, stage, {"processes": number}, [answer[stage] for answer in answers]) for stage in answers[0]
        ]
    plan = [_call([sys.executable, _script("plan_cost.py"), str(size), str(PLAN_BATCH)]) for size in bench.num_images]
    content = {"device": device.type, "model": bench.model, "results": rows, "plan": plan, "plan_batch": PLAN_BATCH}
    for title, table in tables(content).items():
        print_table(title, table)
    reporter.line(f"figures in {report('scaling', bench, opened, content, _figure(rows, plan))}")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _settings(bench: Bench) -> list[Setting]:
    """Return the measures of the loader alone."""
    cores, threads, size, prefetch = usable_cores(), loader_threads(), bench.batch_size, 2
    # All numbers near the cores; below, powers of two are enough.
    by_threads = sorted(
        {2**power for power in range(cores.bit_length()) if 2**power < cores} | {cores, cores + 1, cores + 2}
    )
    return [
        *(Setting("loader by threads", number, size, prefetch) for number in by_threads),
        *(Setting("loader by batch size", threads, number, prefetch) for number in _numbers(bench.batch_sizes)),
        *(Setting("loader by prefetch", threads, size, number) for number in _numbers(bench.prefetches)),
    ]


def _loader_alone(bench: Bench, index: Index, device: torch.device, setting: Setting) -> float:
    """Return images/s of a loader, once it runs."""
    number, size = bench.effort.num_batches, setting.batch_size
    plan = training_plan(index, bench.resolutions[0], size)
    with Loader(
        index, max_batch_size=size, device=device, num_threads=setting.threads, prefetch=setting.prefetch
    ) as loader:
        batches = loader.run(endless(plan, WARM_UP + number + TAIL))
        return number * size / seconds_of(batches, number, device, World())


def _fits(number: int, device: torch.device, reporter: Reporter) -> bool:
    if device.type == "cuda" and number > torch.cuda.device_count():
        reporter.line(f"{number} processes: left out, there are {torch.cuda.device_count()} GPUs")
        return False
    return True


def _under_torchrun(bench: Bench, data: Path, number: int) -> dict[str, float]:
    """Return images/s of all processes by stage."""
    settings = {
        "data": str(data),
        "val_fraction": bench.val_fraction,
        "res": bench.resolutions[0].crop_px,
        "batch_size": bench.batch_size,
        "num_batches": bench.effort.num_batches,
        "model": bench.model,
        "device": bench.device,
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
    answer: dict[str, float] = _call([*launcher, _script("rank.py"), json.dumps(settings)])
    return answer


def _script(name: str) -> str:
    return str(Path(__file__).with_name(name))


def _call(command: list[str]) -> Any:
    """Run a script of this folder and return the JSON of its last line."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own scripts
    if done.returncode != 0:
        raise UserError(f"{' '.join(command)} failed: {done.stderr.strip()[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _row(bench: Bench, stage: str, about: dict[str, Any], speeds: list[float]) -> dict[str, Any]:
    return {**about, **row_of(Key(stage, "dali-fixres", bench.resolutions[0].crop_px), speeds)}


def _varied(row: dict[str, Any]) -> int:
    """Return the number that a row's stage varies."""
    return int(row[VARIED.get(row["stage"], "processes")])


def tables(content: Mapping[str, Any]) -> dict[str, Table]:
    """Return the tables of a results file by their titles."""
    rows = content["results"]
    return {
        f"images/s at {rows[0]['res']} px; train steps of {content['model']}": _table(rows),
        f"index and plans, batches of {content['plan_batch']}": _plan_table(content["plan"]),
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table()
    for heading in ("", "", "images/s", "min-max"):
        table.add_column(heading, justify="right")
    for row in rows:
        stage = row["stage"] if row["stage"] in VARIED else f"{row['stage']} by processes"
        table.add_row(stage, str(_varied(row)), f"{row['images_per_s']:.0f}", spread(row))
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
    names = ("threads", "batch_size", "prefetch", "processes")
    *panels, last = figure.subplots(1, len(names) + 1)
    for axes, name in zip(panels, names, strict=True):
        same = [row for row in rows if VARIED.get(row["stage"], "processes") == name]
        for stage in dict.fromkeys(row["stage"] for row in same):
            points = [(row[name], row["images_per_s"]) for row in same if row["stage"] == stage]
            axes.plot(*zip(*points, strict=True), marker="o", label=stage)
        axes.set(xlabel=name.replace("_", " "), ylabel="images/s", ylim=(0, None))
        axes.legend(fontsize="small")
    sizes = [row["num_images"] for row in plan]
    for name in ("plan_ms", "feed_ms", "test_plan_ms"):
        last.plot(sizes, [row[name] for row in plan], marker="o", label=name)
    last.set(xlabel="pictures", ylabel=f"ms per batch of {PLAN_BATCH}", xscale="log", ylim=(0, None))
    last.legend(fontsize="small")
    return figure


app = App(name="scaling.py", help=__doc__)


@app.default
def _run(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
