"""How images are decoded where batches are wanted on a GPU: by the GPU, or by CPU threads, whichever is faster.

Neither DALI nor torch is imported here: the loader says how to run one way.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pipelines.dali.messages import first_cause
from pipelines.errors import ConfigError, RunError, UnreadableError
from pipelines.processes import usable_cores
from pipelines.storage.cache_folder import cache_folder
from pipelines.storage.files import write_json

__all__ = ["WAYS", "Decode", "Timing", "Way", "faster_way", "images_per_s", "machine", "time_ways"]

Way: TypeAlias = Literal["gpu", "cpu"]
"""``gpu``: the GPU decodes whole images. ``cpu``: CPU threads decode the regions that crops need, to the very pixels of
PIL, and these are copied. Either way the GPU resizes and normalises."""

Decode: TypeAlias = Literal["auto", "cpu", "gpu"]
"""A way, or ``auto``: the faster one. On a CPU there is only ``cpu``."""

WAYS: tuple[Way, ...] = ("gpu", "cpu")

WARM_UP = 4
"""Batches before the clock starts: by then memory is allocated, and the graph works ahead."""

SECONDS = 0.5
"""How long each way is timed."""

DRIVER = Path("/sys/module/nvidia/version")


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast each way to decode is.

    Attributes:
        images_per_s: Of the ways that work; at least one does.
        failed: What went wrong with the others.
    """

    images_per_s: Mapping[Way, float]
    failed: Mapping[Way, str]

    @property
    def faster(self) -> Way:
        """The way with more images/s."""
        return max(self.images_per_s, key=lambda way: self.images_per_s[way])


def time_ways(speed_of: Callable[[Way], float]) -> Timing:
    """Time both ways to decode.

    Args:
        speed_of: Returns the images/s of a way.

    Raises:
        RunError: If neither works.
    """
    speeds: dict[Way, float] = {}
    failed: dict[Way, str] = {}
    for way in WAYS:
        try:
            speeds[way] = speed_of(way)
        except (RuntimeError, UnreadableError) as error:
            failed[way] = first_cause(str(error)) or str(error).strip().partition("\n")[0] or type(error).__name__
    if not speeds:
        raise RunError("images cannot be decoded: " + "; ".join(_failures(failed)))
    return Timing(speeds, failed)


def images_per_s(
    batches: Iterator[Sized], wait: Callable[[], None], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return how many images/s come out of endless batches, after a warm-up.

    Args:
        batches: They never end.
        wait: Waits for the GPU.
        clock: Returns the time in s.
    """
    for _ in range(WARM_UP):
        next(batches)
    wait()
    start, num_images = clock(), 0
    while clock() - start < SECONDS:
        num_images += len(next(batches))
    wait()
    return num_images / (clock() - start)


def faster_way(key: Mapping[str, Any], time_both: Callable[[], Timing], warn: Callable[[str], None]) -> Way:
    """Return the faster way to decode: the one in the cache folder, or else timed now and written there.

    If one way fails, a warning gives the reason and the other is taken. As the failure may be temporary, nothing is
    written then.

    Args:
        key: What the answer depends on, in plain types.
        time_both: Times both ways.
        warn: Prints a warning.

    Raises:
        RunError: If neither way works.
    """
    name = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / "decoding" / f"{name}.json"
    if (way := _read(path)) is not None:
        return way
    timing = time_both()
    for failure in _failures(timing.failed):
        warn(f"{failure}; decode {timing.faster!r} is used instead")
    if not timing.failed:
        with suppress(ConfigError):  # a cache folder that cannot be written costs only time
            write_json(path, {**key, "images_per_s": dict(timing.images_per_s), "decode": timing.faster})
    return timing.faster


def machine(gpu: str, num_threads: int) -> dict[str, str | int | None]:
    """Return the properties of a machine that decide which way is faster.

    Args:
        gpu: Name of the GPU.
        num_threads: CPU threads of the loader.
    """
    return {
        "gpu": gpu,
        "driver": DRIVER.read_text(encoding="utf-8").strip() if DRIVER.exists() else None,
        "dali": version("nvidia-dali-cuda120"),
        "torch": version("torch"),
        "cores": usable_cores(),
        "threads": num_threads,
    }


def _failures(failed: Mapping[Way, str]) -> list[str]:
    return [f"decode {way!r} fails: {reason}" for way, reason in failed.items()]


def _read(path: Path) -> Way | None:
    """Return the way that is written in a cached file, or None if it is missing or unusable."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["decode"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return next((way for way in WAYS if way == found), None)
