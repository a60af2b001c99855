"""What this machine can do at all: memory bandwidth, JPEG decoding per core, arithmetic; and what a network asks of it.

    uv run python bench/limits.py
    uv run python bench/limits.py --data DIR --model resnet50 --json out.json

Copied is an array far larger than the caches, by NumPy on one thread; bytes read and written both count. Pictures are
decoded whole by Pillow (libjpeg-turbo) from memory on one core. Matrices of 2048 x 2048 are multiplied by torch, in
float32 on all cores, on a GPU in bfloat16. Floating-point operations of a network are counted, not timed: a
multiplication and an addition are two.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

# As the command line does, and for the same reason; it is read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from cyclopts import App, Parameter
from harness import Flags, Key, in_turns, open_bench_data, report, row_of, start
from PIL import Image
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from dali_fixres.config import Device
from dali_fixres.devices import choose_device
from dali_fixres.index import TRAIN, Index
from dali_fixres.models import ModelSpec, build_model
from dali_fixres.processes import usable_cores
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import print_table

DECODE, COPY, MATMUL = "decode", "copy", "matmul"

COPIED_MIB = 256
SIDE = 2048
NUM_MATMULS = 4


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Flags):
    """Flags."""

    model: str = "timm/mobilenetv2_100"
    """Network whose floating-point operations are counted."""

    num_classes: int = 1000
    """Outputs of its classifier."""

    device: Device = "auto"
    """Where matrices are multiplied."""


def main(bench: Bench) -> None:
    """Measure, print the tables and write JSON."""
    reporter = Reporter()
    opened = open_bench_data(bench)
    device = choose_device(bench.device)
    measures: dict[str, Callable[[], float]] = {
        DECODE: _decode(opened.index, bench.effort.num_batches * bench.batch_size),
        COPY: _copy(),
        MATMUL: _matmul(device),
    }
    found = in_turns(measures, bench.effort.repeats, reporter, lambda name, value: f"{name}: {value:.1f}")
    # Whole pictures are decoded, whatever the resolution.
    decode = {**row_of(Key("decode, one core", "pillow", 0), found[DECODE]), "res": None}
    network = _operations(bench)
    content: dict[str, Any] = {
        "device": device.type,
        "results": [decode],
        "memory_gb_per_s": _figures(found[COPY]),
        "matmul_gflop_per_s": _figures(found[MATMUL]),
        "model": bench.model,
        "network": network,
    }
    for title, table in tables({**content, "environment": {"usable_cores": usable_cores()}}).items():
        print_table(title, table)
    reporter.line(f"figures in {report('limits', bench, opened, content)}")


def tables(content: Mapping[str, Any]) -> dict[str, Table]:
    """Return the table of a results file by its title."""
    cores, (decode,) = content["environment"]["usable_cores"], content["results"]
    table = Table()
    for heading in ("", "", "median"):
        table.add_column(heading, justify="right")
    table.add_row("JPEG decoding", "images/s, one core", f"{decode['images_per_s']:.0f}")
    table.add_row("", f"images/s, {cores} cores", f"{decode['images_per_s'] * cores:.0f}")
    table.add_row("memory copy", "GB/s, one core", f"{content['memory_gb_per_s']['median']:.1f}")
    table.add_row("matrix product", f"GFLOP/s, {content['device']}", f"{content['matmul_gflop_per_s']['median']:.0f}")
    for row in content["network"]:
        table.add_row(f"{content['model']}, {row['res']} px", "GFLOP a picture, forward", f"{row['forward_gflop']:.2f}")
        table.add_row("", "GFLOP a picture, train step", f"{row['step_gflop']:.2f}")
    return {"what the machine can do": table}


def _figures(values: list[float]) -> dict[str, Any]:
    return {"median": round(float(np.median(values)), 2), "repeats": [round(value, 2) for value in values]}


def _decode(index: Index, most: int) -> Callable[[], float]:
    """Return what measures images/s of decoding on one core."""
    contents = [index.read(row).tobytes() for row in index.rows(TRAIN)[:most].tolist()]

    def measure() -> float:
        started = time.perf_counter()
        for content in contents:
            with Image.open(BytesIO(content)) as image:
                image.convert("RGB")
        return len(contents) / (time.perf_counter() - started)

    return measure


def _copy() -> Callable[[], float]:
    """Return what measures GB/s that are read and written in a copy."""
    source = np.ones(COPIED_MIB << 20, np.uint8)
    target = np.zeros_like(source)

    def measure() -> float:
        started = time.perf_counter()
        np.copyto(target, source)
        return 2 * source.nbytes / 1e9 / (time.perf_counter() - started)

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


def _operations(bench: Bench) -> list[dict[str, Any]]:
    """Count GFLOP per picture of a forward pass, and thrice that for a train step, at each resolution.

    A step has two products more for each of the forward pass: by the weights and by what they were multiplied with.
    torch's own count of a backward pass takes grouped convolutions for full ones.
    """
    network = build_model(ModelSpec(bench.model, bench.num_classes)).network.to("meta").eval()
    rows = []
    for resolution in bench.resolutions:
        picture = torch.zeros(1, 3, resolution.crop_px, resolution.crop_px, device="meta")
        with FlopCounterMode(display=False) as counter:
            network(picture)
        gflop = counter.get_total_flops() / 1e9
        rows.append({"res": resolution.crop_px, "forward_gflop": round(gflop, 4), "step_gflop": round(3 * gflop, 4)})
    return rows


app = App(name="limits.py", help=__doc__)


@app.default
def _run(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
