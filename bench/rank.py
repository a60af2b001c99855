"""One of several processes under torchrun: the loader alone, then the loader with training steps.

    python -m torch.distributed.run --nproc-per-node 2 bench/rank.py '{"data": …}'

Prints one line of JSON from the first process: images/s of all of them together, and the threads that each has.
`bench/scaling.py` runs it.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from dali_fixres.runtime.system import prepare_host

prepare_host()  # as the command line does, before torch is loaded

import torch
from learners import build_tuning
from loaders import TAIL, WARM_UP, training_plan
from stages import silent_bar

from dali_fixres.training.statistics import EpochStatistics
from dali_fixres.models import ModelSpec
from dali_fixres.runtime.decoding import decoding_for
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import World, process_group
from dali_fixres.runtime.progress import Reporter
from dali_fixres.training.loop import EpochMeter, Learner, train
from pipelines import Loader
from pipelines.dataset import open_dataset
from pipelines.plan import TrainPlan
from pipelines.plan.batch_plan import BatchPlan
from pipelines.processes import loader_threads
from pipelines.resolution import Resolution


def main() -> None:
    """Measure both, and print."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    device = choose_device(settings["device"])
    with process_group(device) as world:
        with world.local_main_first():
            dataset = open_dataset(Path(settings["data"]), val_fraction=settings["val_fraction"])
        resolution, size = Resolution(settings["res"]), settings["batch_size"]
        plan = replace(training_plan(dataset, resolution, size), rank=world.rank, world_size=world.size)
        tuning = build_tuning(ModelSpec(settings["model"], len(dataset.classes)), "all", resolution, device, world)
        decoding = decoding_for(device, world, Reporter(quiet=True))
        with Loader(
            dataset, max_batch_size=size, device=device, num_threads=loader_threads(), decoding=decoding
        ) as loader:
            speeds = {
                stage: images_per_s(loader, plan, settings["num_batches"][stage], learner, device, world)
                for stage, learner in (("loader", None), ("training", tuning.learner))
            }
        if world.is_main:
            threads = {"threads": loader_threads(), "torch_threads": torch.get_num_threads()}
            print(json.dumps({**threads, "images_per_s": speeds}), flush=True)  # noqa: T201 - the result


def images_per_s(
    loader: Loader, plan: TrainPlan, num_batches: int, learner: Learner | None, device: torch.device, world: World
) -> float:
    """Return images/s of all processes, once they run: of the loader alone, or of a learner's steps on its batches."""
    batches = loader.run(endless(plan, WARM_UP + num_batches + TAIL))
    rounds = batches if learner is None else train(learner, batches, 0, EpochMeter(silent_bar(), EpochStatistics()))
    return plan.batch_size * world.size * num_batches / seconds_of(rounds, num_batches, device, world)


def endless(plan: TrainPlan, num_batches: int) -> Iterator[BatchPlan]:
    """Yield the plans of one epoch after the other, as many as are asked for."""
    return islice(chain.from_iterable(map(plan.epoch, count())), num_batches)


def seconds_of(rounds: Iterator[object], number: int, device: torch.device, world: World) -> float:
    """Return how long some rounds take all processes, with others before and after them."""
    for _ in islice(rounds, WARM_UP):
        pass
    _wait_for_all(device, world)
    started = time.perf_counter()
    for _ in islice(rounds, number):
        pass
    _wait_for_all(device, world)
    seconds = time.perf_counter() - started
    for _ in rounds:
        pass
    return seconds


def _wait_for_all(device: torch.device, world: World) -> None:
    """Wait for what this process has given its device to do, and then for the other processes to have done so."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    world.barrier()


if __name__ == "__main__":
    main()
