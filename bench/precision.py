"""What a number format costs: training and testing in float32, bfloat16 and, on a GPU, float16.

Timed are steps and forward passes on batches in memory, so the loader is left out. On a shared machine look at the core
time of an image: it counts what this process computes, and not how long it waits for cores.

    uv run python -m bench.precision
    uv run python -m bench.precision --model resnet50 --res 128,224
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import torch

from bench.harness import Bench, Flags, Key, Table, in_rounds, segment_row
from bench.saved import Content
from bench.segment import Segment
from bench.workloads import build_setup, steps, synthetic_batch, timed, training_plan
from dali_fixres.config import Precision
from dali_fixres.models import ModelSpec
from dali_fixres.runtime import Reporter, run_network
from dali_fixres.training import TrainingSetup
from pipelines import Batch, Dataset

TRAIN, TEST = "train step", "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionFlags(Flags):
    """Flags."""

    model: str = "timm/mobilenetv2_100"
    """The network, with random weights."""


def measure(flags: PrecisionFlags, dataset: Dataset, reporter: Reporter) -> dict[str, Any]:
    """Time every format at every resolution."""
    found = in_rounds(_work(flags, dataset), flags.effort.repeats, reporter, str)
    rows = [segment_row(key, segments) for key, segments in found.items()]
    return {"model": flags.model, "results": rows}


def _work(flags: PrecisionFlags, dataset: Dataset) -> dict[Key, Callable[[], Segment]]:
    """Return what to time. A key's loader is the number format."""
    device, work = flags.torch_device, dict[Key, Callable[[], Segment]]()
    formats: tuple[Precision, ...] = ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32", "bf16")
    spec = ModelSpec(flags.model, len(dataset.classes))
    setups = {name: build_setup(spec, flags.resolutions[0], device, precision=name) for name in formats}
    clock = partial(timed, batch_size=flags.batch_size, effort=flags.effort, device=device, ahead=1)

    def run(stage: str, name: Precision, batch: Batch) -> Segment:
        return clock(steps(setups[name], repeat(batch)) if stage == TRAIN else _tests(setups[name], batch))

    for resolution in flags.resolutions:
        batch = synthetic_batch(training_plan(dataset, resolution, flags.batch_size), device)
        for stage in (TRAIN, TEST):
            work |= {Key(stage, name, resolution.crop_px): partial(run, stage, name, batch) for name in formats}
    return work


@torch.inference_mode()
def _tests(setup: TrainingSetup, batch: Batch) -> Iterator[None]:
    setup.network.eval()
    while True:
        run_network(setup.network, batch.images, setup.precision)
        yield


def tables(content: Content) -> list[Table]:
    """Return speed and core time of each format, and the ratios to float32 by round."""
    rows = {(row["stage"], row["loader"], row["res"]): row for row in content["results"]}
    sides = sorted({res for *_, res in rows})
    order = [(stage, side) for stage in (TRAIN, TEST) for side in sides]
    headings = ("", *(f"{stage}, {side} px" for stage, side in order))
    speed, cost = [], []
    for name in dict.fromkeys(loader for _, loader, _ in rows):
        of = [rows[stage, name, side] for stage, side in order]
        base = [rows[stage, "fp32", side] for stage, side in order]
        speed.append([name, *(f"{row['images_per_s']:.0f}" for row in of)])
        cost.append([name, *(f"{row['core_ms']:.2f}" for row in of)])
        if name != "fp32":
            pairs = list(zip(of, base, strict=True))
            speed.append([f"{name} / fp32", *(_ratio(pair, "repeats") for pair in pairs)])
            cost.append([f"{name} / fp32", *(_ratio(pair, "repeats_core_ms") for pair in pairs)])
    return [
        Table(f"Images/s of {content['model']}, and ratios by round", headings, speed),
        Table("Core time of an image, ms, and ratios by round", headings, cost),
    ]


def _ratio(pair: tuple[dict[str, Any], dict[str, Any]], repeats: str) -> str:
    """Return the median, over rounds, of how many times one is the other."""
    one, other = pair
    return (
        f"{statistics.median(first / second for first, second in zip(one[repeats], other[repeats], strict=True)):.2f}"
    )


BENCH = Bench("precision", __doc__, PrecisionFlags, measure, tables)

if __name__ == "__main__":
    BENCH.main()
