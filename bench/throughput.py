"""Images/s of the loader alone at each resolution, beside torchvision's DataLoader with PIL on the same files.

    uv run python bench/throughput.py
    uv run python bench/throughput.py --data DIR --res 128,224 --repeats 5 --json out.json

Both crop, resize, mirror and normalise as in training, into float32 batches on the CPU, with the same batch size on
the same cores. Repeats are interleaved, so that a noisy
machine disturbs both alike: read the ratio of the medians, not the absolute figures. A last part times every
batch of one stream of plans that changes its resolution on the way, and counts batches of a wrong one.
"""

import os
import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

# As the command line does, and for the same reason; it is read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from cyclopts import App, Parameter
from loaders import Measure, check_size, interleaved, measure_ours, measure_torchvision, training_plan
from matplotlib.figure import Figure
from rich.table import Table
from script import start

from dali_fixres.commands.dataset import open_dataset
from dali_fixres.errors import UserError
from dali_fixres.plan import TrainPlan
from dali_fixres.processes import loader_threads, usable_cores
from dali_fixres.report.environment import environment
from dali_fixres.report.plots import save_figure
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import print_table
from dali_fixres.resolution import Resolution, parse_resolutions
from dali_fixres.runs import write_json
from pipelines import Loader

OURS, TORCHVISION = "dali-fixres", "torchvision"


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Flags."""

    data: Path | None = None
    """Data set, as for `dali-fixres train`; the synthetic demo if left out."""

    val_fraction: float | None = None
    """As for `dali-fixres train`."""

    res: str = "128,160,224,288,320,384"
    """Pixels of the crops, with commas between."""

    batch_size: int = 64
    """Pictures per batch."""

    workers: int | None = None
    """DALI threads, and DataLoader processes; if left out, what each does best with: a thread more than cores, and a
    process per core."""

    repeats: int = 3
    """Interleaved repeats; the table shows their medians."""

    num_batches: int = 16
    """Timed batches per repeat."""

    json: Path | None = None
    """Write the figures here; bench/results/throughput.json if left out."""

    plot: Path | None = None
    """Write the plot here; beside the JSON if left out."""

    def __post_init__(self) -> None:
        least = {
            "--batch-size": (self.batch_size, 1),
            "--repeats": (self.repeats, 1),
            "--num-batches": (self.num_batches, 2),
        }
        if self.workers is not None:
            least["--workers"] = (self.workers, 1)
        for flag, (found, minimum) in least.items():
            if found < minimum:
                raise UserError(f"{flag} must be at least {minimum}; found {found}")


def main(bench: Bench) -> None:
    """Measure, print the tables, write JSON and plot."""
    reporter = Reporter()
    dataset = open_dataset(bench.data, bench.val_fraction, reporter)
    if dataset.index.in_shards:
        raise UserError("torchvision's side of this bench reads single files; give --data a folder or a manifest")
    resolutions = parse_resolutions(bench.res)
    workers = bench.workers or usable_cores()
    threads = bench.workers or loader_threads()
    check_size(dataset.index, bench.batch_size, bench.num_batches)
    plans = {r: training_plan(dataset.index, r, bench.batch_size) for r in resolutions}
    with Loader(dataset.index, max_batch_size=bench.batch_size, num_threads=threads) as loader:
        measures: dict[tuple[str, Resolution], Measure] = {}
        for resolution, plan in plans.items():
            measures[OURS, resolution] = measure_ours(loader, plan, bench.num_batches)
            measures[TORCHVISION, resolution] = measure_torchvision(plan, bench.num_batches, workers)
        results = interleaved(measures, bench.repeats, reporter)
        switches, num_wrong = _switches(loader, list(plans.values()), bench)

    content: dict[str, Any] = {
        "environment": {**environment(), "workers": workers, "threads": threads, "batch_size": bench.batch_size},
        "data": {"title": dataset.title, "synthetic": dataset.synthetic, "fingerprint": dataset.index.fingerprint},
        "results": results,
        "switches": switches,
        "batches_at_wrong_resolution": num_wrong,
    }
    print_table(f"loader alone on {dataset.title}, {workers} workers, median of {bench.repeats}", _table(results))
    print_table("first batch after a change of resolution, in one stream", _switch_table(switches))
    out = bench.json or Path(__file__).parent / "results" / "throughput.json"
    write_json(out, content)
    plot = bench.plot or out.with_suffix(".png")
    _plot(plot, results, dataset.title)
    reporter.line(f"batches at a wrong resolution: {num_wrong}; figures in {out}, plot in {plot}")


def _switches(loader: Loader, plans: list[TrainPlan], bench: Bench) -> tuple[list[dict[str, Any]], int]:
    """Time every batch of one stream: up and down through the resolutions, so that every leg is a switch."""
    route = [*plans, *plans[-2:0:-1]] * bench.repeats
    stream = [plan.at(0, step) for plan in route for step in range(bench.num_batches)]
    times_ms: list[float] = []
    num_wrong = 0
    asked = time.perf_counter()
    for ordered, batch in zip(stream, loader.run(stream), strict=True):
        got = time.perf_counter()
        times_ms.append(1000 * (got - asked))
        asked = got
        num_wrong += batch.images.shape[-1] != ordered.resolution.crop_px
    firsts: dict[tuple[int, int], list[float]] = {}
    others: dict[tuple[int, int], list[float]] = {}
    for leg, (before, after) in enumerate(pairwise(route), start=1):
        if before is after:
            continue  # a single resolution: nothing is switched
        start = leg * bench.num_batches
        switch = before.schedule.last.crop_px, after.schedule.last.crop_px
        firsts.setdefault(switch, []).append(times_ms[start])
        others.setdefault(switch, []).extend(times_ms[start + 1 : start + bench.num_batches])
    rows = [_switch_row(switch, times, others[switch]) for switch, times in firsts.items()]
    return rows, num_wrong


def _switch_row(switch: tuple[int, int], firsts: list[float], others: list[float]) -> dict[str, Any]:
    first_ms, median_ms = statistics.median(firsts), statistics.median(others)
    return {
        "from": switch[0],
        "to": switch[1],
        "first_ms": round(first_ms, 2),
        "median_ms": round(median_ms, 2),
        "ratio": round(first_ms / median_ms, 3),
        "repeats": [round(value, 2) for value in firsts],
    }


def _table(results: list[dict[str, Any]]) -> Table:
    table = Table()
    for heading in ("res", f"{OURS} img/s", "min-max", f"{TORCHVISION} img/s", "min-max", "ratio"):
        table.add_column(heading, justify="right")
    by_key = {(row["loader"], row["res"]): row for row in results}
    for res in sorted({row["res"] for row in results}):
        ours, theirs = by_key[OURS, res], by_key[TORCHVISION, res]
        ratio = ours["images_per_s"] / theirs["images_per_s"]
        cells = (ours["images_per_s"], _spread(ours), theirs["images_per_s"], _spread(theirs), f"{ratio:.2f}")
        table.add_row(str(res), *map(str, cells))
    return table


def _spread(row: dict[str, Any]) -> str:
    return f"{min(row['repeats']):.0f}-{max(row['repeats']):.0f}"


def _switch_table(switches: list[dict[str, Any]]) -> Table:
    table = Table()
    headings = ("from", "to", "first_ms", "median_ms", "ratio")
    for heading in headings:
        table.add_column(heading.replace("_", " "), justify="right")
    for row in switches:
        table.add_row(*(str(row[heading]) for heading in headings))
    return table


def _plot(path: Path, results: list[dict[str, Any]], title: str) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in (OURS, TORCHVISION):
        rows = [row for row in results if row["loader"] == name]
        axes.plot([row["res"] for row in rows], [row["images_per_s"] for row in rows], marker="o", label=name)
    ticks = sorted({row["res"] for row in results})
    axes.set(xlabel="resolution, px", ylabel="images/s, loader alone", xticks=ticks, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle(title)
    save_figure(figure, path)


app = App(name="throughput.py", help=__doc__)


@app.default
def _run(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
