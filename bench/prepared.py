"""What prepared data gains: images/s of the loader on originals and on copies, beside torchvision and FFCV.

    uv run python bench/prepared.py
    uv run python bench/prepared.py --data DIR --rungs 160,256 --json out.json
    uv run python bench/prepared.py --ffcv FFCV_ENV/bin/python

All crop, resize, mirror and normalise as in training, into float32 batches on the CPU, with the same batch size on the
same cores; torchvision reads the originals, FFCV its own file with pictures of the longest side and JPEG quality of our
full copies. Repeats are interleaved and medians shown: read ratios of one run, not absolute figures. Beside it: how
fast `dali-fixres prepare` is, against what the cores can encode at all, and whether the loader's memory stays flat.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# As the command line does, and for the same reason; it is read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from cyclopts import App, Parameter
from loaders import Measure, check_size, interleaved, measure_ours, measure_torchvision, training_plan
from pictures import bench_pictures
from rich.table import Table
from script import start

from dali_fixres.colour import IMAGENET
from dali_fixres.errors import UserError
from dali_fixres.index import TRAIN, Index, open_data
from dali_fixres.processes import loader_threads, usable_cores
from dali_fixres.report.environment import environment
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import print_table
from dali_fixres.resolution import Resolution, parse_resolutions
from dali_fixres.runs import write_json
from pipelines import Loader

ORIGINALS, PREPARED, TORCHVISION, FFCV = "originals", "prepared", "torchvision", "ffcv"

NUM_EPOCHS = 20
"""Over which the loader's memory is watched."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Flags."""

    data: Path | None = None
    """Data set of single files; pictures of ImageNet's sizes, made from a seed, if left out."""

    res: str = "128,160,224,288,320"
    """Pixels of the crops, with commas between."""

    rungs: str = "160,256,384"
    """As for `dali-fixres prepare`."""

    max_side: int = 500
    """As for `dali-fixres prepare`; FFCV's pictures too."""

    quality: int = 90
    """As for `dali-fixres prepare`; FFCV's pictures too."""

    batch_size: int = 64
    """Pictures per batch."""

    repeats: int = 5
    """Interleaved repeats; the table shows their medians."""

    num_batches: int = 16
    """Timed batches per repeat."""

    ffcv: Path | None = None
    """Python of an environment with FFCV; left out of the comparison if left out here."""

    json: Path | None = None
    """Write the figures here; bench/results/prepared.json if left out."""


def main(bench: Bench) -> None:
    """Prepare, measure, print the tables and write JSON."""
    reporter = Reporter()
    data = bench.data or bench_pictures()
    index = open_data(data).index
    if index.in_shards:
        raise UserError("torchvision and FFCV read single files here; give --data a folder or a manifest")
    check_size(index, bench.batch_size, bench.num_batches)
    resolutions = parse_resolutions(bench.res)
    with tempfile.TemporaryDirectory() as scratch:
        preparing = _preparing(bench, data, Path(scratch), reporter)
        copies = open_data(Path(scratch) / "prepared-0").index
        with (
            Loader(index, max_batch_size=bench.batch_size, num_threads=loader_threads()) as loader,
            Loader(copies, max_batch_size=bench.batch_size, num_threads=loader_threads()) as copies_loader,
            _ffcv(bench, index, resolutions, Path(scratch)) as (peer, about_ffcv),
        ):
            measures: dict[tuple[str, Resolution], Measure] = {}
            for resolution in resolutions:
                plan, copies_plan = (training_plan(some, resolution, bench.batch_size) for some in (index, copies))
                measures[ORIGINALS, resolution] = measure_ours(loader, plan, bench.num_batches)
                measures[PREPARED, resolution] = measure_ours(copies_loader, copies_plan, bench.num_batches)
                measures[TORCHVISION, resolution] = measure_torchvision(plan, bench.num_batches, usable_cores())
                if peer is not None:
                    measures[FFCV, resolution] = partial(_ask, peer, {"res": resolution.crop_px})
            results = interleaved(measures, bench.repeats, reporter)
            memory = _memory(copies_loader, copies, resolutions[0], bench.batch_size)
    content: dict[str, Any] = {
        "environment": {
            **environment(),
            "workers": usable_cores(),
            "threads": loader_threads(),
            "batch_size": bench.batch_size,
            "ffcv": about_ffcv,
        },
        "data": _described(bench, data, index, copies),
        "results": results,
        "prepare": preparing,
        "memory_mib": memory,
    }
    out = bench.json or Path(__file__).parent / "results" / "prepared.json"
    write_json(out, content)
    print_table(f"images/s of the loader alone on {data.name}, median of {bench.repeats}", _table(results))
    reporter.line(
        f"prepare: {preparing['images_per_s']} images/s, {preparing['share_of_limit']:.0%} of what can be encoded\n"
        f"memory after epochs 2 and {NUM_EPOCHS}: {memory[1]} and {memory[-1]} MiB; figures in {out}"
    )


