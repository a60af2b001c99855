"""Runs baselines: one process each, by the Python of an environment that has it.

A baseline that fails or hangs is left out, and the others are measured all the same.
"""

import json
import math
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.baselines.protocol import repeat_of
from bench.segment import Segment
from bench.workloads import endless
from dali_fixres.runtime import Reporter
from pipelines import IMAGENET, Dataset, TrainPlan, UserError, loader_threads, usable_cores

__all__ = ["MAX_SIDE", "QUALITY", "Baseline", "files_of", "parse_baselines", "settings_of", "started"]

MODULES = {
    "torchvision": "bench.baselines.torchvision",
    "torchvision-v2": "bench.baselines.torchvision",
    "timm": "bench.baselines.timm",
    "ffcv": "bench.baselines.ffcv",
    "ffcv-raw50": "bench.baselines.ffcv",
    "spdl": "bench.baselines.spdl",
}

ROOT = Path(__file__).parents[2]

MAX_SIDE, QUALITY = 500, 90
"""Longest side (px) and JPEG quality of FFCV's own copies, as in its recipe for ImageNet."""

LIMIT_S = 300.0
"""For a start, which includes a few repeats, or for a repeat; a baseline that takes longer hangs."""


@dataclass(slots=True, eq=False)
class Baseline:
    """A baseline's process.

    Attributes:
        name: Of the baseline.
        about: Its versions, and how many ``workers`` it has; of one that has failed just ``failed``, the reason.
    """

    name: str
    _process: "subprocess.Popen[str]"
    _log: Path
    _reporter: Reporter
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether it is left out."""
        return "failed" in self.about

    def get_ready(self) -> None:
        """Wait until it can be measured."""
        if about := self._answer():
            self.about = about

    def measure(self, res: int) -> Segment:
        """Run one repeat at a resolution; return NaN for both figures once it has failed."""
        if not self.failed:
            with suppress(BrokenPipeError):
                print(json.dumps({"res": res}), file=self._process.stdin, flush=True)
            if answer := self._answer():
                return Segment(**answer)
        return Segment(math.nan, math.nan)

    def _answer(self) -> Any:
        """Return its next line; None if there is none, and then warn."""
        assert self._process.stdout is not None, "it is a pipe"
        in_time, _, _ = select.select([self._process.stdout], [], [], LIMIT_S)
        if in_time and (line := self._process.stdout.readline()):
            return json.loads(line)
        self._process.kill()
        reason = self._last_line() if in_time else f"no answer within {LIMIT_S:g} s"
        self.about = {"failed": reason}
        self._reporter.warn(f"{self.name} is left out: {reason}; docs/performance.md says how to install it")
        return None

    def _last_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it has ended without a message")


def parse_baselines(text: str) -> dict[str, Path]:
    """Read ``torchvision,ffcv=ENV/bin/python`` into names and their Pythons; ours where none is given.

    Raises:
        UserError: If a name is unknown.
    """
    found = {}
    for word in filter(None, text.split(",")):
        name, _, python = word.strip().partition("=")
        if name not in MODULES:
            raise UserError(f"--baselines takes {', '.join(MODULES)}; found {name!r}")
        found[name] = Path(python or sys.executable)
    return found


def settings_of(plan: TrainPlan, num_batches: int) -> dict[str, Any]:
    """Return the settings of all baselines.

    Args:
        plan: Its first batches are the images of a repeat; numbers of workers are tried at its resolution.
        num_batches: Timed batches of a repeat, at least.

    Raises:
        UserError: If the images are in shards, which baselines do not read.
    """
    if plan.dataset.in_shards:
        raise UserError("baselines read single files; give --data a folder or a manifest, or --baselines=")
    workers = (usable_cores(), loader_threads())
    most = max(repeat_of(each, num_batches).num_batches for each in workers)
    return {
        "files": files_of(plan.dataset, [row for one in islice(endless(plan), most) for row in one.ids.tolist()]),
        "batch_size": plan.batch_size,
        "num_batches": num_batches,
        "workers": workers,
        "res": plan.schedule.last.crop_px,
        "mean": IMAGENET.mean,
        "std": IMAGENET.std,
        "max_side": MAX_SIDE,
        "quality": QUALITY,
    }


def files_of(dataset: Dataset, rows: list[int]) -> list[tuple[str, int]]:
    """Return the file of each image, and its class."""
    return [(str(dataset.path(row)), int(dataset.labels[row])) for row in rows]


@contextmanager
def started(names: Mapping[str, Path], settings: Mapping[str, Any], reporter: Reporter) -> Iterator[list[Baseline]]:
    """Start baselines; they end with the context.

    Args:
        names: And Pythons, of `parse_baselines`.
        settings: Of `settings_of`.
        reporter: Warns of those that fail.

    Raises:
        UserError: If a Python cannot be run.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        running = []
        for name, python in names.items():
            given, log = scratch / f"{name}.json", scratch / f"{name}.log"
            given.write_text(json.dumps({**settings, "loader": name, "scratch": str(scratch)}), encoding="utf-8")
            process = _process(name, python, given, log)
            stack.callback(_end, process)
            baseline = Baseline(name, process, log, reporter)
            baseline.get_ready()
            running.append(baseline)
        yield running


def _process(name: str, python: Path, given: Path, log: Path) -> "subprocess.Popen[str]":
    command = [str(python), "-m", MODULES[name], str(given)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    pipe = subprocess.PIPE
    try:
        with log.open("w", encoding="utf-8") as stderr:
            return subprocess.Popen(  # noqa: S603 - named by the user
                command, stdin=pipe, stdout=pipe, stderr=stderr, text=True, env=environment
            )
    except OSError as error:
        raise UserError(
            f"cannot run {python} for {name}: {error.strerror}; give the Python of its environment"
        ) from error


def _end(process: "subprocess.Popen[str]") -> None:
    """End a process that has nothing to save and may hang."""
    process.kill()
    process.communicate()
