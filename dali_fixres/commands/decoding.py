"""Which way a GPU decodes pictures: each is tried in a process of its own, and what that shows is kept in the cache."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dali_fixres.distributed import World
from dali_fixres.errors import ConfigError
from dali_fixres.folders import cache_folder
from dali_fixres.report.environment import environment
from dali_fixres.report.progress import Reporter
from dali_fixres.runs import write_json
from pipelines.decoding import CANDIDATES, WHOLE, Attempt, Choice, Decoding, choose, hardware_engines

__all__ = ["Trials", "decoding_for", "kept_trials", "trials_of", "tried", "try_ways"]

TRIAL_S = 60.0
"""Longest trial: it decodes some 1700 pictures, most of the time goes into starting."""

DECIDES = ("driver", "nvidia-dali-cuda120", "nvidia-nvimgcodec-cu12", "torch", "dali-fixres")
"""What the verdict hangs on, beside the GPU."""

WITH_LOG = {"DALI_NVIMGCODEC_LOG_LEVEL": "4"}
"""Makes nvImageCodec name the hardware engines that it finds at the start."""


@dataclass(frozen=True, slots=True)
class Trials:
    """What trying ways to decode has shown on a machine.

    Attributes:
        attempts: One for each way.
        hardware_engines: JPEG engines of the GPU; None if the decoder has not told.
    """

    attempts: tuple[Attempt, ...]
    hardware_engines: int | None

    @property
    def choice(self) -> Choice:
        """The way that is taken."""
        return choose(self.attempts)

    def as_json(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        attempts = [attempt.as_json() for attempt in self.attempts]
        return {"hardware_engines": self.hardware_engines, "attempts": attempts}


def decoding_for(device: torch.device, world: World, reporter: Reporter) -> Decoding:
    """Return how a device is to decode; of several processes on a node the first tries, and the others find that."""
    if device.type != "cuda":
        return WHOLE
    with world.one_by_one_on_a_node():
        return trials_of(device, reporter).choice.decoding


def trials_of(device: torch.device, reporter: Reporter) -> Trials:
    """Return what is known of a GPU; if it is met for the first time, try, and say what is chosen."""
    found = environment()
    machine = {"gpu": torch.cuda.get_device_name(device), **{name: found[name] for name in DECIDES}}
    return kept_trials(machine, lambda: _announced(device, reporter))


def kept_trials(machine: Mapping[str, Any], try_all: Callable[[], Trials]) -> Trials:
    """Return what is known of a machine, or try, and keep it.

    What has shown nothing that works is not kept, since the next time may be better.
    """
    name = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / "decoding" / f"{name}.json"
    known = _read(path)
    if known is not None:
        return known
    trials = try_all()
    if any(not attempt.flaw for attempt in trials.attempts):
        with suppress(ConfigError):  # a cache folder that cannot be written costs only time
            write_json(path, {"machine": dict(machine), **trials.as_json()})
    return trials


def try_ways(device: torch.device, ways: Sequence[Decoding], on_progress: Callable[[int], None]) -> Trials:
    """Try ways to decode on a GPU, one after the other, each in a process of its own.

    Args:
        device: The GPU.
        ways: What to try.
        on_progress: Called with the number of ways done.
    """
    gpu = torch.cuda.current_device() if device.index is None else device.index
    attempts: list[Attempt] = []
    logs: list[str] = []
    for number, way in enumerate(ways, start=1):
        command = [sys.executable, "-m", "pipelines.trial", json.dumps(asdict(way)), str(gpu)]
        attempt, log = tried(way, command, TRIAL_S)
        attempts.append(attempt)
        logs.append(log)
        on_progress(number)
    return Trials(tuple(attempts), hardware_engines("\n".join(logs)))


def tried(way: Decoding, command: Sequence[str], limit_s: float) -> tuple[Attempt, str]:
    """Run a trial; return what came of it, whatever that is, and what it has written."""
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, check=False, capture_output=True, text=True, timeout=limit_s, env={**os.environ, **WITH_LOG}
        )
    except subprocess.TimeoutExpired:
        return Attempt(way, f"no answer within {limit_s:g} s"), ""
    log = done.stdout + done.stderr
    if done.returncode < 0:
        return Attempt(way, f"crashed with {signal.Signals(-done.returncode).name}"), log
    if done.returncode > 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Attempt(way, f"failed: {last[:200]}"), log
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return Attempt(way, "failed: it has printed no result"), log
    return Attempt(way, **json.loads(lines[-1])), log


def _announced(device: torch.device, reporter: Reporter) -> Trials:
    with reporter.bar("trying ways to decode on this GPU", len(CANDIDATES)) as bar:
        trials = try_ways(device, CANDIDATES, lambda done: bar.update(done, ""))
    reporter.line(f"decoding: {trials.choice.decoding}: {trials.choice.why}")
    return trials


def _read(path: Path) -> Trials | None:
    """Return what was kept, or None if that is nothing, or not of this version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Trials(tuple(map(Attempt.from_json, content["attempts"])), content["hardware_engines"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
