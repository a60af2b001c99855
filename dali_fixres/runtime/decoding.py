"""Which way a GPU decodes images: each is tried in a process of its own, and what that shows is kept in the cache."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dali_fixres.errors import ConfigError
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.environment import environment
from dali_fixres.runtime.progress import Reporter
from pipelines.dali.decodability import first_cause
from pipelines.dali.decoding import (
    NUM_WAYS,
    REGIONS_ON_CPU,
    WHOLE,
    Attempt,
    Choice,
    Decoding,
    choose,
    decodes_regions_on_cpu,
    hardware_engines,
    next_way,
)
from pipelines.storage.cache_folder import cache_folder
from pipelines.storage.files import write_json

__all__ = ["Trials", "decoding_for", "kept_trials", "trials_of", "tried", "try_way"]

TRIAL_S = 25.0
"""Longest trial; most of its time goes into starting."""

DOUBTFUL_S = 24 * 3600.0
"""How long it is believed that a trial takes too long, or that no way works: machine or GPU may have been busy."""

NUM_LAST_LINES = 20
"""Of what a failed trial has written, that are kept."""

DECIDES = ("driver", "nvidia-dali-cuda120", "nvidia-nvimgcodec-cu12", "nvidia-nvjpeg-cu12", "torch", "dali-fixres")
"""What the verdict hangs on, beside the GPU."""


@dataclass(frozen=True, slots=True)
class Trials:
    """What trying ways to decode has shown on a machine.

    Attributes:
        attempts: One for each way, in the order they were tried.
        hardware_engines: JPEG engines of the GPU; None if the decoder has not told.
        tried_at: When the last trial ended, in s since 1970.
    """

    attempts: tuple[Attempt, ...] = ()
    hardware_engines: int | None = None
    tried_at: float = 0.0

    @property
    def choice(self) -> Choice:
        """The way that is taken."""
        return choose(self.attempts)

    @property
    def hopeless(self) -> bool:
        """Whether no way has passed its trial."""
        return all(attempt.flaw for attempt in self.attempts)

    @property
    def beyond_doubt(self) -> "Trials":
        """These without attempts whose end may not be the way's fault: time limits, or all if none has worked."""
        sure = () if self.hopeless else tuple(attempt for attempt in self.attempts if not attempt.timed_out)
        return replace(self, attempts=sure)

    def with_another(self, attempt: Attempt, log: str) -> "Trials":
        """Return these and one more, which has ended just now."""
        engines = hardware_engines(log) if self.hardware_engines is None else self.hardware_engines
        return Trials((*self.attempts, attempt), engines, time.time())

    def as_json(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        return asdict(self)


def decoding_for(device: torch.device, world: World, reporter: Reporter) -> Decoding:
    """Return how a device is to decode; of several processes on a node the first tries, and the others find that."""
    if device.type != "cuda":
        return WHOLE
    with world.one_by_one_on_a_node():
        return trials_of(device, reporter).choice.decoding


def trials_of(device: torch.device, reporter: Reporter, *, again: bool = False) -> Trials:
    """Return what is known of a GPU; what has not been tried is tried, and then it is said what is chosen.

    Args:
        device: The GPU.
        reporter: Where progress goes.
        again: Whether to forget what is known.
    """
    found = environment()
    machine = {"gpu": torch.cuda.get_device_name(device), **{name: found[name] for name in DECIDES}}
    return kept_trials(machine, lambda way: try_way(device, way), reporter, again=again)


def kept_trials(
    machine: Mapping[str, Any],
    try_one: Callable[[Decoding], tuple[Attempt, str]],
    reporter: Reporter,
    *,
    again: bool = False,
) -> Trials:
    """Return what is known of a machine; what has not been tried is tried, and each attempt is kept at once.

    So a process that is stopped in between has done nothing in vain. What is not beyond doubt is believed for a day.
    """
    name = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / "decoding" / f"{name}.json"
    trials = Trials() if again else _read(path)
    if time.time() - trials.tried_at > DOUBTFUL_S:
        trials = trials.beyond_doubt
    if next_way(trials.attempts, trials.hardware_engines) is None:
        return trials
    with reporter.bar("trying ways to decode on this GPU", NUM_WAYS) as bar:
        while (way := next_way(trials.attempts, trials.hardware_engines)) is not None:
            trials = trials.with_another(*try_one(way))
            with suppress(ConfigError):  # a cache folder that cannot be written costs only time
                write_json(path, {"machine": dict(machine), **trials.as_json()})
            bar.update(len(trials.attempts), "")
    reporter.line(f"decoding: {trials.choice.decoding}: {trials.choice.why}")
    return trials


def try_way(device: torch.device, way: Decoding) -> tuple[Attempt, str]:
    """Try a way to decode on a GPU in a process of its own; return what came of it, and what it has written."""
    gpu = torch.cuda.current_device() if device.index is None else device.index
    return tried(way, [sys.executable, "-m", "pipelines.dali.trial", json.dumps(asdict(way)), str(gpu)], TRIAL_S)


def tried(way: Decoding, command: Sequence[str], limit_s: float) -> tuple[Attempt, str]:
    """Run a trial; return what came of it, whatever that is, and what it has written."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, timeout=limit_s)  # noqa: S603 - our own module
    except subprocess.TimeoutExpired as late:
        log = _text(late.stdout) + _text(late.stderr)
        return Attempt(way, f"no answer within {limit_s:g} s", last_lines=_last_lines(log), timed_out=True), log
    log = _text(done.stdout) + _text(done.stderr)
    results = [line for line in _text(done.stdout).splitlines() if line.startswith("{")]
    problem = _problem(done.returncode, _text(done.stderr))
    if not problem and not results:
        problem = "failed: it has printed no result"
    if not problem and way.region and decodes_regions_on_cpu(log):
        problem = REGIONS_ON_CPU
    if problem:
        return Attempt(way, problem, last_lines=_last_lines(log)), log
    return Attempt(way, **json.loads(results[-1])), log


def _text(output: bytes | None) -> str:
    """Return what a process has written, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", (output or b"").decode(errors="replace"))


def _problem(code: int, errors: str) -> str:
    """Say how a process has ended, or return an empty string if it has ended well."""
    if code < 0:
        return f"crashed with {signal.Signals(-code).name}"
    if code > 0:
        cause = first_cause(errors) or next(reversed(_last_lines(errors)), f"exit code {code}")
        return f"failed: {cause[:200]}"
    return ""


def _last_lines(log: str) -> tuple[str, ...]:
    """Return the last lines of a log, without what nvImageCodec tells when all is well."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip() and not line.startswith("[INFO]")]
    return tuple(lines[-NUM_LAST_LINES:])


def _read(path: Path) -> Trials:
    """Return what was kept: no attempts if that is nothing, or not of this version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        attempts = tuple(map(Attempt.from_json, content["attempts"]))
        return Trials(attempts, content["hardware_engines"], content["tried_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return Trials()
