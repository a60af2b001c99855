"""What `dali-fixres prepare` gains: speed and core time of the loader on originals and on copies, beside others.

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
from bench.harness import Bench, Flags, Key, Table, segment_row
from bench.loaders import loader_tables, measured
from bench.saved import Content
from bench.segment import Segment
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
    """Other loaders beside ours, as for `bench.throughput`; none if empty."""


def measure(flags: PreparedFlags, dataset: Dataset, reporter: Reporter) -> dict[str, Any]:
    """Prepare the data, and measure the loaders."""
    effort, device = flags.effort.of_loader(), flags.torch_device
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

            def ours(from_copies: bool, number: int) -> Segment:
                plan = replace(plans[number], dataset=copies if from_copies else dataset)
                with running(copies_loader if from_copies else loader, endless(plan)) as batches:
                    return timed(batches, flags.batch_size, effort, device)

            work = {}
            for number, resolution in enumerate(flags.resolutions):
                res = resolution.crop_px
                work[Key("loader", ORIGINALS, res)] = partial(ours, False, number)
                work[Key("loader", PREPARED, res)] = partial(ours, True, number)
                work |= {Key("loader", one.name, res): partial(one.measure, res) for one in processes}
            found = measured(work, effort.repeats, reporter, processes)
    return {
        "baselines": {one.name: one.about for one in processes},
        "results": [segment_row(key, segments) for key, segments in found.items()],
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
    """Return the figures of each loader, and the ratios of ours, on originals and on copies, to the others."""
    ours = {ORIGINALS: "Our loader on originals", PREPARED: "Our loader on copies"}
    return loader_tables(content["results"], ours)


BENCH = Bench("prepared", __doc__, PreparedFlags, measure, tables)

if __name__ == "__main__":
    BENCH.main()
