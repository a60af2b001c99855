"""What it brings a training step on a CPU that freed memory is kept, and what that takes.

    uv run python bench/freed_memory.py
    uv run python bench/freed_memory.py --model resnet50 --res 128 --batch-size 32

Steps on one batch in memory, once as `dali-fixres` has the C library's allocator (dali_fixres/host.py), once as it is
by default. The allocator cannot be set twice in a process, so each repeat has one of its own.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cyclopts import App, Parameter
from harness import Flags, Key, in_turns, open_bench_data, report, row_of, spread, start
from matplotlib.figure import Figure
from pictures import bench_pictures
from rich.table import Table

from dali_fixres.errors import RunError
from dali_fixres.host import SAID_BY_USER
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import print_table

__all__ = ["tables"]

KEPT, GIVEN_BACK = "kept", "given back"

LEFT_ALONE = {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}
"""A setting that changes nothing; with one of the user's own the allocator is left as it is."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Flags):
    """Flags."""

    res: str = "128,224"
    """Pixels of the batches, with commas between."""

    model: str = "timm/mobilenetv2_100"
    """As for `dali-fixres train`."""


class Repeat(NamedTuple):
    """What a process has found."""

    images_per_s: float
    host_mib: int


def main(bench: Bench) -> None:
    """Measure, print the table, write JSON and plot."""
    reporter = Reporter()
    opened = open_bench_data(bench)
    measures: dict[Key, Callable[[], Repeat]] = {}
    for resolution in bench.resolutions:
        for memory, environment in ((KEPT, {}), (GIVEN_BACK, LEFT_ALONE)):
            key = Key("train step", memory, resolution.crop_px)
            measures[key] = partial(_in_a_process, bench, resolution.crop_px, environment)
    found = in_turns(measures, bench.effort.repeats, reporter, _told)
    rows = [
        {**row_of(key, [one.images_per_s for one in repeats]), "host_mib": max(one.host_mib for one in repeats)}
        for key, repeats in found.items()
    ]
    content = {"model": bench.model, "results": rows}
    for heading, table in tables(content).items():
        print_table(heading, table)
    out = report("freed_memory", bench, opened, content, _drawn(content))
    reporter.line(f"figures in {out}, plot in {out.with_suffix('.png')}")


def _in_a_process(bench: Bench, res: int, environment: Mapping[str, str]) -> Repeat:
    settings = {
        "data": str(bench.data or bench_pictures()),
        "val_fraction": bench.val_fraction,
        "model": bench.model,
        "res": res,
        "batch_size": bench.batch_size,
        "num_batches": bench.effort.num_batches,
    }
    command = [sys.executable, str(Path(__file__).with_name("steps_alone.py")), json.dumps(settings)]
    inherited = {name: value for name, value in os.environ.items() if name not in SAID_BY_USER}
    done = subprocess.run(command, env={**inherited, **environment}, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RunError(f"the steps at {res} px failed: {done.stderr.strip()[-1000:]}")
    return Repeat(**json.loads(done.stdout))


def _told(key: Key, repeat: Repeat) -> str:
    return f"memory {key.loader} at {key.res} px: {repeat.images_per_s:.0f} img/s"


def tables(content: Mapping[str, Any]) -> dict[str, Table]:
    """Return what is shown, by heading."""
    table = Table()
    headings = ("res, px", "kept, images/s", "given back, images/s", "ratio", "kept, MiB", "given back, MiB")
    for heading in headings:
        table.add_column(heading, justify="right")
    rows = {(row["loader"], row["res"]): row for row in content["results"]}
    for res in dict.fromkeys(row["res"] for row in content["results"]):
        kept, given_back = rows[KEPT, res], rows[GIVEN_BACK, res]
        ratios = [one / other for one, other in zip(kept["repeats"], given_back["repeats"], strict=True)]
        table.add_row(
            str(res),
            *(f"{row['images_per_s']:.0f} ({spread(row)})" for row in (kept, given_back)),
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
            *(str(row["host_mib"]) for row in (kept, given_back)),
        )
    return {f"training steps of {content['model']}, freed memory kept or given back": table}


def _drawn(content: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for memory in (KEPT, GIVEN_BACK):
        rows = [row for row in content["results"] if row["loader"] == memory]
        axes.plot([row["res"] for row in rows], [row["images_per_s"] for row in rows], marker="o", label=memory)
    axes.set(xlabel="resolution, px", ylabel="images/s", title=f"train step, {content['model']}")
    axes.grid(alpha=0.3)
    axes.legend(title="freed memory")
    return figure


app = App(name="freed_memory.py", help=__doc__, help_format="plaintext")


@app.default
def _run_app(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
