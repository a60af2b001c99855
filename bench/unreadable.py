"""What broken files cost: images/s of the epoch that finds them and of the next, beside data without any.

    uv run python bench/unreadable.py
    uv run python bench/unreadable.py --data DIR --shares 0,0.1,0.5 --json out.json

The pictures are the data set's, several times over where it has too few; a share of them is cut off in the middle. One
picture in 64 means one in most batches. A file whose crops lay above its cut is found in a later epoch. An epoch has
four times --num-batches batches. Read the ratios, not the absolute figures.
"""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dali_fixres.host import prepare_host

prepare_host()  # as the command line does, before torch is loaded

import numpy as np
import torch
from cyclopts import App, Parameter
from harness import Flags, Key, in_turns, open_bench_data, report, row_of, start
from loaders import training_plan
from matplotlib.figure import Figure
from rich.table import Table
from stages import OURS, Stopwatch

from dali_fixres.commands.dataset import Dataset
from dali_fixres.commands.stream import Epoch, Stream
from dali_fixres.commands.unreadable import Unreadable
from dali_fixres.errors import UserError
from dali_fixres.index import TRAIN, Index, OpenedData, open_data
from dali_fixres.processes import loader_threads
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import print_table
from dali_fixres.resolution import Resolution
from pipelines import Loader

EPOCHS = ("first epoch", "second epoch")

LONGER = 4
"""An epoch has this many times --num-batches: the start of a graph weighs little in it then."""

Speeds = tuple[float, float]
"""Images/s of the first epoch and of the second."""

Case = tuple[float, Resolution]
"""A share of broken files, and pixels of the crops."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Flags):
    """Flags."""

    res: str = "128"
    """Pixels of the crops, with commas between."""

    shares: str = "0,0.001,0.016,0.1,0.5"
    """Shares of pictures that are cut off, with commas between; the first is what the others are compared with."""

    def __post_init__(self) -> None:
        super(Bench, self).__post_init__()
        if not all(0 <= share <= 0.5 for share in self.broken_shares):
            raise UserError(f"--shares must be from 0 to 0.5; found {self.shares}")

    @property
    def broken_shares(self) -> tuple[float, ...]:
        """What is measured, as numbers."""
        try:
            return tuple(dict.fromkeys(float(word) for word in self.shares.split(",")))
        except ValueError:
            raise UserError(f"--shares must be numbers with commas between; found {self.shares}") from None

    @property
    def num_images(self) -> int:
        """Pictures of the data, of which all but one are trained on."""
        return LONGER * self.effort.num_batches * self.batch_size


def main(bench: Bench) -> None:
    """Measure each share in turn, print the tables, write JSON and the plot."""
    reporter = Reporter()
    opened = open_bench_data(bench)
    if opened.index.in_shards or not opened.index.num_train:
        raise UserError(
            "this bench cuts single training pictures off; give --data a folder or a manifest that has some"
        )
    with tempfile.TemporaryDirectory() as scratch:
        made = {
            share: make_data(Path(scratch) / str(share), opened.index, bench.num_images, share)
            for share in bench.broken_shares
        }
        measures = {
            (share, resolution): partial(two_epochs, data, resolution, bench.batch_size)
            for resolution in bench.resolutions
            for share, data in made.items()
        }
        found = in_turns(measures, bench.effort.repeats, reporter, _told)
    rows = rows_of(found, bench.num_images)
    content = {"num_images": bench.num_images, "results": rows}
    print_table(f"{bench.num_images} pictures, batches of {bench.batch_size}", _table(rows))
    reporter.line(f"figures in {report('unreadable', bench, opened, content, _figure(rows))}")


def make_data(folder: Path, source: Index, num_images: int, share: float) -> OpenedData:
    """Fill a class folder with links to a data set's training pictures, a share of them cut-off copies; open it."""
    sources = [source.path(row) for row in source.rows(TRAIN).tolist()]
    target = folder / "all"
    target.mkdir(parents=True)
    broken = set(np.random.default_rng(0).choice(num_images, _num_broken(num_images, share), replace=False).tolist())
    for number in range(num_images):
        original = sources[number % len(sources)]
        path = target / f"{number:06}{original.suffix}"
        if number in broken:
            path.write_bytes(original.read_bytes()[: original.stat().st_size // 2])
        else:
            path.symlink_to(original.absolute())
    # One picture is "tested": a data set without a split has to have one.
    return open_data(folder, val_fraction=1e-9)


def _num_broken(num_images: int, share: float) -> int:
    return round(share * num_images)


def two_epochs(opened: OpenedData, resolution: Resolution, batch_size: int) -> Speeds:
    """Run two epochs, as a training does that knows of no broken file yet; return the images/s of each."""
    dataset = Dataset(opened.index, opened.left_out, opened.index.root, synthetic=True)
    unreadable = Unreadable(dataset, {}, strict=False, reporter=Reporter(quiet=True), listed_in=None)
    plan = training_plan(opened.index, resolution, batch_size)
    with Loader(opened.index, max_batch_size=batch_size, num_threads=loader_threads()) as loader:
        stream = Stream(loader, [Epoch(plan, 0), Epoch(plan, 1)], unreadable)
        return _epoch(stream), _epoch(stream)


def _epoch(stream: Stream) -> float:
    watch = Stopwatch(torch.device("cpu"))
    return watch.read(sum(len(batch) for batch in stream.part())).images_per_s


def _told(case: Case, speeds: Speeds) -> str:
    share, resolution = case
    return f"{share:.1%} broken at {resolution.crop_px} px: {speeds[0]:.0f}, then {speeds[1]:.0f} img/s"


def rows_of(found: Mapping[Case, list[Speeds]], num_images: int) -> list[dict[str, Any]]:
    """Return a row for each case and epoch, with the ratio to the first share at the same resolution.

    Args:
        found: The speeds of each repeat; repeats of one number are of one round.
        num_images: Pictures of the data.
    """
    unbroken = next(share for share, _ in found)
    rows = []
    for (share, resolution), repeats in found.items():
        for epoch, name in enumerate(EPOCHS):
            speeds = [speed[epoch] for speed in repeats]
            base = [speed[epoch] for speed in found[unbroken, resolution]]
            ratio = statistics.median(one / other for one, other in zip(speeds, base, strict=True))
            about = {"share": share, "num_broken": _num_broken(num_images, share), "ratio": round(ratio, 3)}
            rows.append({**row_of(Key(name, OURS, resolution.crop_px), speeds), **about})
    return rows


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table()
    headings = (
        "res, px",
        "broken",
        "files",
        *(f"{name}{what}" for name in EPOCHS for what in (", images/s", ", ratio")),
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        figures = (cell for row in (first, second) for cell in (f"{row['images_per_s']:.0f}", f"{row['ratio']:.2f}"))
        table.add_row(str(first["res"]), f"{first['share']:.1%}", str(first["num_broken"]), *figures)
    return table


def _figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the ratios against the share of broken files, which are placed evenly."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for stage, res in dict.fromkeys((row["stage"], row["res"]) for row in rows):
        same = [row for row in rows if (row["stage"], row["res"]) == (stage, res)]
        points = [f"{row['share']:.1%}" for row in same], [row["ratio"] for row in same]
        axes.plot(*points, marker="o", label=f"{stage} at {res} px")
    axes.set(xlabel="broken files", ylabel="images/s, over that of the first share", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


app = App(name="unreadable.py", help=__doc__, help_format="plaintext")


@app.default
def _run(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
