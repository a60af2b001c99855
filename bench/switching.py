"""What a change of resolution costs: the first and second batch after it, against the steady batch, pair by pair.

    uv run python bench/switching.py
    uv run python bench/switching.py --data DIR --res 128,224,320 --full --json out.json

One stream of plans, which has been at every resolution before, goes through a circuit in which every ordered pair of
them is neighbours once. The same circuit is gone by ways that cannot change: a pipeline that is rebuilt at each change,
and torchvision's DataLoader, made anew with its processes. The first time at a resolution higher than all before is
measured on its own, with a new loader for each pair: buffers grow then. Last, one stream trains low, evaluates high and
fine-tunes high, several times over.

What is timed is from one batch to the next, with nothing done in between; tearing down the old and building the new is
part of it. Steady is the median of a visit's batches from the third on (their mean for the DataLoader), and a ratio is
of batches of one visit. Each batch of our streams is compared in size with the order; one that differs is an error.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from dali_fixres.runtime.system import prepare_host

prepare_host()  # as the command line does, before torch is loaded

from cyclopts import App, Parameter
from goals import goals_of_switching, goals_table
from harness import Flags, Key, in_turns, open_bench_data, report, row_of, start
from matplotlib.figure import Figure
from rich.table import Table
from visits import (
    STAGES,
    Batches,
    Visit,
    circuit,
    first_times,
    in_one_stream,
    new_dataloaders,
    rebuilt,
    rises,
    through_stages,
)

from dali_fixres.config import Device
from dali_fixres.errors import RunError, UserError
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.decoding import decoding_for
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from pipelines.processes import worker_pool

OURS, FIRST_TIME = "dali-fixres", "dali-fixres, first time"
REBUILT, DATALOADER = "rebuilt pipeline", "new DataLoader"

FEWEST_BATCHES = 4
"""Per visit: the first, the second, and two to call steady."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Flags):
    """Flags."""

    device: Device = "auto"
    """Where our batches are wanted; the DataLoader's are made on the CPU."""

    def __post_init__(self) -> None:
        Flags.__post_init__(self)
        if self.effort.num_batches < FEWEST_BATCHES:
            raise UserError(f"--num-batches must be at least {FEWEST_BATCHES} here; found {self.effort.num_batches}")
        if len(self.resolutions) < 2:
            raise UserError(f"--res must name at least two resolutions to change between; found {self.res}")


def main(bench: Bench) -> None:
    """Measure, print the tables, write JSON and the plot.

    Raises:
        RunError: If our streams have made batches of a size that was not ordered; the figures are written all the same.
    """
    reporter = Reporter()
    opened = open_bench_data(bench)
    if opened.dataset.in_shards:
        raise UserError("torchvision's side of this bench reads single files; give --data a folder or a manifest")
    repeats, num_batches = bench.effort
    if opened.dataset.num_train < FEWEST_BATCHES * bench.batch_size:
        raise UserError(
            f"{opened.dataset.root} has {opened.dataset.num_train} training images, fewer than {FEWEST_BATCHES} batches; "
            "lower --batch-size"
        )
    device = choose_device(bench.device)
    decoding = decoding_for(device, World(), reporter)
    batches = Batches(opened.dataset, device, bench.batch_size, num_batches, decoding)
    route = circuit(bench.resolutions)
    with worker_pool(1) as pool:
        rounds: dict[str, Callable[[], list[Visit]]] = {
            OURS: partial(in_one_stream, batches, route),
            FIRST_TIME: partial(first_times, batches, rises(bench.resolutions)),
            REBUILT: partial(rebuilt, batches, route),
            DATALOADER: lambda: pool.submit(new_dataloaders, batches, route).result(),
        }
        found = in_turns(rounds, repeats, reporter, _told)
    ends = bench.resolutions[0], bench.resolutions[-1]
    stage_visits = through_stages(batches, opened, ends, repeats + 1)
    rows = [row for loader, same in found.items() for row in _switch_rows(loader, same, bench.batch_size)]
    stage_rows = _stage_rows(stage_visits, bench.batch_size)
    streamed = [visit for loader in (OURS, FIRST_TIME) for repeat in found[loader] for visit in repeat] + stage_visits
    content: dict[str, Any] = {
        "device": batches.device.type,
        "results": rows + stage_rows,
        "summary": [_summary(loader, [row for row in rows if row["loader"] == loader]) for loader in found],
        "num_batches": sum(len(visit.batch_ms) for visit in streamed),
        "batches_at_wrong_resolution": sum(visit.num_wrong for visit in streamed),
    }
    for title, table in tables(content).items():
        print_table(title, table)
    out = report("switching", bench, opened, content, _figure(rows))
    reporter.line(f"figures in {out}")
    if wrong := content["batches_at_wrong_resolution"]:
        raise RunError(f"{wrong} of {content['num_batches']} batches had another size than was ordered")


def _told(loader: str, visits: list[Visit]) -> str:
    return f"{loader}: first ÷ steady {statistics.median(visit.ratio(0) for visit in visits if visit.before):.2f}"


