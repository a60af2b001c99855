"""What a timed segment has found, and the clock of processes; baselines use it too, so it needs the standard library.

Wall time depends on what else the machine does. Core time hardly does, so on a busy machine compare loaders by that.
"""

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Segment", "core_seconds_of_all"]


class Segment(NamedTuple):
    """What a timed segment has found.

    Attributes:
        images_per_s: By wall time.
        core_ms: CPU time of all threads, and of a baseline's processes, per image, ms.
    """

    images_per_s: float
    core_ms: float

    @classmethod
    def of(cls, num_images: int, seconds: float, core_seconds: float) -> "Segment":
        """Return what some images have taken of wall and core time."""
        return cls(num_images / seconds, 1000 * core_seconds / num_images)

    def __str__(self) -> str:
        """Return it for a line of progress."""
        return f"{self.images_per_s:.0f} images/s, {self.core_ms:.2f} core ms per image"


def core_seconds_of_all() -> float:
    """Return the CPU time of this process, its living descendants, and its children that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    living = sum(time.clock_gettime(_clock_of(pid)) for pid in _descendants("self"))
    return time.process_time() + living + ended.ru_utime + ended.ru_stime


def _clock_of(pid: int) -> int:
    """Return the clock of a process's CPU time, as clock_getcpuclockid(3) does; finer than the ticks of /proc."""
    return ~pid << 3 | 2


def _descendants(pid: str) -> Iterator[int]:
    for task in Path("/proc", pid, "task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            yield int(child)
            yield from _descendants(child)
