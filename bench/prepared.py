"""What prepared data gains: images/s of the loader on originals and on copies, beside torchvision and FFCV.

    uv run python bench/prepared.py
    uv run python bench/prepared.py --data DIR --copy sizes 160,256 --json out.json
    uv run python bench/prepared.py --peers torchvision,ffcv=FFCV_ENV/bin/python

All crop, resize, mirror and normalise as in training, into float32 batches on the CPU, with the same batch size on the
same cores; peers read the originals, FFCV its own file with images of the longest side and JPEG quality of our
full copies. Repeats are interleaved and medians shown: read ratios of one run, not absolute figures. Beside it: how
fast `dali-fixres prepare` is, against what the cores can encode at all, and whether the loader's memory stays flat.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dali_fixres.runtime.system import prepare_host

prepare_host()  # as the command line does, before torch is loaded

from cyclopts import App, Parameter
from harness import Flags, Key, Measure, interleaved, open_bench_data, report, start, times
from loaders import check_size, measure_ours, training_plan
from matplotlib.figure import Figure
from peers import parse_peers, settings_of, started
from rich.table import Table

from dali_fixres.errors import UserError
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.progress import Reporter
from pipelines import Loader
from pipelines.dataset import Dataset, ResizedCopies, open_dataset
from pipelines.processes import loader_threads
from pipelines.resolution import Resolution

ORIGINALS, PREPARED = "originals", "prepared"

NUM_EPOCHS = 20
"""Over which the loader's memory is watched."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Flags):
    """Flags."""

    res: str = "128,160,224,288,320"
    """Pixels of the crops, with commas between."""

    copy_ids: str = "160,256,384"
    """As for `dali-fixres prepare`."""

    max_side: int = 500
    """As for `dali-fixres prepare`; FFCV's images too."""

    quality: int = 90
    """As for `dali-fixres prepare`; FFCV's images too."""

    peers: str = "torchvision"
    """Other loaders beside ours, as for `throughput.py`; they read the originals."""


def main(bench: Bench) -> None:
    """Prepare, measure, print the tables and write JSON."""
    reporter = Reporter()
    peers = parse_peers(bench.peers)
    opened = open_bench_data(bench)
    dataset, effort = opened.dataset, bench.effort
    plans = [training_plan(dataset, resolution, bench.batch_size) for resolution in bench.resolutions]
    check_size(dataset, bench.batch_size, effort.num_batches)
    settings = settings_of(plans[0], effort.num_batches, bench.max_side, bench.quality)
    with tempfile.TemporaryDirectory() as scratch:
        preparing = _preparing(bench, bench.data or dataset.root, Path(scratch), reporter)
        copies = open_dataset(Path(scratch) / "prepared-0")
        with (
            Loader(dataset, max_batch_size=bench.batch_size, num_threads=loader_threads()) as loader,
            Loader(copies, max_batch_size=bench.batch_size, num_threads=loader_threads()) as copies_loader,
            started(peers, settings, reporter) as running,
        ):
            measures: dict[Key, Measure] = {}
            for plan in plans:
                res = plan.schedule.last.crop_px
                measures[Key("loader", ORIGINALS, res)] = measure_ours(loader, plan, effort.num_batches)
                of_copies = measure_ours(copies_loader, replace(plan, dataset=copies), effort.num_batches)
                measures[Key("loader", PREPARED, res)] = of_copies
                measures |= {Key("loader", peer.name, res): partial(peer.measure, res) for peer in running}
            rows = interleaved(measures, effort.repeats, reporter)
            failed = {peer.name for peer in running if peer.failed}
            results = [row for row in rows if row["loader"] not in failed]
            memory = _memory(copies_loader, copies, bench.resolutions[0], bench.batch_size)
    print_table(f"images/s of the loader alone on {dataset.root.name}, median of {effort.repeats}", _table(results))
    content = {
        "peers": {peer.name: peer.about for peer in running},
        "results": results,
        "prepare": preparing,
        "memory_mib": memory,
    }
    out = report("prepared", bench, opened, content, _figure(results), about_data=_about_copies(bench, dataset, copies))
    reporter.line(
        f"prepare: {preparing['images_per_s']} images/s, {preparing['share_of_limit']:.0%} of what can be encoded\n"
        f"memory after epochs 2 and {NUM_EPOCHS}: {memory[1]} and {memory[-1]} MiB; figures in {out}, plot beside it"
    )


