"""Training steps on one batch in memory, in a process of its own, since an allocator's settings cannot be taken back.

    python bench/steps_alone.py '{"data": …}'

Prints one line of JSON: images/s, and the most memory that the process has had. `bench/freed_memory.py` runs it.
"""

import json
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

from dali_fixres.host import prepare_host

prepare_host()

import torch
from learners import build_tuning
from loaders import training_plan
from stages import bare_steps, peak_host_mib, synthetic_batch

from dali_fixres.index import open_data
from dali_fixres.models import ModelSpec
from dali_fixres.resolution import Resolution

WARM_UP = 2
"""Steps before the clock starts: by then memory that is kept has been taken once."""


def main() -> None:
    """Measure, and print."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    cpu, resolution, number = torch.device("cpu"), Resolution(settings["res"]), settings["num_batches"]
    index = open_data(Path(settings["data"]), val_fraction=settings["val_fraction"]).index
    batch = synthetic_batch(training_plan(index, resolution, settings["batch_size"]), cpu)
    learner = build_tuning(ModelSpec(settings["model"], len(index.classes)), "all", resolution, cpu).learner
    steps = bare_steps(learner, batch)
    for _ in islice(steps, WARM_UP):
        pass
    started = time.perf_counter()
    for _ in islice(steps, number):
        pass
    speed = number * len(batch) / (time.perf_counter() - started)
    print(json.dumps({"images_per_s": speed, "host_mib": peak_host_mib()}))  # noqa: T201 - it is what it is run for


if __name__ == "__main__":
    main()
