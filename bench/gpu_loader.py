"""The loader alone on a GPU: by source, resolution, share of the hardware decoder, threads, batch and prefetch."""

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from graphs import GraphPart
from loaders import training_plan
from pictures import bench_pictures
from stages import epochs_of, worked_off

from dali_fixres.batch import BatchPlan
from dali_fixres.colour import IMAGENET
from dali_fixres.folders import cache_folder
from dali_fixres.index import Index, open_data
from dali_fixres.plan import TrainPlan
from dali_fixres.processes import loader_threads
from dali_fixres.resolution import Resolution
from pipelines import Decoding, Loader
from pipelines.feed import graph_inputs

__all__ = ["Setting", "grid", "measured_loaders"]

CUDA = torch.device("cuda")

WARM_UP, LEAST_S = 6, 0.8
"""Batches before the clock starts, and seconds that it runs for at least."""

RESOLUTIONS = (128, 160, 224, 288, 320, 384)

Source = Literal["originals", "rungs"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured: the whole loader, or the graph up to its decoder."""

    what: Literal["loader", "decode"]
    source: Source
    res: int
    hw_decoder_load: float
    threads: int
    batch_size: int
    prefetch: int = 2


def grid(hw_decoder_load: float, threads: int, batch_size: int) -> list[Setting]:
    """Return what is measured around a usual setting, each once.

    What goals are stated for comes first. Resolutions go upwards, so that memory is seen to grow with them.
    """
    usual = Setting("loader", "originals", 224, hw_decoder_load, threads, batch_size)
    rungs = replace(usual, source="rungs", res=128)
    settings = [replace(usual, res=res) for res in RESOLUTIONS]
    settings += [rungs, *(replace(one, what="decode") for one in (usual, rungs))]
    settings += [replace(one, hw_decoder_load=load) for one in (usual, rungs) for load in (0, 0.5, 0.65, 0.8, 0.9, 1)]
    settings += [replace(usual, batch_size=size) for size in (128, 512, 1024)]
    settings += [replace(usual, threads=number) for number in (4, 8, 16)]
    settings += [replace(usual, prefetch=depth) for depth in (1, 3, 4)]
    settings += [replace(rungs, res=res) for res in RESOLUTIONS]
    return list(dict.fromkeys(settings))


def measured_loaders(decoding: Decoding, batch_size: int, seconds: float) -> dict[str, Any]:
    """Measure as much of the grid as the time allows."""
    ends = time.monotonic() + seconds
    originals = bench_pictures()
    copies = _copies(originals)
    indexes: dict[Source, Index] = {"originals": open_data(originals).index, "rungs": open_data(copies).index}
    settings = grid(decoding.hw_decoder_load, loader_threads(), batch_size)
    rows: list[dict[str, Any]] = []
    for number, setting in enumerate(settings):
        if time.monotonic() > ends:
            return {"results": rows, "left_out": [asdict(left) for left in settings[number:]]}
        way = replace(decoding, hw_decoder_load=setting.hw_decoder_load)
        plan = training_plan(indexes[setting.source], Resolution(setting.res), setting.batch_size)
        speed = _speed(setting, way, plan)
        free, total = torch.cuda.mem_get_info(CUDA)
        used_mib = round((total - free) / 2**20)
        rows.append({**asdict(setting), "region": way.region, "images_per_s": round(speed, 1), "device_mib": used_mib})
    return {"results": rows, "left_out": []}


def _speed(setting: Setting, way: Decoding, plan: TrainPlan) -> float:
    index = plan.index
    if setting.what == "loader":
        with (
            Loader(
                index,
                max_batch_size=setting.batch_size,
                device=CUDA,
                num_threads=setting.threads,
                prefetch=setting.prefetch,
                decoding=way,
            ) as loader,
            worked_off(loader.run, epochs_of(plan)) as batches,
        ):
            return setting.batch_size * batches_per_s(batches)
    part = GraphPart(
        "decode",
        in_shards=index.in_shards,
        batch_size=setting.batch_size,
        num_threads=setting.threads,
        device=CUDA,
        decoding=way,
    )

    def decoded(plans: Iterator[BatchPlan]) -> Iterator[Any]:
        return part.run(graph_inputs(one, index, IMAGENET, decode_window=part.decode_window) for one in plans)

    with worked_off(decoded, epochs_of(plan)) as outputs:
        return setting.batch_size * batches_per_s(outputs)


def batches_per_s(batches: Iterable[Any]) -> float:
    """Time something endless that makes batches on the GPU."""
    source: Iterator[Any] = iter(batches)
    for _ in islice(source, WARM_UP):
        pass
    torch.cuda.synchronize(CUDA)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < LEAST_S:
        next(source)
        done += 1
    torch.cuda.synchronize(CUDA)
    return done / (time.perf_counter() - started)


def _copies(originals: Path) -> Path:
    """Return the prepared pictures in the cache, made now or before."""
    folder = cache_folder() / f"{originals.name}-prepared"
    if not folder.exists():
        partial = folder.with_name(f".{folder.name}.partial")
        command = [sys.executable, "-m", "dali_fixres", "prepare", str(originals), str(partial)]
        subprocess.run(command, check=True)  # noqa: S603
        partial.rename(folder)
    return folder