def _preparing(bench: Bench, data: Path, scratch: Path, reporter: Reporter) -> dict[str, Any]:
    """Time the whole command, and what the cores can encode at most, in turn."""
    flags = [f"--copy sizes={bench.copy_ids}", f"--max-side={bench.max_side}", f"--quality={bench.quality}"]
    limit = [sys.executable, str(Path(__file__).with_name("encode_limit.py")), str(data)]
    limit += [bench.copies, str(bench.max_side), str(bench.quality)]
    speeds, limits = [], []
    repeats = 3
    with reporter.bar("preparing", total=repeats) as bar:
        for repeat in range(repeats):
            target = scratch / f"prepared-{repeat}"
            started = time.perf_counter()
            _run([sys.executable, "-m", "dali_fixres", "prepare", str(data), str(target), *flags])
            speeds.append(len(open_dataset(target)) / (time.perf_counter() - started))
            limits.append(float(_run(limit)))
            bar.update(repeat + 1, f"{speeds[-1]:.0f} img/s")
    speed, most = statistics.median(speeds), statistics.median(limits)
    return {
        "images_per_s": round(speed, 1),
        "limit_images_per_s": round(most, 1),
        "share_of_limit": round(speed / most, 3),
        "repeats": [round(value, 1) for value in speeds],
        "limit_repeats": [round(value, 1) for value in limits],
    }


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode != 0:
        raise UserError(done.stderr.strip())
    return done.stdout


def _about_copies(bench: Bench, dataset: Dataset, copies: Dataset) -> dict[str, Any]:
    return {
        "rungs": bench.copies,
        "max_side": bench.max_side,
        "quality": bench.quality,
        "megabytes": {
            "originals": _megabytes(dataset),
            **{str(copy.side_px): _megabytes(copy) for copy in copies.copies},
            "full": _megabytes(copies),
        },
    }


def _megabytes(place: Dataset | ResizedCopies) -> float:
    return round(float(place.num_bytes.sum()) / 1e6, 1)


def _memory(loader: Loader, dataset: Dataset, resolution: Resolution, batch_size: int) -> list[int]:
    """Return the resident memory of this process after each of several epochs, MiB."""
    plan = training_plan(dataset, resolution, batch_size)
    found = []
    for epoch in range(NUM_EPOCHS):
        for _ in loader.run(plan.epoch(epoch)):
            pass
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        found.append(round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20))
    return found


def _table(results: list[dict[str, Any]]) -> Table:
    rows = {(row["loader"], row["res"]): row for row in results}
    names = list(dict.fromkeys(row["loader"] for row in results))
    others = [name for name in names if name != PREPARED]
    table = Table()
    for heading in ("res", *names, *(f"÷ {name}" for name in others)):
        table.add_column(heading, justify="right")
    for res in sorted({row["res"] for row in results}):
        speeds = (f"{rows[name, res]['images_per_s']:.0f}" for name in names)
        ratios = (times(rows[PREPARED, res]["repeats"], rows[name, res]["repeats"]) for name in others)
        table.add_row(str(res), *speeds, *ratios)
    return table


def _figure(results: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["loader"] for row in results):
        rows = [row for row in results if row["loader"] == name]
        axes.plot([row["res"] for row in rows], [row["images_per_s"] for row in rows], marker="o", label=name)
    ticks = sorted({row["res"] for row in results})
    axes.set(xlabel="resolution, px", ylabel="images/s, loader alone", xticks=ticks, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


app = App(name="prepared.py", help=__doc__, help_format="plaintext")


@app.default
def _run_app(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
