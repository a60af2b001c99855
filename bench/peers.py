"""Loaders of others, each run by the Python of an environment that has it: one process, one line of JSON per request.

A peer is a script of this folder that imports nothing of ours. It reads settings in its first line and answers with
what it is (its versions); after that each line ``{"res": …}`` is one repeat, answered with images/s.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dali_fixres.errors import UserError

__all__ = ["Peer", "started"]


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """A peer's process, ready to measure.

    Attributes:
        name: Of the peer.
        about: Its answer to the settings: versions, and what else it has to say.
    """

    name: str
    about: Any
    _process: "subprocess.Popen[str]"

    def measure(self, res: int) -> float:
        """Run one repeat at a resolution and return images/s."""
        return float(_ask(self.name, self._process, {"res": res}))


@contextmanager
def started(name: str, python: Path, script: str, settings: Mapping[str, Any]) -> Iterator[Peer]:
    """Start a peer in its own environment; it ends with the context.

    Args:
        name: Of the peer.
        python: Its environment's.
        script: Of this folder.
        settings: Its first line.

    Raises:
        UserError: If it does not start or has stopped.
    """
    command = [str(python), str(Path(__file__).with_name(script))]
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
        raise UserError(f"{name} has stopped, and has said why above")
    return json.loads(answer)
