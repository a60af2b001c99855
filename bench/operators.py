"""Where the loader's CPU time goes: milliseconds per picture of each operator, at each resolution.

    uv run python bench/operators.py
    uv run python bench/operators.py --data DIR --res 224,320 --json out.json

Graphs that end after each operator are run on the same plans in turn; what an operator takes is the difference of two
of them in CPU time of the whole process, medians over repeats. Beside it, the same windows resized by torch's resize
for bytes on one thread, as a measure of what is possible. For prepared data, give the folder that has been prepared.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

# As the command line does, and for the same reason; it is read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from cyclopts import App, Parameter
from graphs import OPERATORS, GraphPart, Operator
from harness import start
from loaders import training_plan
from pictures import bench_pictures
from rich.table import Table

from dali_fixres.colour import IMAGENET
from dali_fixres.index import open_data
from dali_fixres.processes import loader_threads
from dali_fixres.report.environment import environment
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import print_table
from dali_fixres.resolution import parse_resolutions
from dali_fixres.runs import write_json
from pipelines.feed import GraphInputs, graph_inputs

TORCH_RESIZE = "torch resize"

SETTLE_S = 0.3
"""For the batches that a graph has begun ahead: they take no less than those it was given ahead at the start."""

BATCH_SIZE = 64
NUM_BATCHES = 16


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Flags."""

    data: Path | None = None
    """Data set; pictures of ImageNet's sizes, made from a seed, if left out."""

    res: str = "128,160,224,288,320,384"
    """Pixels of the crops, with commas between."""

    repeats: int = 5
    """Interleaved repeats; the table shows their medians."""

    json: Path | None = None
    """Write the figures here; bench/results/operators.json if left out."""


def main(bench: Bench) -> None:
    """Measure, print the table and write JSON."""
    torch.set_num_threads(1)
    reporter = Reporter()
    data = bench.data or bench_pictures()
    index = open_data(data).index
    resolutions = parse_resolutions(bench.res)
    rows = []
    with reporter.bar("measuring", total=len(resolutions)) as bar:
        for number, resolution in enumerate(resolutions):
            plan = training_plan(index, resolution, BATCH_SIZE)
            inputs = [
                graph_inputs(one, index, IMAGENET, decode_window=True) for one in islice(plan.epoch(0), NUM_BATCHES)
            ]
            rows.append({"res": resolution.crop_px, **_milliseconds(inputs, index.in_shards, bench.repeats)})
            bar.update(number + 1)
    table = Table()
    for heading in ("res", *OPERATORS, TORCH_RESIZE):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(str(row["res"]), *(f"{row[name]:.2f}" for name in (*OPERATORS, TORCH_RESIZE)))
    print_table(f"CPU milliseconds per picture on {data.name}, median of {bench.repeats}", table)
    out = bench.json or Path(__file__).parent / "results" / "operators.json"
    write_json(out, {"environment": environment(), "data": data.name, "milliseconds": rows})


def _milliseconds(inputs: list[GraphInputs], in_shards: bool, repeats: int) -> dict[str, float]:
    parts = {last: _part(last, inputs, in_shards) for last in OPERATORS}
    windows = _windows(next(parts["decode"]))
    size = int(inputs[0].size[0, 0])
    measures: dict[str, Callable[[], object]] = {
        **{last: partial(next, part) for last, part in parts.items()},
        TORCH_RESIZE: lambda: [_torch_resize(window, size) for window in windows],
    }
    spent: dict[str, list[float]] = {name: [] for name in measures}
    for repeat in range(repeats + 1):
        for name, measure in measures.items():
            runs = 1 if name == TORCH_RESIZE else len(inputs)
            started = time.process_time()
            for _ in range(runs):
                measure()
            time.sleep(SETTLE_S)
            if repeat > 0:
                spent[name].append(1000 * (time.process_time() - started) / (runs * BATCH_SIZE))
    whole = {name: statistics.median(values) for name, values in spent.items()}
    before = dict(zip(OPERATORS[1:], OPERATORS, strict=False))
    own = {name: value - whole[before[name]] if name in before else value for name, value in whole.items()}
    return {name: round(value, 3) for name, value in own.items()}


def _part(last: Operator, inputs: list[GraphInputs], in_shards: bool) -> Iterator[Any]:
    """Run the loader's CPU graph up to one of its operators on the same batches again and again."""
    part = GraphPart(
        last, in_shards=in_shards, batch_size=BATCH_SIZE, num_threads=loader_threads(), device=torch.device("cpu")
    )
    return part.run(cycle(inputs))


def _windows(outputs: Any) -> list[torch.Tensor]:
    """Return a batch of decoded windows as torch's resize takes them, channels last."""
    return [torch.from_numpy(outputs.at(row).copy()).permute(2, 0, 1)[None] for row in range(BATCH_SIZE)]


def _torch_resize(window: torch.Tensor, size: int) -> torch.Tensor:
    return torch.nn.functional.interpolate(window, size=(size, size), mode="bilinear", antialias=True)


app = App(name="operators.py", help=__doc__)


@app.default
def _run_app(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
