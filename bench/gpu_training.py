"""Training on a GPU: what the loader costs, who waits for data, bare steps, compiled ones, CUDA graphs."""

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any, Literal

import torch
from gpu_loader import gpu_loader
from gpu_rows import Row
from loaders import training_plan
from pictures import bench_pictures
from stages import Limits, Stages, bare_steps, epochs_of, learner_of, silent_bar, synthetic_batch, worked_off
from torch import nn

from dali_fixres.batch import Batch
from dali_fixres.commands.learner import prepare
from dali_fixres.compiled import compiled
from dali_fixres.index import Index, open_data
from dali_fixres.metrics import Tally
from dali_fixres.models import ModelSpec, build_model
from dali_fixres.precision import forward_precision
from dali_fixres.resolution import Resolution
from dali_fixres.training import Learner, Meter, train
from pipelines import Decoding, Loader

__all__ = [
    "BATCH",
    "COMPILED",
    "STEPS",
    "TURNS",
    "compiled_speed",
    "mean_utilisation",
    "measured_waits",
    "step_speed",
    "timed_turns",
    "utilisation",
]

CUDA = torch.device("cuda")

_cuda: Any = torch.cuda
"""Parts of it have no types."""

BATCH = 256

RESOLUTIONS = (128, 224)
"""Those that goals are stated for."""

WARM_UP = 10
"""Steps."""

LEAST_S = 1.0
"""Of a measure whose figure no goal is about."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A repeat of a measure: of steps on the loader's batches (``together``), or on one batch (``train step``)."""

    repeat: int
    res: int
    stage: Literal["train step", "together"]


TURNS = tuple(
    Turn(repeat, res, stage) for repeat in range(3) for res in RESOLUTIONS for stage in ("train step", "together")
)
"""Interleaved, so that a card that slows down slows both."""


@contextmanager
def timed_turns(decoding: Decoding, seconds: float) -> Iterator[Callable[[Turn], Row]]:
    """Hand over what takes a turn of so many seconds with ResNet-50; all have one loader and one network."""
    index = open_data(bench_pictures()).index
    with gpu_loader(index, decoding, BATCH) as loader:
        stages = Stages(loader, {}, learner_of(_network("resnet50", index)), CUDA, Limits(10**9, seconds))

        def timed(turn: Turn) -> Row:
            found = stages.of(training_plan(index, Resolution(turn.res), BATCH))[turn.stage]()
            return {"images_per_s": round(found.images_per_s, 1), "device_mib": found.device_mib}

        yield timed


def measured_waits(decoding: Decoding, num_steps: int) -> Row:
    """Train ResNet-50 on the loader's batches at two resolutions, and see who waits how long."""
    index = open_data(bench_pictures()).index
    learner = learner_of(_network("resnet50", index))
    with gpu_loader(index, decoding, BATCH) as loader:
        blocked = noted_blocking(loader)
        return {"results": [_waits(loader, learner, index, res, num_steps, blocked) for res in RESOLUTIONS]}


def noted_blocking(loader: Loader) -> list[float]:
    """Let a loader note how long it is blocked for each batch, in seconds, until DALI hands one over.

    The rest of what a batch takes the host is planning and feeding, which it does while the GPU computes.
    """
    pipeline: Any = loader._pipeline  # noqa: SLF001 - the loader has no use for this itself
    outputs, blocked = pipeline.outputs, []

    def timed(*stream: object) -> object:
        started = time.perf_counter()
        try:
            return outputs(*stream)
        finally:
            blocked.append(time.perf_counter() - started)

    pipeline.outputs = timed
    return blocked


def _waits(loader: Loader, learner: Learner, index: Index, res: int, num_steps: int, blocked: list[float]) -> Row:
    marks = Marks()
    with worked_off(loader.run, epochs_of(training_plan(index, Resolution(res), BATCH))) as batches:
        _take(learner, islice(batches, WARM_UP))
        blocked.clear()
        with utilisation() as seen:
            tally = _take(learner, marks.between(islice(batches, num_steps)))
        blocked_s = sum(blocked)
    return {
        "res": res,
        "images_per_s": round(tally.num_images / tally.seconds, 1),
        "starved_share": round(marks.starved_share(), 5),
        "blocked_share": round(blocked_s / tally.seconds, 5),
        "feeding_share": round((tally.waited_s - blocked_s) / tally.seconds, 5),
        "gpu_busy": mean_utilisation(seen),
    }


def _take(learner: Learner, batches: Iterable[Batch]) -> Tally:
    meter = Meter(silent_bar(), Tally())
    for _ in train(learner, batches, 0, meter):
        pass
    return meter.tally()


