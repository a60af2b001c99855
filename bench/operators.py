"""Where the loader's CPU time goes: milliseconds per picture of each operator, at each resolution.

    uv run python bench/operators.py
    uv run python bench/operators.py --data DIR --res 224,320 --json out.json

Graphs that end after each operator are run on the same plans in turn; what an operator takes is the difference of two
of them in CPU time of the whole process, medians over repeats. Beside it, the same windows resized by torch's resize
for bytes on one thread, as a measure of what is possible. For prepared data, give the folder that has been prepared.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice

from dali_fixres.host import prepare_host

prepare_host()  # as the command line does, before torch is loaded

import torch
from cyclopts import App, Parameter
from graphs import OPERATORS, GraphPart
from harness import Flags, Key, Measure, in_turns, open_bench_data, report, row_of, start
from loaders import training_plan
from matplotlib.figure import Figure
from rich.table import Table
from stages import OURS, epochs_of

from dali_fixres.colour import IMAGENET
from dali_fixres.index import Index
from dali_fixres.processes import loader_threads
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import print_table
from pipelines.feed import GraphInputs, graph_inputs

CPU = torch.device("cpu")

TORCH, TORCH_RESIZE = "torch", "torch resize"

Found = Mapping[Key, list[float]]
"""Pictures per second of CPU time, of the graph as far as an operator or of torch's resize alone."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Flags):
    """Flags."""


def main(bench: Bench) -> None:
    """Measure, print the table, write JSON and the plot."""
    torch.set_num_threads(1)
    reporter = Reporter()
    opened = open_bench_data(bench)
    found = in_turns(_measures(bench, opened.index), bench.effort.repeats, reporter, _told)
    rows = [own_milliseconds(found, resolution.crop_px) for resolution in bench.resolutions]
    content = {"results": [row_of(key, values) for key, values in found.items()], "milliseconds": rows}
    title = f"CPU milliseconds per picture on {opened.index.root.name}, median of {bench.effort.repeats}"
    print_table(title, _table(rows))
    reporter.line(f"figures in {report('operators', bench, opened, content, _figure(rows))}")


def own_milliseconds(found: Found, res: int) -> dict[str, float]:
    """Return what each operator takes by itself, and torch's resize, ms of CPU time per picture."""
    whole = [1000 / statistics.median(found[Key(name, OURS, res)]) for name in OPERATORS]
    own = [after - before for before, after in zip([0.0, *whole], whole, strict=False)]
    torch_ms = 1000 / statistics.median(found[Key("resize", TORCH, res)])
    named = zip((*OPERATORS, TORCH_RESIZE), (*own, torch_ms), strict=True)
    return {"res": res, **{name: round(ms, 3) for name, ms in named}}


def _measures(bench: Bench, index: Index) -> dict[Key, Measure]:
    """Return what measures each graph at each resolution; one graph takes them all, as the loader's does."""
    parts = {
        name: GraphPart(
            name, in_shards=index.in_shards, batch_size=bench.batch_size, num_threads=loader_threads(), device=CPU
        )
        for name in OPERATORS
    }
    measures: dict[Key, Measure] = {}
    for resolution in bench.resolutions:
        plans = islice(epochs_of(training_plan(index, resolution, bench.batch_size)), bench.effort.num_batches)
        inputs = [graph_inputs(one, index, IMAGENET, decode_window=parts["decode"].decode_window) for one in plans]
        num_images, res = len(inputs) * bench.batch_size, resolution.crop_px
        for name, part in parts.items():
            measures[Key(name, OURS, res)] = partial(_per_cpu_second, partial(part.run, inputs), num_images)
        windows = list(_windows(parts["decode"], inputs[0], bench.batch_size))
        resize = partial(map, partial(_torch_resize, res), windows)
        measures[Key("resize", TORCH, res)] = partial(_per_cpu_second, resize, len(windows))
    return measures


def _told(key: Key, speed: float) -> str:
    return f"{key.stage}, {key.loader} at {key.res} px: {1000 / speed:.2f} ms"


def _windows(part: GraphPart, inputs: GraphInputs, batch_size: int) -> Iterator[torch.Tensor]:
    """Yield a batch of decoded windows as torch's resize takes them, (1, 3, h, w), channels last."""
    for outputs in part.run([inputs]):
        for row in range(batch_size):
            yield torch.from_numpy(outputs.at(row).copy()).permute(2, 0, 1)[None]


def _torch_resize(size: int, window: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(window, size=(size, size), mode="bilinear", antialias=True)


def _per_cpu_second(work: Callable[[], Iterable[object]], num_images: int) -> float:
    """Return pictures per second of CPU time of the whole process, for work that is done to its end."""
    started = time.process_time()
    for _ in work():
        pass
    return num_images / (time.process_time() - started)


def _table(rows: list[dict[str, float]]) -> Table:
    table = Table()
    for heading in ("res", *OPERATORS, TORCH_RESIZE):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(str(row["res"]), *(f"{row[name]:.2f}" for name in (*OPERATORS, TORCH_RESIZE)))
    return table


def _figure(rows: list[dict[str, float]]) -> Figure:
    """Draw what each operator takes against the resolution."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in (*OPERATORS, TORCH_RESIZE):
        style = ":" if name == TORCH_RESIZE else "-"
        axes.plot([row["res"] for row in rows], [row[name] for row in rows], style, marker="o", label=name)
    axes.set(xlabel="resolution, px", ylabel="CPU ms per picture")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


app = App(name="operators.py", help=__doc__, help_format="plaintext")


@app.default
def _run_app(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
