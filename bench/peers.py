"""Loaders of others, each run by the Python of an environment that has it: one process, one line of JSON per request.

A peer is a script of this folder that imports nothing of ours, see `peer_protocol.py`. All of them crop, flip and
normalise as in training, into float32 batches on the CPU, from the same files.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dali_fixres.colour import IMAGENET
from dali_fixres.errors import UserError, did_you_mean
from dali_fixres.index import Index
from dali_fixres.processes import usable_cores

__all__ = ["Peer", "parse_peers", "settings_of", "started"]

SCRIPTS = {
    "torchvision": "peer_torchvision.py",
    "torchvision-v2": "peer_torchvision.py",
    "timm": "peer_timm.py",
    "ffcv": "peer_ffcv.py",
    "spdl": "peer_spdl.py",
}


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """A peer's process, ready to measure.

    Attributes:
        name: Of the peer.
        about: Its answer to the settings: versions.
    """

    name: str
    about: Any
    _process: "subprocess.Popen[str]"

    def measure(self, res: int) -> float:
        """Run one repeat at a resolution and return images/s."""
        return float(_ask(self.name, self._process, {"res": res}))


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


def settings_of(
    index: Index, rows: Sequence[int], batch_size: int, num_batches: int, max_side: int, quality: int
) -> dict[str, Any]:
    """Return what peers are told.

    Args:
        index: The data set, in single files.
        rows: Pictures of one repeat.
        batch_size: Pictures per batch.
        num_batches: Timed batches of a repeat.
        max_side: Longest side of a peer's own copies.
        quality: JPEG quality of these.

    Raises:
        UserError: If the pictures are in shards, which peers do not read.
    """
    if index.in_shards:
        raise UserError("peers read single files here; give --data a folder or a manifest")
    return {
        "files": [(str(index.path(row)), int(index.labels[row])) for row in rows],
        "batch_size": batch_size,
        "num_batches": num_batches,
        "workers": usable_cores(),
        "mean": IMAGENET.mean,
        "std": IMAGENET.std,
        "max_side": max_side,
        "quality": quality,
    }


@contextmanager
def started(peers: Mapping[str, Path], settings: Mapping[str, Any]) -> Iterator[list[Peer]]:
    """Start peers, each in its own environment; they end with the context.

    Args:
        peers: Names and Pythons, of `parse_peers`.
        settings: Of `settings_of`.

    Raises:
        UserError: If one does not start or has stopped.
    """
    with ExitStack() as stack:
        scratch = stack.enter_context(TemporaryDirectory())
        yield [
            stack.enter_context(_started(name, python, {**settings, "loader": name, "scratch": scratch}))
            for name, python in peers.items()
        ]


@contextmanager
def _started(name: str, python: Path, settings: Mapping[str, Any]) -> Iterator[Peer]:
    command = [str(python), str(Path(__file__).with_name(SCRIPTS[name]))]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - named by the user
    except OSError as error:
        raise UserError(
            f"cannot run {python} for {name}: {error.strerror}; give the Python of its environment"
        ) from error
    with process:
        yield Peer(name, _ask(name, process, settings), process)
        assert process.stdin is not None, "it is a pipe"
        process.stdin.close()


def _ask(name: str, process: "subprocess.Popen[str]", request: Mapping[str, Any]) -> Any:
    """Send a line and return the answer."""
    assert process.stdin is not None, "it is a pipe"
    assert process.stdout is not None, "it is a pipe"
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except BrokenPipeError:
        answer = ""
    if not answer:
        raise UserError(f"{name} has stopped, and has said why above; docs/performance.md says how to install it")
    return json.loads(answer)
