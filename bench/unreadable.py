"""What broken files cost: images/s of the epoch that finds them and of the next, beside data without any.

    uv run python bench/unreadable.py
    uv run python bench/unreadable.py --shares 0.1,0.5 --num-images 12000 --json out.json

The pictures are the synthetic demo's, several times over; a share of them is cut off in the middle. One picture in
64 means one in most batches. A file whose crops lay above its cut is found in a later epoch. Read the ratios, not
the absolute figures.
"""

import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# As the command line does, and for the same reason; it is read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
from cyclopts import App, Parameter
from rich.table import Table

from dali_fixres.commands.dataset import Dataset
from dali_fixres.commands.stream import Epoch, Stream
from dali_fixres.commands.unreadable import Unreadable
from dali_fixres.demo import ensure_demo_data
from dali_fixres.index import open_data
from dali_fixres.plan import AUGMENTATIONS, TrainPlan
from dali_fixres.processes import usable_cores
from dali_fixres.report.environment import environment
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import print_table
from dali_fixres.resolution import Schedule
from dali_fixres.runs import write_json
from pipelines import Loader


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Flags."""

    shares: str = "0,0.001,0.016,0.1,0.5"
    """Shares of pictures that are cut off, with commas between; the first is what the others are compared with."""

    num_images: int = 6000
    """Pictures of an epoch."""

    res: int = 128
    """Pixels of the crops."""

    batch_size: int = 64
    """Pictures per batch."""

    repeats: int = 3
    """Interleaved repeats; the table shows their medians."""

    json: Path = Path("bench/results/unreadable.json")
    """Where the figures go."""


def make_data(folder: Path, num_images: int, share: float) -> int:
    """Fill a class folder with the demo's pictures, and cut a share of them off; return how many."""
    sources = sorted((ensure_demo_data() / "train").rglob("*.jpg"))
    target = folder / "all"
    target.mkdir(parents=True)
    bad = set(np.random.default_rng(0).choice(num_images, round(share * num_images), replace=False).tolist())
    for number in range(num_images):
        source, path = sources[number % len(sources)], target / f"{number:06}.jpg"
        if number in bad:
            path.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
        else:
            shutil.copyfile(source, path)
    return len(bad)


def two_epochs(bench: Bench, data: Path) -> list[float]:
    """Run two epochs and return the images/s of each."""
    # One picture is "tested": a data set without a split has to have one.
    opened = open_data(data, val_fraction=1e-9)
    dataset = Dataset(opened.index, opened.left_out, opened.index.root, synthetic=True)
    plan = TrainPlan(opened.index, AUGMENTATIONS["train"], Schedule.parse(str(bench.res)), bench.batch_size)
    unreadable = Unreadable(dataset, {}, strict=False, reporter=Reporter(quiet=True), listed_in=None)
    speeds = []
    with Loader(opened.index, max_batch_size=bench.batch_size, num_threads=usable_cores()) as loader:
        stream = Stream(loader, [Epoch(plan, 0), Epoch(plan, 1)], unreadable)
        for _ in range(2):
            started = time.perf_counter()
            num_images = sum(len(batch) for batch in stream.part())
            speeds.append(num_images / (time.perf_counter() - started))
    return speeds


def main(bench: Bench = Bench()) -> None:
    """Measure each share in turn, and that several times."""
    shares = [float(share) for share in bench.shares.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        folders = {share: Path(folder) / str(share) for share in shares}
        num_bad = {share: make_data(path, bench.num_images, share) for share, path in folders.items()}
        for path in folders.values():
            open_data(path, val_fraction=1e-9)  # so that the index cache is filled, and the files are in memory
        runs = [{share: two_epochs(bench, path) for share, path in folders.items()} for _ in range(bench.repeats)]
    table = Table()
    for heading in (
        "share",
        "broken files",
        "epoch 1, images/s",
        "epoch 2, images/s",
        "1, ratio",
        "2, ratio",
    ):
        table.add_column(heading, justify="right")
    results = []
    for share in shares:
        first, second = (statistics.median(run[share][epoch] for run in runs) for epoch in (0, 1))
        ratios = [statistics.median(run[share][epoch] / run[shares[0]][epoch] for run in runs) for epoch in (0, 1)]
        table.add_row(
            f"{share:.1%}",
            str(num_bad[share]),
            *(f"{v:.0f}" for v in (first, second)),
            *(f"{r:.2f}" for r in ratios),
        )
        results.append(
            {
                "share": share,
                "num_broken": num_bad[share],
                "first_images_per_s": round(first, 1),
                "second_images_per_s": round(second, 1),
                "first_ratio": round(ratios[0], 3),
                "second_ratio": round(ratios[1], 3),
                "repeats": [[round(speed, 1) for speed in run[share]] for run in runs],
            }
        )
    print_table(f"{bench.num_images} pictures at {bench.res} px, batches of {bench.batch_size}", table)
    write_json(bench.json, {"environment": environment(), "results": results})


if __name__ == "__main__":
    app = App(name="bench/unreadable.py", help=__doc__)
    app.default(main)
    app()