class Marks:
    """Marks in the GPU's own stream where each step begins and ends: between an end and a beginning it has no data."""

    def __init__(self) -> None:
        self._steps: list[tuple[Any, Any]] = []

    def between(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on; whoever asks for the next has ordered all work on the one before."""
        for batch in batches:
            begin = _mark()
            yield batch
            self._steps.append((begin, _mark()))

    def starved_share(self) -> float:
        """Return what the GPU has spent between steps, of the time from the first to the last (0-1)."""
        torch.cuda.synchronize(CUDA)
        gaps = (end.elapsed_time(begin) for (_, end), (begin, _) in pairwise(self._steps))
        return float(sum(gaps) / self._steps[0][0].elapsed_time(self._steps[-1][1]))


def _mark() -> Any:
    event = _cuda.Event(enable_timing=True)
    event.record()
    return event


@contextmanager
def utilisation() -> Iterator[list[str]]:
    """Let nvidia-smi say five times a second how busy the first GPU is; the list has its lines at the end."""
    lines: list[str] = []
    program = shutil.which("nvidia-smi")
    if program is None:
        yield lines
        return
    command = [program, "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - NVIDIA's own
        try:
            yield lines
        finally:
            process.terminate()
            lines += process.communicate()[0].splitlines()


def mean_utilisation(lines: list[str]) -> float | None:
    """Return the mean of what nvidia-smi has said, 0-1, or None if it has said no number."""
    found = [int(line) for line in lines if line.strip().isdecimal()]
    return round(statistics.mean(found) / 100, 3) if found else None


@dataclass(frozen=True, slots=True)
class Step:
    """A bare step to measure: which network, on what."""

    model: str
    batch_size: int
    res: int


STEPS = (
    *(Step("resnet50", 256, res) for res in RESOLUTIONS),
    *(Step("resnet50", size, 128) for size in (512, 1024)),
    *(Step("resnet18", 1024, res) for res in RESOLUTIONS),
    *(Step("resnet50", size, 224) for size in (512, 1024)),
    *(Step("resnet50", 256, res) for res in (160, 320)),
)
"""What matters most comes first."""


def step_speed(step: Step) -> Row:
    """Measure a bare step, on one batch that lies on the GPU."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    index = open_data(bench_pictures()).index
    learner = learner_of(_network(step.model, index))
    work = bare_steps(learner, _synthetic(index, step.res, step.batch_size))
    try:
        speed = step.batch_size * _steps_per_s(work)
    except torch.OutOfMemoryError:
        return {"problem": "out of memory"}
    return {"images_per_s": round(speed, 1), "device_mib": round(torch.cuda.max_memory_allocated() / 2**20)}


def _steps_per_s(work: Iterator[object]) -> float:
    for _ in islice(work, WARM_UP):
        pass
    torch.cuda.synchronize(CUDA)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < LEAST_S:
        done += sum(1 for _ in islice(work, 5))
        torch.cuda.synchronize(CUDA)
    return done / (time.perf_counter() - started)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A way to let the host order less, and the resolution to try it at."""

    how: Literal["torch.compile", "CUDA graph"]
    res: int


COMPILED = (
    *(Compiled("CUDA graph", res) for res in RESOLUTIONS),
    *(Compiled("torch.compile", res) for res in RESOLUTIONS),
)
"""The quick ones come first."""


def compiled_speed(one: Compiled, decoding: Decoding) -> Row:
    """Prepare ResNet-50's step with a loader at work; measure it on one batch, and with the loader's batches."""
    index = open_data(bench_pictures()).index
    plan = training_plan(index, Resolution(one.res), BATCH)
    learner = learner_of(_network("resnet50", index))
    with gpu_loader(index, decoding, BATCH) as loader, worked_off(loader.run, epochs_of(plan)) as batches:
        first = next(batches)
        started = time.monotonic()
        take = (_graphed if one.how == "CUDA graph" else _compiled)(learner, first)
        prepared_s = time.monotonic() - started
        alone, together = (_steps_per_s(map(take, source)) for source in (_again(first), batches))
    return {
        "prepared_s": round(prepared_s, 2),
        "images_per_s": round(BATCH * alone, 1),
        "together_images_per_s": round(BATCH * together, 1),
    }


def _again(batch: Batch) -> Iterator[Batch]:
    while True:
        yield batch


def _compiled(learner: Learner, first: Batch) -> Callable[[Batch], None]:
    """Return a step as `train --compile` takes it."""
    shapes = [(len(first), first.resolution.crop_px)]
    learner = replace(learner, forward=compiled(learner.network, learner.forward, shapes, CUDA))
    learner.set_mode()
    return lambda batch: _step(learner, batch)


def _graphed(learner: Learner, first: Batch) -> Callable[[Batch], None]:
    """Return a step that is one CUDA graph: forward, backward and optimiser; a batch is copied to where it reads."""
    learner.set_mode()
    fixed = replace(first, images=first.images.clone(), labels=first.labels.clone())
    aside = _cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # what is made at the first steps must be there before the capture
        for _ in range(3):
            _step(learner, fixed)
    torch.cuda.current_stream().wait_stream(aside)
    learner.optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    # DALI frees the memory of batches on a thread of its own, which must not end the capture.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        _step(learner, fixed)

    def take(batch: Batch) -> None:
        fixed.images.copy_(batch.images)
        fixed.labels.copy_(batch.labels)
        graph.replay()

    return take


def _step(learner: Learner, batch: Batch) -> None:
    with forward_precision(batch.images.device):
        loss = nn.CrossEntropyLoss()(learner.forward(batch.images), batch.labels)
    learner.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    learner.optimizer.step()


def _synthetic(index: Index, res: int, batch_size: int) -> Batch:
    return synthetic_batch(training_plan(index, Resolution(res), batch_size), CUDA)


def _network(model: str, index: Index) -> nn.Module:
    return prepare(build_model(ModelSpec(model, len(index.classes)), pretrained=False).network, CUDA, sync_bn=False)