def _preparing(bench: Bench, data: Path, scratch: Path, reporter: Reporter) -> dict[str, Any]:
    """Time the whole command, and what the cores can encode at most, in turn."""
    flags = [f"--rungs={bench.rungs}", f"--max-side={bench.max_side}", f"--quality={bench.quality}"]
    limit = [sys.executable, str(Path(__file__).with_name("encode_limit.py")), str(data)]
    limit += [bench.rungs, str(bench.max_side), str(bench.quality)]
    speeds, limits = [], []
    repeats = 3
    with reporter.bar("preparing", total=repeats) as bar:
        for repeat in range(repeats):
            target = scratch / f"prepared-{repeat}"
            started = time.perf_counter()
            _run([sys.executable, "-m", "dali_fixres", "prepare", str(data), str(target), *flags])
            speeds.append(len(open_data(target).index) / (time.perf_counter() - started))
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


def _described(bench: Bench, data: Path, index: Index, copies: Index) -> dict[str, Any]:
    megabytes = {str(rung.side_px): round(float(rung.num_bytes.sum()) / 1e6, 1) for rung in copies.rungs}
    return {
        "name": data.name,
        "synthetic": bench.data is None,
        "num_images": len(index),
        "mean_kb": round(float(index.num_bytes.mean()) / 1000, 1),
        "mean_px": [round(float(side.mean())) for side in (index.heights, index.widths)],
        "fingerprint": index.fingerprint,
        "rungs": bench.rungs,
        "max_side": bench.max_side,
        "quality": bench.quality,
        "megabytes": {
            "originals": round(float(index.num_bytes.sum()) / 1e6, 1),
            **megabytes,
            "full": round(float(copies.num_bytes.sum()) / 1e6, 1),
        },
    }


@contextmanager
def _ffcv(
    bench: Bench, index: Index, resolutions: tuple[Resolution, ...], scratch: Path
) -> Iterator[tuple["subprocess.Popen[str] | None", Any]]:
    """Start FFCV in its own environment and let it write its file; yields its versions, too."""
    if bench.ffcv is None:
        yield None, None
        return
    rows = index.rows(TRAIN).tolist()
    settings = {
        "files": [[str(index.path(row)), int(index.labels[row])] for row in rows],
        "file": str(scratch / "ffcv.beton"),
        "max_side": bench.max_side,
        "quality": bench.quality,
        "batch_size": bench.batch_size,
        "num_batches": bench.num_batches,
        "workers": usable_cores(),
        "resolutions": [resolution.crop_px for resolution in resolutions],
        "mean": IMAGENET.mean,
        "std": IMAGENET.std,
    }
    command = [str(bench.ffcv), str(Path(__file__).with_name("ffcv_peer.py"))]
    with subprocess.Popen(  # noqa: S603 - named by the user
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as peer:
        yield peer, _ask(peer, settings)
        assert peer.stdin is not None, "it is a pipe"
        peer.stdin.close()


def _ask(peer: "subprocess.Popen[str]", request: dict[str, Any]) -> Any:
    """Send FFCV's side a line and return its answer."""
    assert peer.stdin is not None, "it is a pipe"
    assert peer.stdout is not None, "it is a pipe"
    peer.stdin.write(json.dumps(request) + "\n")
    peer.stdin.flush()
    answer = peer.stdout.readline()
    if not answer:
        raise UserError("FFCV has stopped, and has said why above")
    return json.loads(answer)


def _memory(loader: Loader, index: Index, resolution: Resolution, batch_size: int) -> list[int]:
    """Return the resident memory of this process after each of several epochs, MiB."""
    plan = training_plan(index, resolution, batch_size)
    found = []
    for epoch in range(NUM_EPOCHS):
        for _ in loader.run(plan.epoch(epoch)):
            pass
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        found.append(round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20))
    return found


def _table(results: list[dict[str, Any]]) -> Table:
    speeds = {(row["loader"], row["res"]): row["images_per_s"] for row in results}
    names = [name for name in (ORIGINALS, PREPARED, TORCHVISION, FFCV) if any(row["loader"] == name for row in results)]
    table = Table()
    for heading in ("res", *names, *(f"÷ {name}" for name in names if name != PREPARED)):
        table.add_column(heading, justify="right")
    for res in sorted({row["res"] for row in results}):
        ratios = [speeds[PREPARED, res] / speeds[name, res] for name in names if name != PREPARED]
        cells = (f"{speeds[name, res]:.0f}" for name in names)
        table.add_row(str(res), *cells, *(f"{ratio:.2f}" for ratio in ratios))
    return table


app = App(name="prepared.py", help=__doc__)


@app.default
def _run_app(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
