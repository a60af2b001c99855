"""What index and plans of a data set cost in a process of its own: memory, and milliseconds per batch.

    python bench/plan_cost.py 1000000 256

The pictures need not exist: paths, labels and sizes are made from their numbers, as long as ImageNet's. Prints one line
of JSON. `bench/scaling.py` runs it for one size after the other, each in a process whose memory it has for itself.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dali_fixres.colour import IMAGENET
from dali_fixres.index import TRAIN, Index
from dali_fixres.index.table import make_index
from dali_fixres.plan import AUGMENTATIONS, EvaluationPlan, TrainPlan
from dali_fixres.resolution import Schedule
from pipelines.feed import graph_inputs

NUM_BATCHES = 50
"""Spread over the epoch; their median is taken."""


def synthetic_index(num_images: int) -> Index:
    """Lay out an index of pictures that need not exist, all to train on."""
    numbers = np.arange(num_images)
    columns = {
        "labels": numbers % 1000,
        "heights": 300 + numbers * 7 % 200,
        "widths": 300 + numbers * 11 % 200,
        "num_bytes": 100_000 + numbers % 20_000,
        "mtimes_ns": numbers,
    }
    paths = [b"train/n%08d/n%08d_%08d.JPEG" % (number % 1000, number % 1000, number) for number in range(num_images)]
    classes = [f"n{label:08}" for label in range(1000)]
    return make_index(Path("/data"), classes, paths, columns, np.zeros(num_images, bool))


def main() -> None:
    """Build the index, plan batches, and print what it took."""
    num_images, batch_size = int(sys.argv[1]), int(sys.argv[2])
    before = _resident_mib()
    started = time.perf_counter()
    index = synthetic_index(num_images)
    build_s = time.perf_counter() - started
    resident = _resident_mib() - before
    plan = TrainPlan(index, AUGMENTATIONS["train"], Schedule.parse("224"), batch_size)
    test = EvaluationPlan(index, batch_size, split=TRAIN)
    steps = np.linspace(0, plan.num_steps(0) - 1, NUM_BATCHES).astype(int).tolist()
    orders = [plan.at(0, step) for step in steps]
    batches = test.batches(plan.schedule.last)
    found = {
        "num_images": num_images,
        "build_s": build_s,
        "resident_mib": resident,
        "mib_per_million": resident / num_images * 1e6,
        # Whole epochs that were not planned before: their permutation comes with the first batch.
        "epoch_start_ms": _median_ms(plan.at, [(epoch, 0) for epoch in (1, 2, 3)]),
        "plan_ms": _median_ms(plan.at, [(3, step) for step in steps]),
        "feed_ms": _median_ms(partial(graph_inputs, decode_window=True), [(o, index, IMAGENET) for o in orders]),
        "test_start_ms": _median_ms(next, [(batches,)]),
        "test_plan_ms": _median_ms(next, [(batches,)] * min(NUM_BATCHES, test.num_batches - 1)),
        "test_count_ms": _median_ms(lambda: test.num_batches, [()] * NUM_BATCHES),
    }
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))  # noqa: T201 - the result


def _median_ms(work: Callable[..., object], calls: list[tuple[Any, ...]]) -> float:
    spent = []
    for arguments in calls:
        started = time.perf_counter()
        work(*arguments)
        spent.append(1000 * (time.perf_counter() - started))
    return statistics.median(spent)


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
