"""What the peers of `peers.py` share. It is run by their Pythons, so it imports nothing of ours.

A peer answers requests on standard input: the first line holds the settings (see `peers.settings_of`) and is answered
with its versions; each line ``{"res": …}`` after that is one repeat, answered with images/s.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from itertools import islice
from typing import Any

# As ours: idle threads are not to spin beside others; it is read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

WARM_UP = 4
"""Batches before the clock starts."""

Settings = dict[str, Any]


def serve(loader: Callable[[Settings, int], Iterable[Any]], packages: Sequence[str]) -> None:
    """Answer requests until there are no more.

    Args:
        loader: Returns, for the settings and a resolution, one epoch over the files in batches.
        packages: Whose versions are told.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # a library may print
    settings = json.loads(sys.stdin.readline())
    print(json.dumps({name: version(name) for name in packages}), file=answers, flush=True)
    loaders: dict[int, Iterable[Any]] = {}
    for line in sys.stdin:
        res = json.loads(line)["res"]
        if res not in loaders:
            loaders[res] = loader(settings, res)
        print(_measure(loaders[res], settings["batch_size"], settings["num_batches"]), file=answers, flush=True)


def _measure(batches: Iterable[Any], batch_size: int, num_batches: int) -> float:
    """Return images/s of one epoch, without its first batches, and with more to come after the last."""
    source = iter(batches)
    for _ in islice(source, WARM_UP):
        pass
    started = time.perf_counter()
    count = sum(1 for _ in islice(source, num_batches))
    seconds = time.perf_counter() - started
    if count != num_batches:
        sys.exit(f"timed {count} batches instead of {num_batches}")
    for _ in source:
        pass
    return count * batch_size / seconds