def _row(key: Key, visits: list[Visit], batch_size: int) -> dict[str, Any]:
    """Return a row for one change: images/s are those of the first batch after it."""
    medians = {
        "first_ms": [visit.batch_ms[0] for visit in visits],
        "second_ms": [visit.batch_ms[1] for visit in visits],
        "steady_ms": [visit.steady_ms for visit in visits],
    }
    ratios = {name: [visit.ratio(number) for visit in visits] for number, name in enumerate(("first", "second"))}
    return {
        **row_of(key, [1000 * batch_size / visit.batch_ms[0] for visit in visits]),
        "from": visits[0].before,
        **{name: round(statistics.median(values), 2) for name, values in medians.items()},
        **{f"{name}_ratio": round(statistics.median(values), 3) for name, values in ratios.items()},
        "first_ratios": [round(value, 3) for value in ratios["first"]],
    }


def _switch_rows(loader: str, repeats: list[list[Visit]], batch_size: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each change; where a route begins there is none."""
    for visits in map(list, zip(*repeats, strict=True)):
        if visits[0].before is not None:
            yield _row(Key("switch", loader, visits[0].res), visits, batch_size)


def _stage_rows(visits: list[Visit], batch_size: int) -> list[dict[str, Any]]:
    """Return a row for each change of stage; the first round fills caches."""
    rows = []
    for number, stage in enumerate(STAGES):
        same = visits[number + len(STAGES) :: len(STAGES)]
        rows.append(_row(Key(f"{STAGES[number - 1]} → {stage}", OURS, same[0].res), same, batch_size))
    return rows


def _summary(loader: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what all changes of a loader come to."""
    firsts, seconds = ([row[f"{name}_ratio"] for row in rows] for name in ("first", "second"))
    extra_ms = [row["first_ms"] - row["steady_ms"] for row in rows]
    return {
        "loader": loader,
        "first_ratio": round(statistics.median(firsts), 3),
        "worst_first_ratio": max(firsts),
        "second_ratio": round(statistics.median(seconds), 3),
        "worst_second_ratio": max(seconds),
        "first_extra_ms": round(statistics.median(extra_ms), 2),
    }


def tables(content: Mapping[str, Any]) -> dict[str, Table]:
    """Return the tables of a results file by their titles."""
    switches = [row for row in content["results"] if row["stage"] == "switch"]
    first = [row for row in switches if row["loader"] == FIRST_TIME]
    stages = [row for row in content["results"] if row["stage"] != "switch"]
    return {
        "first batch after a change ÷ steady batch, from row to column, dali-fixres": _matrix(switches),
        "medians of all changes, and of the worst one": _summary_table(content["summary"]),
        "first time at a resolution higher than all before": _changes_table(first),
        "one stream through three stages": _changes_table(stages),
        "goals": goals_table(goals_of_switching(content)),
    }


def _matrix(rows: list[dict[str, Any]]) -> Table:
    ratios = {(row["from"], row["res"]): row["first_ratio"] for row in rows if row["loader"] == OURS}
    sides = sorted({before for before, _ in ratios})
    table = Table()
    for heading in ("px", *map(str, sides)):
        table.add_column(heading, justify="right")
    for before in sides:
        table.add_row(str(before), *(f"{ratios[before, s]:.2f}" if s != before else "" for s in sides))
    return table


def _summary_table(summary: list[dict[str, Any]]) -> Table:
    table = Table()
    for heading in ("", "first ÷ steady", "worst change", "second ÷ steady", "worst change", "ms more"):
        table.add_column(heading, justify="right")
    for row in summary:
        names = ("first_ratio", "worst_first_ratio", "second_ratio", "worst_second_ratio")
        table.add_row(row["loader"], *(f"{row[name]:.2f}" for name in names), f"{row['first_extra_ms']:.0f}")
    return table


def _changes_table(rows: list[dict[str, Any]]) -> Table:
    table = Table()
    for heading in ("", "from, px", "to, px", "first ÷ steady", "second ÷ steady", "steady, ms"):
        table.add_column(heading, justify="right")
    for row in rows:
        ratios = (f"{row[name]:.2f}" for name in ("first_ratio", "second_ratio"))
        table.add_row(row["stage"], str(row["from"]), str(row["res"]), *ratios, f"{row['steady_ms']:.0f}")
    return table


def _figure(rows: list[dict[str, Any]]) -> Figure:
    """Draw, for each loader, how long the first batch of each change took, in steady batches."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    loaders = list(dict.fromkeys(row["loader"] for row in rows))
    axes.boxplot(
        [[row["first_ratio"] for row in rows if row["loader"] == loader] for loader in loaders],
        orientation="horizontal",
    )
    axes.set_yticks(range(1, len(loaders) + 1), loaders)
    axes.set(xlabel="first batch after a change ÷ steady batch", xscale="log")
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.grid(alpha=0.3)
    return figure


app = App(name="switching.py", help=__doc__, help_format="plaintext")


@app.default
def _run(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
