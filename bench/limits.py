"""What this machine can do at all: memory bandwidth, arithmetic, JPEG decoding; and what networks ask of it.

    uv run python bench/limits.py
    uv run python bench/limits.py --data DIR --models resnet50 --json out.json

Copied are arrays far larger than the caches, by one thread per core; every byte counts twice, as it is read and
written. Matrices of 2048 x 2048 are multiplied by torch, in float32 on all cores, on a GPU in bfloat16. Floating-point
operations of a network are counted, not timed: a multiplication and an addition are two. Its classifier has as many
outputs as the data has classes.

Decoding whole images by Pillow (libjpeg-turbo) from memory on one core is no limit, but something to compare with:
a loader that decodes only the part it needs, or smaller copies, passes it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from dali_fixres.runtime.system import prepare_host

prepare_host()  # as the command line does, before torch is loaded

import numpy as np
import torch
from cyclopts import App, Parameter
from harness import Flags, Key, in_turns, open_bench_data, report, row_of, start
from matplotlib.figure import Figure
from PIL import Image
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from dali_fixres.config import Device
from dali_fixres.models import ModelSpec, build_model
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.progress import Reporter
from pipelines.dataset import TRAIN, Dataset
from pipelines.processes import usable_cores
from pipelines.resolution import Resolution

DECODE, COPY, MATMUL = "decode", "copy", "matmul"

MODELS = {"cpu": "timm/mobilenetv3_small_050,timm/mobilenetv2_100", "cuda": "resnet50,timm/mobilenetv2_100"}
"""What `throughput.py` and `finetune_cost.py` measure on a device if they are not told."""

COPIED_MIB = 256
"""By each thread."""

MOST_COPIED_MIB = 8192
"""By all cores together."""

SIDE = 2048
NUM_MATMULS = 4


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Flags):
    """Flags."""

    models: str | None = None
    """Networks whose operations are counted, with commas between; those of throughput.py and finetune_cost.py if left
    out."""

    device: Device = "auto"
    """Where matrices are multiplied."""


def main(bench: Bench) -> None:
    """Measure, print the tables, write JSON and the plot."""
    reporter = Reporter()
    opened = open_bench_data(bench)
    dataset, device = opened.dataset, choose_device(bench.device)
    models = (bench.models or MODELS[device.type]).split(",")
    network = [row for model in models for row in _operations(model, len(dataset.classes), bench.resolutions)]
    with ThreadPoolExecutor(usable_cores()) as pool:
        measures: dict[str, Callable[[], float]] = {
            DECODE: _decode(dataset, bench.effort.num_batches * bench.batch_size),
            COPY: _copy(pool),
            MATMUL: _matmul(device),
        }
        found = in_turns(measures, bench.effort.repeats, reporter, lambda name, value: f"{name}: {value:.1f}")
    # Whole images are decoded, whatever the resolution.
    decode = {**row_of(Key("decode, one core", "pillow", 0), found[DECODE]), "res": None}
    content: dict[str, Any] = {
        "device": device.type,
        "results": [decode],
        "memory_gb_per_s": _figures(found[COPY]),
        "matmul_gflop_per_s": _figures(found[MATMUL]),
        "network": network,
    }
    for title, table in tables({**content, "environment": {"usable_cores": usable_cores()}}).items():
        print_table(title, table)
    reporter.line(f"figures in {report('limits', bench, opened, content, _figure(content))}")


def tables(content: Mapping[str, Any]) -> dict[str, Table]:
    """Return the tables of a results file by their titles."""
    return {"what the machine can do": _machine_table(content), "GFLOP an image": _network_table(content["network"])}


def _machine_table(content: Mapping[str, Any]) -> Table:
    cores, (decode,) = content["environment"]["usable_cores"], content["results"]
    table = Table("", "", "")
    table.add_row(
        "memory copy",
        "GB/s read and written, all cores, the most of the repeats",
        f"{content['memory_gb_per_s']['most']:.1f}",
    )
    table.add_row(
        "matrix product",
        f"GFLOP/s, {content['device']}, the most of the repeats",
        f"{content['matmul_gflop_per_s']['most']:.0f}",
    )
    table.add_row(
        "whole JPEGs by Pillow, for comparison", "images/s, one core, median", f"{decode['images_per_s']:.0f}"
    )
    table.add_row("", f"images/s, one core, times {cores}", f"{decode['images_per_s'] * cores:.0f}")
    return table


def _network_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    sides = list(dict.fromkeys(row["res"] for row in rows))
    table = Table("", *(f"{side} px" for side in sides))
    for model in dict.fromkeys(row["model"] for row in rows):
        same = [row for row in rows if row["model"] == model]
        table.add_row(f"{model}, forward", *(f"{row['forward_gflop']:.3g}" for row in same))
        table.add_row(f"{model}, train step", *(f"{row['step_gflop']:.3g}" for row in same))
    return table


def _figure(content: Mapping[str, Any]) -> Figure:
    """Draw how many images a second each network could train on if all of it were matrix products."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    peak = content["matmul_gflop_per_s"]["most"]
    for model in dict.fromkeys(row["model"] for row in content["network"]):
        same = [row for row in content["network"] if row["model"] == model]
        axes.plot([row["res"] for row in same], [peak / row["step_gflop"] for row in same], marker="o", label=model)
    axes.set(xlabel="resolution, px", ylabel="images/s, train steps as matrix products", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _figures(values: list[float]) -> dict[str, Any]:
    """Return the most of some repeats, which is nearest to a limit, and all of them."""
    return {"most": round(max(values), 2), "repeats": [round(value, 2) for value in values]}


def _decode(dataset: Dataset, most: int) -> Callable[[], float]:
    """Return what measures images/s of decoding on one core."""
    contents = [dataset.read(row).tobytes() for row in dataset.rows(TRAIN)[:most].tolist()]

    def measure() -> float:
        started = time.perf_counter()
        for content in contents:
            with Image.open(BytesIO(content)) as image:
                image.convert("RGB")
        return len(contents) / (time.perf_counter() - started)

    return measure


def _copy(pool: ThreadPoolExecutor) -> Callable[[], float]:
    """Return what measures GB/s that all cores read and write in copies; NumPy copies without Python's lock."""
    each = min(COPIED_MIB, MOST_COPIED_MIB // usable_cores()) << 20
    sources = [np.ones(each, np.uint8) for _ in range(usable_cores())]
    targets = [np.zeros_like(source) for source in sources]

    def measure() -> float:
        started = time.perf_counter()
        list(pool.map(np.copyto, targets, sources))
        return 2 * len(sources) * sources[0].nbytes / 1e9 / (time.perf_counter() - started)

    return measure


def _matmul(device: torch.device) -> Callable[[], float]:
    """Return what measures GFLOP/s of a matrix product."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.randn(SIDE, SIDE, device=device, dtype=dtype)
    number = NUM_MATMULS if device.type == "cpu" else 64 * NUM_MATMULS

    def measure() -> float:
        started = time.perf_counter()
        for _ in range(number):
            torch.mm(matrix, matrix)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return number * 2 * SIDE**3 / 1e9 / (time.perf_counter() - started)

    return measure


def _operations(model: str, num_classes: int, resolutions: Sequence[Resolution]) -> list[dict[str, Any]]:
    """Count GFLOP per image of a forward pass, and thrice that for a train step, at each resolution.

    A step has two products more for each of the forward pass: by the weights and by what they were multiplied with.
    torch's own count of a backward pass takes grouped convolutions for full ones.
    """
    network = build_model(ModelSpec(model, num_classes)).network.to("meta").eval()
    rows = []
    for resolution in resolutions:
        image = torch.zeros(1, 3, resolution.crop_px, resolution.crop_px, device="meta")
        with FlopCounterMode(display=False) as counter:
            network(image)
        gflop = counter.get_total_flops() / 1e9
        figures = {"forward_gflop": round(gflop, 4), "step_gflop": round(3 * gflop, 4)}
        rows.append({"model": model, "res": resolution.crop_px, **figures})
    return rows


app = App(name="limits.py", help=__doc__, help_format="plaintext")


@app.default
def _run(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
