"""One of several processes under torchrun: the loader alone, then the loader with training steps.

    python -m torch.distributed.run --nproc-per-node 2 bench/rank.py '{"data": …}'

Prints one line of JSON from the first process: images/s of all of them together. `bench/scaling.py` runs it.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

# As the command line does, and for the same reason; it is read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from learners import build_tuning
from loaders import TAIL, WARM_UP, training_plan

from dali_fixres.batch import BatchPlan
from dali_fixres.devices import choose_device
from dali_fixres.distributed import World, joined
from dali_fixres.index import open_data
from dali_fixres.metrics import Tally
from dali_fixres.models import ModelSpec
from dali_fixres.plan import TrainPlan
from dali_fixres.processes import loader_threads
from dali_fixres.report.progress import Reporter
from dali_fixres.resolution import Resolution
from dali_fixres.training import Meter, train
from pipelines import Loader


def main() -> None:
    """Measure both, and print."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    device = choose_device(settings["device"])
    with joined(device) as world:
        with world.one_by_one_on_a_node():
            index = open_data(Path(settings["data"]), val_fraction=settings["val_fraction"]).index
        resolution, size, number = Resolution(settings["res"]), settings["batch_size"], settings["num_batches"]
        plan = replace(training_plan(index, resolution, size), rank=world.rank, world_size=world.size)
        tuning = build_tuning(ModelSpec(settings["model"], len(index.classes)), "all", resolution, device, world)
        found = {}
        with Loader(index, max_batch_size=size, device=device, num_threads=loader_threads()) as loader:
            for stage in ("loader", "loader and train step"):
                batches = loader.run(endless(plan, WARM_UP + number + TAIL))
                with Reporter(quiet=True).bar(stage, 1) as bar:
                    rounds: Iterator[object] = (
                        batches if stage == "loader" else train(tuning.learner, batches, 0, Meter(bar, Tally()))
                    )
                    found[stage] = size * world.size * number / seconds_of(rounds, number, device, world)
        if world.is_main:
            print(json.dumps(found), flush=True)  # noqa: T201 - the result


def endless(plan: TrainPlan, num_batches: int) -> Iterator[BatchPlan]:
    """Yield the plans of one epoch after the other, as many as are asked for."""
    return islice(chain.from_iterable(map(plan.epoch, count())), num_batches)


def seconds_of(rounds: Iterator[object], number: int, device: torch.device, world: World) -> float:
    """Return how long some rounds take all processes, with others before and after them."""
    for _ in islice(rounds, WARM_UP):
        pass
    world.barrier()
    started = time.perf_counter()
    for _ in islice(rounds, number):
        pass
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    world.barrier()
    seconds = time.perf_counter() - started
    for _ in rounds:
        pass
    return seconds


if __name__ == "__main__":
    main()
