"""What a training consists of, each part measured by itself and together: the measures of `throughput.py`."""

import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice, repeat, takewhile
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from graphs import GraphPart
from rich.console import Console
from torch import nn
from verdict import STORAGE

from dali_fixres.evaluation.evaluate import evaluate
from dali_fixres.training.statistics import EpochStatistics
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.precision import forward_precision
from dali_fixres.runtime.progress import Bar
from dali_fixres.runtime.signals import StopSignals
from dali_fixres.checkpoints.checkpoint import CheckpointClock
from dali_fixres.training.loop import EpochMeter, Learner, train
from dali_fixres.training.optimizer import LearningRate, build_optimizer
from pipelines import Loader
from pipelines.batch import Batch
from pipelines.dali.inputs import GraphInputs, graph_inputs
from pipelines.dataset import Dataset
from pipelines.plan import TrainPlan, step_seed
from pipelines.plan.batch_plan import BatchPlan
from pipelines.plan.colour import IMAGENET

__all__ = ["OURS", "SHOWN", "Limits", "Repeat", "Stages", "learner_of", "peak_host_mib"]

OURS = "dali-fixres"

SHOWN = (STORAGE, "read", "decode", "loader", "train step", "bare step", "together", "evaluation")
"""Stages whose figures are shown as they are."""

WARM_UP = 2
"""Batches before the clock starts: threads are awake by then, and a loader is as far ahead as it will be."""

PREFETCH = 2
"""Batches that a graph is ahead of the one in use."""

LEAST = 2
"""Timed batches of a repeat, however long they take."""

T = TypeVar("T")

Clock = Callable[[], float]


class Limits(NamedTuple):
    """When a repeat has lasted long enough: whichever is reached first."""

    num_batches: int
    seconds: float


class Repeat(NamedTuple):
    """What one repeat of a measure has found.

    Attributes:
        images_per_s: Of wall time; for ``python`` and ``null step``, of CPU time of the main thread.
        cores: CPU time of the process over wall time; None of a peer, whose processes are not known.
        device_mib: Memory in use on the GPU at its end, DALI's and torch's; 0 without one.
    """

    images_per_s: float
    cores: float | None
    device_mib: int


class Stopwatch:
    """Measures from its making on.

    Args:
        device: Waited for at both ends, but not at the end of CPU time: waiting may spin.
        clock: What seconds are counted by.
    """

    def __init__(self, device: torch.device, clock: Clock = time.perf_counter) -> None:
        self._device = device
        self._clock = clock
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self._wall, self._cpu, self._started = time.perf_counter(), time.process_time(), clock()

    def some_of(self, work: Iterator[T], limits: Limits) -> Iterator[T]:
        """Yield of something endless until the limits are reached."""
        done = 0
        while done < LEAST or (done < limits.num_batches and time.perf_counter() - self._wall < limits.seconds):
            yield next(work)
            done += 1

    def read(self, num_images: int) -> Repeat:
        """Return what a repeat over so many images has found."""
        on_gpu = self._device.type == "cuda"
        if on_gpu and self._clock is time.perf_counter:
            torch.cuda.synchronize(self._device)
        seconds, wall = self._clock() - self._started, time.perf_counter() - self._wall
        return Repeat(
            images_per_s=num_images / seconds,
            cores=(time.process_time() - self._cpu) / wall,
            device_mib=_device_mib(self._device) if on_gpu else 0,
        )


class Null(nn.Module):
    """A network that costs nothing: what is left of a step is the loop's own."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the same logits for every image."""
        return self.bias.expand(len(images), -1)


@dataclass(frozen=True, slots=True, eq=False)
class Stages:
    """The measures of a data set, a network and a device.

    Attributes:
        loader: Ours.
        parts: The beginnings of its graph, by name: up to reading, up to decoding.
        learner: The network, and how it learns.
        device: Where it learns.
        limits: Of a repeat.
    """

    loader: Loader
    parts: Mapping[str, GraphPart]
    learner: Learner
    device: torch.device
    limits: Limits

    def of(self, plan: TrainPlan) -> dict[str, Callable[[], Repeat]]:
        """Return the measures at a plan's resolution, by stage."""
        null = learner_of(Null(len(plan.dataset.classes)).to(self.device))
        stages: dict[str, Callable[[], Repeat]] = {
            STORAGE: partial(self._from_storage, plan),
            **{name: partial(self._cached, part, plan) for name, part in self.parts.items()},
            "loader": partial(self._loader_alone, plan),
            "train step": partial(self._train_step, plan),
            "together": lambda: self._together(plan, self.learner),
            "evaluation": partial(self._evaluation, plan),
            "python": lambda: self._together(plan, null, time.thread_time),
            "null step": lambda: self._bare_step(plan, null, time.thread_time),
        }
        if self.device.type == "cuda":
            stages["bare step"] = lambda: self._bare_step(plan, self.learner)
        return stages

    def _from_storage(self, plan: TrainPlan) -> Repeat:
        """Read images that the system does not hold in memory any more."""
        ahead = list(islice(epochs_of(plan), WARM_UP + max(LEAST, self.limits.num_batches) + PREFETCH))
        forget(
            plan.dataset, {file for one in ahead for file in zip(one.ids.tolist(), one.copy_ids.tolist(), strict=True)}
        )
        return self._part(self.parts["read"], plan, ahead)

    def _part(self, part: GraphPart, plan: TrainPlan, plans: Iterable[BatchPlan]) -> Repeat:
        with worked_off(lambda ordered: part.run(_inputs(part, plan, ordered)), iter(plans)) as outputs:
            return self._timed(outputs, plan.batch_size)

    def _cached(self, part: GraphPart, plan: TrainPlan) -> Repeat:
        return self._part(part, plan, epochs_of(plan))

    def _loader_alone(self, plan: TrainPlan) -> Repeat:
        with worked_off(self.loader.run, epochs_of(plan)) as batches:
            return self._timed(batches, plan.batch_size)

    def _together(self, plan: TrainPlan, learner: Learner, clock: Clock = time.perf_counter) -> Repeat:
        with worked_off(self.loader.run, epochs_of(plan)) as batches:
            return self._timed(steps(learner, batches), plan.batch_size, clock)

    def _train_step(self, plan: TrainPlan) -> Repeat:
        batch = synthetic_batch(plan, self.device)
        return self._timed(steps(self.learner, repeat(batch)), len(batch))

    def _bare_step(self, plan: TrainPlan, learner: Learner, clock: Clock = time.perf_counter) -> Repeat:
        batch = synthetic_batch(plan, self.device)
        return self._timed(bare_steps(learner, batch), len(batch), clock)

    def _evaluation(self, plan: TrainPlan) -> Repeat:
        network, same = self.learner.network, repeat(synthetic_batch(plan, self.device))
        evaluate(network, islice(same, WARM_UP), WARM_UP, silent_bar())
        watch = Stopwatch(self.device)
        counts = evaluate(network, watch.some_of(same, self.limits), self.limits.num_batches, silent_bar())
        return watch.read(int(counts[2]))

    def _timed(self, work: Iterator[Any], batch_size: int, clock: Clock = time.perf_counter) -> Repeat:
        """Time something endless that takes a batch at a time."""
        for _ in islice(work, WARM_UP):
            pass
        watch = Stopwatch(self.device, clock)
        return watch.read(batch_size * sum(1 for _ in watch.some_of(work, self.limits)))


