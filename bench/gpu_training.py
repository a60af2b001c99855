"""Training on a GPU: how long the host waits for data, and what bare steps take."""

import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, Literal

import torch
from loaders import training_plan
from pictures import bench_pictures
from stages import bare_steps, epochs_of, learner_of, silent_bar, synthetic_batch, worked_off

from dali_fixres.commands.learner import prepare
from dali_fixres.index import Index, open_data
from dali_fixres.metrics import Tally
from dali_fixres.models import ModelSpec, build_model
from dali_fixres.processes import loader_threads
from dali_fixres.resolution import Resolution
from dali_fixres.training import Meter, train
from pipelines import Decoding, Loader

__all__ = ["mean_utilisation", "measured_steps", "measured_waits"]

CUDA = torch.device("cuda")

WARM_UP = 10
"""Steps."""


def measured_waits(decoding: Decoding, batch_size: int, num_steps: int) -> dict[str, Any]:
    """Train ResNet-50 on the loader's batches at two resolutions."""
    index = open_data(bench_pictures()).index
    learner = learner_of(_network("resnet50", index))
    rows = []
    with Loader(
        index, max_batch_size=batch_size, device=CUDA, num_threads=loader_threads(), decoding=decoding
    ) as loader:
        for res in (128, 224):
            with worked_off(loader.run, epochs_of(training_plan(index, Resolution(res), batch_size))) as batches:
                for _ in train(learner, islice(batches, WARM_UP), 0, Meter(silent_bar(), Tally())):
                    pass
                meter = Meter(silent_bar(), Tally())
                with utilisation() as seen:
                    for _ in train(learner, islice(batches, num_steps), 0, meter):
                        pass
                    tally = meter.tally()
            speed = round(tally.num_images / tally.seconds, 1)
            share = round(tally.waited_s / tally.seconds, 5)
            rows.append({"res": res, "wait_share": share, "images_per_s": speed, "gpu_busy": mean_utilisation(seen)})
    return {"results": rows}


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
        yield lines
        process.terminate()
        lines += process.communicate()[0].splitlines()


def mean_utilisation(lines: list[str]) -> float | None:
    """Return the mean of what nvidia-smi has said, 0-1, or None if it has said no number."""
    found = [int(line) for line in lines if line.strip().isdecimal()]
    return round(statistics.mean(found) / 100, 3) if found else None


@dataclass(frozen=True, slots=True)
class Step:
    """A step to measure: which network, on what, and how it is called."""

    model: str
    batch_size: int
    res: int
    how: Literal["eager", "compiled", "CUDA graphs"] = "eager"


STEPS = (
    *(Step("resnet50", 256, res) for res in (128, 224)),
    Step("resnet50", 256, 128, "compiled"),
    *(Step("resnet50", size, 128) for size in (512, 1024)),
    *(Step("resnet18", 1024, res) for res in (128, 224)),
    *(Step("resnet50", size, 224) for size in (512, 1024)),
    Step("resnet50", 256, 128, "CUDA graphs"),
    Step("resnet50", 256, 224, "compiled"),
    *(Step("resnet50", 256, res) for res in (160, 320)),
)
"""What matters most comes first."""


def measured_steps(seconds: float) -> dict[str, Any]:
    """Measure as many of the steps as the time allows."""
    index = open_data(bench_pictures()).index
    ends = time.monotonic() + seconds
    rows: list[dict[str, Any]] = []
    for number, step in enumerate(STEPS):
        if time.monotonic() > ends:
            return {"results": rows, "left_out": [asdict(left) for left in STEPS[number:]]}
        try:
            rows.append({**asdict(step), **_step_speed(step, index)})
        except torch.OutOfMemoryError:
            rows.append({**asdict(step), "problem": "out of memory"})
    return {"results": rows, "left_out": []}


def _step_speed(step: Step, index: Index) -> dict[str, float]:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    network = _network(step.model, index)
    called: Any = network
    if step.how != "eager":
        mode = "reduce-overhead" if step.how == "CUDA graphs" else "default"
        called = torch.compile(network, dynamic=False, mode=mode)
    learner = replace(learner_of(network), forward=called)
    work = bare_steps(learner, synthetic_batch(training_plan(index, Resolution(step.res), step.batch_size), CUDA))
    started = time.monotonic()
    for _ in islice(work, 5):
        pass
    torch.cuda.synchronize()
    warm_up_s = time.monotonic() - started
    started, done = time.monotonic(), 0
    while time.monotonic() - started < 1:
        done += sum(1 for _ in islice(work, 5))
        torch.cuda.synchronize()
    return {
        "images_per_s": round(done * step.batch_size / (time.monotonic() - started), 1),
        "warm_up_s": round(warm_up_s, 2),
        "device_mib": round(torch.cuda.max_memory_allocated() / 2**20),
    }


def _network(model: str, index: Index) -> torch.nn.Module:
    return prepare(build_model(ModelSpec(model, len(index.classes)), pretrained=False).network, CUDA, sync_bn=False)
