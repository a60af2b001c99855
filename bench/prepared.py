"""What `dali-fixres prepare` gains: images/s of the loader on originals and on resized copies, beside other loaders.

All crop, resize, flip and normalise as in training, on the CPU, in interleaved rounds. Baselines read the originals;
FFCV reads a file of its own, with images of the longest side and JPEG quality of the full copies.

    uv run python -m bench.prepared
    uv run python -m bench.prepared --data DIR --sizes 160,256
    uv run python -m bench.prepared --baselines torchvision,ffcv=FFCV_ENV/bin/python
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.baselines.run import MAX_SIDE, QUALITY, parse_baselines, settings_of, started
from bench.harness import Bench, Flags, Key, Table, in_rounds, ratio_rows, row_of
from bench.saved import Content
from bench.workloads import endless, open_loader, running, timed, training_plan
from dali_fixres.runtime import Reporter
from pipelines import Dataset, UserError, open_dataset

ORIGINALS, PREPARED = "originals", "prepared"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFlags(Flags):
    """Flags."""

    sizes: str = "160,256,384"
    """As for `dali-fixres prepare`."""

    baselines: str = "torchvision"
    """Other loaders beside ours, as for `bench.throughput`."""


def measure(flags: PreparedFlags, dataset: Dataset, reporter: Reporter) -> dict[str, Any]:
    """Prepare the data, and measure the loaders."""
    effort, device = flags.effort, flags.torch_device
    names = parse_baselines(flags.baselines)
    plans = [training_plan(dataset, resolution, flags.batch_size) for resolution in flags.resolutions]
    settings = settings_of(plans[0], effort.num_batches) if names else {}
    with tempfile.TemporaryDirectory() as scratch:
        seconds = _prepare(flags, dataset, Path(scratch) / "prepared")
        copies = open_dataset(Path(scratch) / "prepared")
        with (
            open_loader(dataset, flags.batch_size, device) as loader,
            open_loader(copies, flags.batch_size, device) as copies_loader,
            started(names, settings, reporter) as processes,
        ):

            def speed(from_copies: bool, number: int) -> float:
                plan = replace(plans[number], dataset=copies if from_copies else dataset)
                with running(copies_loader if from_copies else loader, endless(plan)) as batches:
                    return timed(batches, flags.batch_size, effort, device).images_per_s

            work = {}
            for number, resolution in enumerate(flags.resolutions):
                res = resolution.crop_px
                work[Key("loader", ORIGINALS, res)] = partial(speed, False, number)
                work[Key("loader", PREPARED, res)] = partial(speed, True, number)
                work |= {Key("loader", one.name, res): partial(one.measure, res) for one in processes}
            found = in_rounds(work, effort.repeats, reporter)
            failed = {one.name for one in processes if one.failed}
    return {
        "baselines": {one.name: one.about for one in processes},
        "results": [row_of(key, speeds) for key, speeds in found.items() if key.loader not in failed],
        "prepare": {"images_per_s": round(len(copies) / seconds, 1)},
        "sizes": flags.sizes,
    }


def _prepare(flags: PreparedFlags, dataset: Dataset, target: Path) -> float:
    """Run the command on the data; return its seconds."""
    words = [f"--sizes={flags.sizes}", f"--max-side={MAX_SIDE}", f"--quality={QUALITY}"]
    command = [sys.executable, "-m", "dali_fixres", "prepare", str(flags.data or dataset.root), str(target), *words]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode != 0:
        raise UserError(done.stderr.strip())
    return time.perf_counter() - begun


def tables(content: Content) -> list[Table]:
    """Return images/s of each loader, and how many times as fast ours is on copies."""
    rows = {(row["loader"], row["res"]): row for row in content["results"]}
    names = list(dict.fromkeys(loader for loader, _ in rows))
    sides = sorted({res for _, res in rows})
    headings = ("", *(f"{side} px" for side in sides))
    speeds = [[name, *(f"{rows[name, side]['images_per_s']:.0f}" for side in sides)] for name in names]
    gains = [
        row
        for name in names
        if name != PREPARED
        for row in ratio_rows(name, [(rows[PREPARED, side]["repeats"], rows[name, side]["repeats"]) for side in sides])
    ]
    return [
        Table("Images/s of the loader, medians", headings, speeds),
        Table("Our loader on copies over another, images/s of the same round, medians", headings, gains),
    ]


BENCH = Bench("prepared", __doc__, PreparedFlags, measure, tables)

if __name__ == "__main__":
    BENCH.main()
