"""What the peers of `peers.py` share. It is run by their Pythons, so it imports nothing of ours.

A peer is started with the file of its settings (see `peers.settings_of`), tries how many workers suit it, and says on
standard output which, and its versions. Then each line ``{"res": …}`` on standard input is one repeat, answered with
images/s.
"""

import ctypes
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

# As ours: idle threads are not to spin beside others; it is read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

LEAST_AHEAD = 4
"""Batches that a peer may have made ahead however few workers it has; FFCV has three."""

Settings = dict[str, Any]


class Repeat(NamedTuple):
    """The batches of a repeat.

    Attributes:
        ahead: Before the clock starts, and as many after it stops.
        timed: Between.
    """

    ahead: int
    timed: int

    @property
    def num_batches(self) -> int:
        """All of them."""
        return self.timed + 2 * self.ahead


def repeat_of(workers: int, num_batches: int) -> Repeat:
    """Return what a repeat takes to be a piece of a long epoch.

    torch's DataLoader works two batches per worker ahead. These are to be used up when the clock starts, and as many
    to be under way when it stops. Workers that keep step give their batches in waves, of which whole ones are timed.

    Args:
        workers: Of the loader.
        num_batches: To be timed at least.
    """
    return Repeat(max(LEAST_AHEAD, 2 * workers), workers * math.ceil(num_batches / workers))


def serve(loader: Callable[[Settings, int], Iterable[Any]], packages: Sequence[str]) -> None:
    """Answer requests until there are no more.

    Args:
        loader: Returns, for settings with the files of a repeat and the number of ``workers``, and for a resolution,
            one epoch in batches.
        packages: Whose versions are told.
    """
    _keep_freed_memory()
    answers, sys.stdout = sys.stdout, sys.stderr  # a library may print
    settings: Settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    batch_size = settings["batch_size"]

    @cache
    def made(workers: int, res: int) -> tuple[Iterable[Any], Repeat]:
        repeat = repeat_of(workers, settings["num_batches"])
        files = settings["files"][: repeat.num_batches * batch_size]
        return loader({**settings, "files": files, "workers": workers}, res), repeat

    def measure(workers: int, res: int) -> float:
        return _measure(*made(workers, res), batch_size)

    tried = settings["workers"]
    for workers in tried:  # files may not have been read before
        measure(workers, settings["res"])
    turns = [*tried, *reversed(tried)]
    workers = max((measure(workers, settings["res"]), workers) for workers in turns)[1]
    about = {"workers": workers, **{name: version(name) for name in packages}}
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        print(measure(workers, json.loads(line)["res"]), file=answers, flush=True)


def _keep_freed_memory() -> None:
    """Have freed memory kept for the next batch, as ours (dali_fixres/host.py), in processes forked later, too."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-4, 0)
        libc.mallopt(-1, -1)


def _measure(batches: Iterable[Any], repeat: Repeat, batch_size: int) -> float:
    """Return images/s of one epoch, without its first batches, and with more to come after the last."""
    source = iter(batches)
    for _ in islice(source, repeat.ahead):
        pass
    started = time.perf_counter()
    count = sum(1 for _ in islice(source, repeat.timed))
    seconds = time.perf_counter() - started
    if count != repeat.timed:
        sys.exit(f"timed {count} batches instead of {repeat.timed}")
    for _ in source:
        pass
    return count * batch_size / seconds
