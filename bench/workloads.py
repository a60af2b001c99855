"""What benches run: plans, networks and training steps, and the clock around them."""

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from bench.harness import Effort
from bench.segment import Segment
from dali_fixres.config import Precision
from dali_fixres.models import ModelSpec, build_model, find_head
from dali_fixres.runtime import auto_precision
from dali_fixres.training import LearningRate, TrainingSetup, build_optimizer, build_scaler, train_step
from pipelines import (
    AUGMENTATIONS,
    Batch,
    BatchPlan,
    Dataset,
    Loader,
    Resolution,
    Schedule,
    TrainPlan,
    loader_threads,
)

__all__ = [
    "build_setup",
    "default_model",
    "endless",
    "open_loader",
    "read_from_storage",
    "running",
    "steps",
    "synthetic_batch",
    "timed",
    "training_plan",
    "wait",
]

T = TypeVar("T")

LEAST_BATCHES = 2
"""Timed batches of a repeat, however long they take."""

AHEAD = 4
"""Batches before the clock starts, so that those which the loader has made ahead are used up."""


def training_plan(dataset: Dataset, resolution: Resolution, batch_size: int, color_jitter: float = 0.0) -> TrainPlan:
    """Return the plan of a training at one resolution; without colour jitter, which the baselines do not have."""
    augmentation = replace(AUGMENTATIONS["train"], jitter=color_jitter)
    return TrainPlan(dataset, augmentation, Schedule.parse(str(resolution.crop_px)), batch_size)


def endless(plan: TrainPlan) -> Iterator[BatchPlan]:
    """Yield the plans of one epoch after the other.

    Each call starts anew, with images that are in the system's cache by then: that leaves storage out.
    """
    return chain.from_iterable(plan.epoch(epoch) for epoch in count())


def open_loader(
    dataset: Dataset, batch_size: int, device: torch.device, num_threads: int | None = None, prefetch: int = 2
) -> Loader:
    """Build our loader with the default number of threads, or another."""
    threads = num_threads or loader_threads()
    return Loader(dataset, max_batch_size=batch_size, device=device, num_threads=threads, prefetch=prefetch)


@contextmanager
def running(loader: Loader, plans: Iterator[BatchPlan]) -> Iterator[Iterator[Batch]]:
    """Run endless plans; at the end, finish the batches under way, which would disturb what is measured next."""
    yield loader.run(plans)
    loader.run(())


def read_from_storage(dataset: Dataset, plans: Iterable[BatchPlan], pool: ThreadPoolExecutor) -> Iterator[int]:
    """Read the files of each plan, which the system is told to forget first; yield the bytes of each batch.

    Shards stay mapped into memory, so what is measured there is reading from the system's cache.
    """

    def read(row: int, copy: int) -> int:
        if dataset.in_shards:
            return len(dataset.read(row, copy).tobytes())
        with Path(os.fsdecode(dataset.file(row, copy))).open("rb", buffering=0) as file:
            os.fdatasync(file)  # what is not written yet would be kept
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return len(file.read())

    for plan in plans:
        yield sum(pool.map(read, plan.ids.tolist(), plan.copy_ids.tolist()))


def default_model(device: torch.device) -> str:
    """Return the network that is trained where none is named: on a CPU one so small that the loader matters."""
    return "resnet50" if device.type == "cuda" else "timm/mobilenetv3_small_050"


def build_setup(
    spec: ModelSpec,
    resolution: Resolution,
    device: torch.device,
    learns: Literal["all", "head"] = "all",
    precision: Precision | None = None,
) -> TrainingSetup:
    """Build a network with random weights and what it is trained with.

    The learning rate is so low that it can train on a few batches again and again.

    Args:
        spec: The network.
        resolution: Of images that it has to take.
        device: Where it is.
        learns: All parameters, or those of the classifier and the last norm.
        precision: What it runs in; as `--precision auto` if left out.
    """
    torch.manual_seed(0)
    precision = precision or auto_precision(device)
    network = build_model(spec).network.to(device).to(memory_format=torch.channels_last)
    head = find_head(network, resolution)
    if learns == "head":
        network.requires_grad_(requires_grad=False)
        for part in filter(None, (head.classifier, head.norm)):
            part.requires_grad_(requires_grad=True)

    def set_mode() -> None:
        network.train(learns == "all")
        if head.norm is not None:
            head.norm.train()

    return TrainingSetup(
        network=network,
        forward=network,
        optimizer=build_optimizer(network, momentum=0.9, weight_decay=1e-4, precision=precision),
        learning_rate=LearningRate(peaks=((0, 1e-6),), num_steps=10**9, warmup_steps=0, decay="cosine"),
        seed_of=lambda step: step,
        set_mode=set_mode,
        label_smoothing=0.0,
        clip_grad=None,
        precision=precision,
        scaler=build_scaler(precision, device),
    )


def steps(setup: TrainingSetup, batches: Iterable[Batch]) -> Iterator[torch.Tensor]:
    """Take the training steps of `dali-fixres train`; yield the loss of each."""
    setup.set_mode()
    return (train_step(setup, batch, step) for step, batch in enumerate(batches))


def synthetic_batch(plan: TrainPlan, device: torch.device) -> Batch:
    """Return noise on the device, in the memory format of the loader."""
    side = plan.schedule.last.crop_px
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    return Batch(
        noise.expand(plan.batch_size, -1, -1, -1).contiguous(memory_format=torch.channels_last),
        torch.arange(plan.batch_size, device=device) % len(plan.dataset.classes),
        np.arange(plan.batch_size),
        plan.schedule.last,
    )


def timed(work: Iterator[Any], batch_size: int, effort: Effort, device: torch.device, ahead: int = AHEAD) -> Segment:
    """Time endless work that does a batch at a time, until the effort's batches or seconds are reached."""
    for _ in islice(work, ahead):
        pass
    wait(device)
    cpu, started = time.process_time(), time.perf_counter()
    done = 0
    while done < LEAST_BATCHES or (done < effort.num_batches and time.perf_counter() - started < effort.seconds):
        next(work)
        done += 1
    wait(device)
    seconds = time.perf_counter() - started
    return Segment.of(done * batch_size, seconds, time.process_time() - cpu)


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
