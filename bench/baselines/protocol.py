"""What the baselines share: the answers to `bench.baselines.run`, a line of JSON each.

A baseline is started with the file of its settings, tries which number of workers is fastest, and prints that number
and its versions. Then each line ``{"res": …}`` on standard input asks for one repeat; the answer is a `Segment`.
"""

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

from bench.segment import Segment, core_seconds_of_all

LEAST_AHEAD = 4
"""Batches that a baseline may have made ahead however few workers it has; FFCV has three."""

Settings = dict[str, Any]


class Repeat(NamedTuple):
    """The batches of a repeat: those before the clock starts (and as many after it stops), and those timed."""

    ahead: int
    timed: int

    @property
    def num_batches(self) -> int:
        """All of them."""
        return self.timed + 2 * self.ahead


def repeat_of(workers: int, num_batches: int) -> Repeat:
    """Return the batches of a repeat, such that it is like a part of a long epoch.

    torch's DataLoader works two batches per worker ahead. These have to be used up when the clock starts, and as many
    under way when it stops. Workers in step hand their batches over in waves, of which whole ones are timed.

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
        packages: Whose versions are reported.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # where libraries print, also those in C and in forked processes
    settings: Settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    batch_size = settings["batch_size"]

    @cache
    def made(workers: int, res: int) -> tuple[Iterable[Any], Repeat]:
        repeat = repeat_of(workers, settings["num_batches"])
        files = settings["files"][: repeat.num_batches * batch_size]
        return loader({**settings, "files": files, "workers": workers}, res), repeat

    def measure(workers: int, res: int) -> Segment:
        return _measure(*made(workers, res), batch_size)

    tried = settings["workers"]
    measure(tried[0], settings["res"])  # files may not have been read before
    # Twice each, as something else may disturb one of them.
    workers = max((measure(workers, settings["res"]).images_per_s, workers) for workers in tried * 2)[1]
    about = {"workers": workers, **{name: version(name) for name in packages}}
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(workers, json.loads(line)["res"])._asdict()), file=answers, flush=True)


def _measure(batches: Iterable[Any], repeat: Repeat, batch_size: int) -> Segment:
    """Time one epoch, without its first batches, and with more to come after the last."""
    source = iter(batches)
    for _ in islice(source, repeat.ahead):
        pass
    core_s, started = core_seconds_of_all(), time.perf_counter()
    count = sum(1 for _ in islice(source, repeat.timed))
    seconds, core_s = time.perf_counter() - started, core_seconds_of_all() - core_s
    if count != repeat.timed:
        sys.exit(f"timed {count} batches instead of {repeat.timed}")
    for _ in source:
        pass
    return Segment.of(count * batch_size, seconds, core_s)