def _inputs(part: GraphPart, plan: TrainPlan, plans: Iterator[BatchPlan]) -> Iterator[GraphInputs]:
    return (graph_inputs(one, plan.dataset, IMAGENET, decode_region=part.decode_region) for one in plans)


def epochs_of(plan: TrainPlan) -> Iterator[BatchPlan]:
    """Return the plans of one epoch after the other.

    Begun anew, it is the same images again, which the system remembers by then: that leaves out storage.
    """
    return chain.from_iterable(plan.epoch(epoch) for epoch in count())


def forget(dataset: Dataset, files: Iterable[tuple[int, int]]) -> None:
    """Have the system give up what it remembers of images, so that the next reading is one from storage.

    Shards are mapped into memory, and stay there.

    Args:
        index: Of the images.
        files: Row and resized copy of each.
    """
    if dataset.in_shards:
        return
    for row, copy in files:
        with Path(os.fsdecode(dataset.file(row, copy))).open("rb") as file:
            os.fdatasync(file)  # what is not yet written would be kept
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def worked_off(run: Callable[[Iterator[BatchPlan]], Iterator[T]], plans: Iterator[BatchPlan]) -> Iterator[Iterator[T]]:
    """Let something run on endless plans; at the end it finishes what it has begun.

    Otherwise that would disturb what is measured next.
    """
    ended: list[bool] = []
    made = run(takewhile(lambda _: not ended, plans))
    yield made
    ended.append(True)
    for _ in made:
        pass


def steps(learner: Learner, batches: Iterable[Batch]) -> Iterator[int]:
    """Take the steps that `dali-fixres train` takes, with what it does between them."""
    stop_signals, clock = StopSignals(World()), CheckpointClock(10, "min")
    for step in train(learner, batches, 0, EpochMeter(silent_bar(), EpochStatistics())):
        stop_signals.poll(save=clock.due(step))
        yield step


def bare_steps(learner: Learner, batch: Batch) -> Iterator[None]:
    """Take steps on a batch with nothing around them."""
    learner.set_mode()
    criterion = nn.CrossEntropyLoss(label_smoothing=learner.label_smoothing)
    while True:
        with forward_precision(batch.images.device):
            loss = criterion(learner.forward(batch.images), batch.labels)
        learner.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        learner.optimizer.step()
        yield


def learner_of(network: nn.Module) -> Learner:
    """Return what `dali-fixres train` learns with, at a rate so low that made-up images do no harm."""
    return Learner(
        network=network,
        forward=network,
        optimizer=build_optimizer(network, momentum=0.9, weight_decay=1e-4),
        learning_rate=LearningRate(peaks=((0, 1e-6),), num_steps=10**9, warmup_steps=0, decay="cosine"),
        seed_of=partial(step_seed, 0, 0),
        set_mode=network.train,
        label_smoothing=0.0,
        clip_grad=None,
    )


def synthetic_batch(plan: TrainPlan, device: torch.device) -> Batch:
    """Return an image of noise, many times over, that lies on the device in the format that the loader hands over."""
    side = plan.schedule.last.crop_px
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    return Batch(
        noise.expand(plan.batch_size, -1, -1, -1).contiguous(memory_format=torch.channels_last),
        torch.arange(plan.batch_size, device=device) % len(plan.dataset.classes),
        np.arange(plan.batch_size),
        plan.schedule.last,
    )


def silent_bar() -> Bar:
    """Return a bar that shows nothing."""
    return Bar("", 1, Console(quiet=True), live=None)


def peak_host_mib() -> int:
    """Return the most memory that this process has had, MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _device_mib(device: torch.device) -> int:
    free, total = torch.cuda.mem_get_info(device)
    return round((total - free) / 2**20)
