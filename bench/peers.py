"""Loaders of others, each run by the Python of an environment that has it: one process, one line of JSON per request.

A peer is a script of this folder that imports nothing of ours, see `peer_protocol.py`. All of them crop, flip and
normalise as in training, into float32 batches on the CPU, from the same files. Each has as many workers (processes or
threads) as there are cores, or one more as our loader has, whichever it is faster with at the first resolution.

A peer that fails or hangs is left out, and the others are measured all the same.
"""

import json
import math
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from peer_protocol import repeat_of

from dali_fixres.errors import UserError, did_you_mean
from dali_fixres.runtime.progress import Reporter
from pipelines.dataset import Dataset
from pipelines.plan import TrainPlan
from pipelines.plan.colour import IMAGENET
from pipelines.processes import loader_threads, usable_cores

__all__ = ["INSTALLED", "Peer", "files_of", "parse_peers", "settings_of", "started"]

SCRIPTS = {
    "torchvision": "peer_torchvision.py",
    "torchvision-v2": "peer_torchvision.py",
    "timm": "peer_timm.py",
    "ffcv": "peer_ffcv.py",
    "ffcv-raw50": "peer_ffcv.py",
    "spdl": "peer_spdl.py",
}

INSTALLED = "torchvision,torchvision-v2,timm"
"""Those that our own environment has."""

LIMIT_S = 300.0
"""For a start, which includes a few repeats, or for a repeat; a peer that takes longer hangs."""


@dataclass(slots=True, eq=False)
class Peer:
    """A peer's process.

    Attributes:
        name: Of the peer.
        about: Its versions, and how many ``workers`` it has; of one that has failed just ``failed``, which is why.
    """

    name: str
    _process: "subprocess.Popen[str]"
    _log: Path
    _reporter: Reporter
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether it is to be left out."""
        return "failed" in self.about

    def get_ready(self) -> None:
        """Wait until it can be measured."""
        if about := self._answer():
            self.about = about

    def measure(self, res: int) -> float:
        """Run one repeat at a resolution and return images/s; NaN once it has failed."""
        if self.failed:
            return math.nan
        with suppress(BrokenPipeError):
            print(json.dumps({"res": res}), file=self._process.stdin, flush=True)
        return self._answer() or math.nan

    def _answer(self) -> Any:
        """Return its next line; None if there is none, and then say why."""
        assert self._process.stdout is not None, "it is a pipe"
        in_time, _, _ = select.select([self._process.stdout], [], [], LIMIT_S)
        if in_time and (line := self._process.stdout.readline()):
            return json.loads(line)
        self._process.kill()
        reason = self._last_words() if in_time else f"no answer within {LIMIT_S:g} s"
        self.about = {"failed": reason}
        self._reporter.warn(f"{self.name} is left out: {reason}; docs/performance.md says how to install it")
        return None

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it has ended without a word")


def parse_peers(text: str) -> dict[str, Path]:
    """Read ``torchvision,ffcv=ENV/bin/python`` into names and their Pythons; ours where none is given.

    Raises:
        UserError: If a name is unknown.
    """
    peers = {}
    for word in filter(None, text.split(",")):
        name, _, python = word.strip().partition("=")
        if name not in SCRIPTS:
            raise UserError(f"--peers takes {', '.join(SCRIPTS)}; found {name!r}{did_you_mean(name, SCRIPTS)}")
        peers[name] = Path(python or sys.executable)
    return peers


def settings_of(plan: TrainPlan, num_batches: int, max_side: int, quality: int) -> dict[str, Any]:
    """Return what peers are told.

    Args:
        plan: Says which images a repeat takes, in single files, and at which resolution numbers of workers are tried.
        num_batches: Timed batches of a repeat, at least.
        max_side: Longest side of a peer's own copies, pixels.
        quality: JPEG quality of these.

    Raises:
        UserError: If the images are in shards, which peers do not read.
    """
    if plan.dataset.in_shards:
        raise UserError("peers read single files here; give --data a folder or a manifest")
    workers = (usable_cores(), loader_threads())
    return {
        "files": files_of(plan.dataset, _rows(plan, max(repeat_of(each, num_batches).num_batches for each in workers))),
        "batch_size": plan.batch_size,
        "num_batches": num_batches,
        "workers": workers,
        "res": plan.schedule.last.crop_px,
        "mean": IMAGENET.mean,
        "std": IMAGENET.std,
        "max_side": max_side,
        "quality": quality,
    }


def files_of(dataset: Dataset, rows: list[int]) -> list[tuple[str, int]]:
    """Return the file of each image, and its class."""
    return [(str(dataset.path(row)), int(dataset.labels[row])) for row in rows]


def _rows(plan: TrainPlan, num_batches: int) -> list[int]:
    """Return the images of the first batches; the data again if there are fewer."""
    epochs = chain.from_iterable(plan.epoch(epoch) for epoch in count())
    return [row for one in islice(epochs, num_batches) for row in one.ids.tolist()]


@contextmanager
def started(peers: Mapping[str, Path], settings: Mapping[str, Any], reporter: Reporter) -> Iterator[list[Peer]]:
    """Start peers, each in its own environment; they end with the context.

    Args:
        peers: Names and Pythons, of `parse_peers`.
        settings: Of `settings_of`.
        reporter: Says which has failed, and why.

    Raises:
        UserError: If a Python cannot be run.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        running = []
        for name, python in peers.items():
            given, log = scratch / f"{name}.json", scratch / f"{name}.log"
            given.write_text(json.dumps({**settings, "loader": name, "scratch": str(scratch)}), encoding="utf-8")
            process = _process(name, python, given, log)
            stack.callback(_end, process)
            peer = Peer(name, process, log, reporter)
            peer.get_ready()
            running.append(peer)
        yield running


def _process(name: str, python: Path, given: Path, log: Path) -> "subprocess.Popen[str]":
    command = [str(python), str(Path(__file__).parent / SCRIPTS[name]), str(given)]
    pipe = subprocess.PIPE
    try:
        with log.open("w", encoding="utf-8") as words:
            return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=words, text=True)  # noqa: S603 - named by the user
    except OSError as error:
        raise UserError(
            f"cannot run {python} for {name}: {error.strerror}; give the Python of its environment"
        ) from error


def _end(process: "subprocess.Popen[str]") -> None:
    """End a process that has nothing to save and may hang."""
    process.kill()
    process.communicate()
