"""The loader alone on a GPU: speed by decoding, threads, batch and prefetch; the cost of a change of size."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from gpu_rows import Row, Rows
from graphs import GraphPart
from loaders import training_plan
from pictures import bench_pictures
from stages import epochs_of, worked_off
from visits import Batches, Visit, circuit, first_times, in_one_stream, rises

from dali_fixres.batch import BatchPlan
from dali_fixres.colour import IMAGENET
from dali_fixres.folders import cache_folder
from dali_fixres.index import Index, open_data
from dali_fixres.plan import TrainPlan
from dali_fixres.processes import loader_threads
from dali_fixres.resolution import Resolution
from pipelines import Decoding, Loader
from pipelines.feed import graph_inputs

__all__ = [
    "CHANGES",
    "Setting",
    "changed_sizes",
    "gpu_loader",
    "loader_settings",
    "measured_loaders",
    "prepared_pictures",
]

CUDA = torch.device("cuda")

WARM_UP, LEAST_S = 6, 0.8
"""Batches before the clock starts, and seconds that it runs for at least."""

JUDGED, OTHERS = (128, 224), (160, 288, 320, 384)
"""Resolutions: those that goals are stated for, and the rest."""

LOADS = (0.0, 0.5, 0.65, 0.8, 0.9, 1.0)

Source = Literal["originals", "rungs"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured: the whole loader, or the graph up to its decoder."""

    what: Literal["loader", "decode"]
    source: Source
    res: int
    region: bool
    hw_decoder_load: float
    fancy_upsampling: bool
    threads: int
    batch_size: int
    prefetch: int = 2

    @property
    def decoding(self) -> Decoding:
        """How it decodes."""
        return Decoding(self.region, self.hw_decoder_load, self.fancy_upsampling)


def loader_settings(usual: Decoding, safe: Sequence[Decoding], threads: int, batch_size: int) -> list[Setting]:
    """Return what is measured, each once: how it decodes, then threads, batch and prefetch, then other resolutions.

    Settings that differ by nothing but the resolution, which one loader serves, follow one another.

    Args:
        usual: How the product decodes; this comes first.
        safe: The ways that have passed their trials; each is measured with all shares for hardware.
        threads: The product's.
        batch_size: The usual one.
    """
    one = Setting("loader", "originals", 128, **asdict(usual), threads=threads, batch_size=batch_size)
    usual_ways: list[Setting] = [one, replace(one, source="rungs")]
    decoders = [replace(one, what="decode", res=224), replace(one, what="decode", source="rungs")]
    others = [
        *(replace(one, **{**asdict(way), "hw_decoder_load": load}) for way in (usual, *safe) for load in LOADS),
        *(replace(one, source="rungs", hw_decoder_load=load) for load in LOADS),
        *(replace(one, threads=number) for number in (4, 8, 16)),
        *(replace(one, batch_size=size) for size in (128, 512, 1024)),
        *(replace(one, prefetch=depth) for depth in (1, 3, 4)),
    ]
    settings = [
        *(replace(way, res=res) for way in usual_ways for res in JUDGED),
        *decoders,
        *(replace(way, res=res) for way in others for res in JUDGED),
        *(replace(way, res=res) for way in usual_ways for res in OTHERS),
    ]
    return list(dict.fromkeys(settings))


def measured_loaders(settings: Sequence[Setting], rows: Rows) -> Row:
    """Measure as many settings as the time allows."""
    originals = bench_pictures()
    folders: dict[Source, Path] = {"originals": originals, "rungs": prepared_pictures(originals)}
    indexes = {source: open_data(folder).index for source, folder in folders.items()}
    with ExitStack() as stack:
        last = LastLoader(indexes)
        stack.callback(last.close)
        return rows.fill(settings, lambda setting: _measured(setting, indexes[setting.source], last))


class LastLoader:
    """The loader of the setting before, which serves the next one too if only the resolution is another.

    Args:
        indexes: The data by source.
    """

    def __init__(self, indexes: dict[Source, Index]) -> None:
        self._indexes = indexes
        self._stack = ExitStack()
        self._built: Setting | None = None
        self._loader: Loader | None = None

    def of(self, setting: Setting) -> Loader:
        """Return the loader of a setting; one that was built otherwise is closed."""
        built = replace(setting, res=0)
        if self._loader is None or built != self._built:
            self.close()
            self._loader = self._stack.enter_context(
                gpu_loader(
                    self._indexes[setting.source],
                    setting.decoding,
                    setting.batch_size,
                    threads=setting.threads,
                    prefetch=setting.prefetch,
                )
            )
            self._built = built
        return self._loader

    def close(self) -> None:
        """Close it, if there is one."""
        self._stack.close()
        self._loader = None


def gpu_loader(
    index: Index, decoding: Decoding, batch_size: int, threads: int | None = None, prefetch: int = 2
) -> Loader:
    """Return a loader for the GPU; with the product's number of threads if none is given."""
    return Loader(
        index,
        max_batch_size=batch_size,
        device=CUDA,
        num_threads=threads or loader_threads(),
        prefetch=prefetch,
        decoding=decoding,
    )


def _measured(setting: Setting, index: Index, last: LastLoader) -> Row:
    plan = training_plan(index, Resolution(setting.res), setting.batch_size)
    run: Callable[[Iterator[BatchPlan]], Iterator[Any]]
    if setting.what == "loader":
        run = last.of(setting).run
    else:
        last.close()  # its threads and memory are not to be in the way
        run = _decoder(setting, plan)
    with worked_off(run, epochs_of(plan)) as batches:
        speed = setting.batch_size * batches_per_s(batches)
    free, total = torch.cuda.mem_get_info(CUDA)
    return {"images_per_s": round(speed, 1), "device_mib": round((total - free) / 2**20)}


def _decoder(setting: Setting, plan: TrainPlan) -> Callable[[Iterator[BatchPlan]], Iterator[Any]]:
    """Return what runs the graph up to its decoder."""
    index = plan.index
    part = GraphPart(
        "decode",
        in_shards=index.in_shards,
        batch_size=setting.batch_size,
        num_threads=setting.threads,
        device=CUDA,
        decoding=setting.decoding,
    )
    return lambda plans: part.run(graph_inputs(one, index, IMAGENET, decode_window=part.decode_window) for one in plans)


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


def prepared_pictures(originals: Path) -> Path:
    """Return smaller copies of a data set in the cache, made now or before."""
    folder = cache_folder() / f"{originals.name}-prepared"
    if not folder.exists():
        partial = folder.with_name(f".{folder.name}.partial")
        command = [sys.executable, "-m", "dali_fixres", "prepare", str(originals), str(partial)]
        subprocess.run(command, check=True)  # noqa: S603 - goes on after a kill
        partial.rename(folder)
    return folder


@dataclass(frozen=True, slots=True)
class Change:
    """A round of changes of resolution: between sizes that the loader has made before, or to one that it has not."""

    known: bool
    repeat: int


CHANGES = tuple(Change(known, repeat) for repeat in range(3) for known in (True, False))


def changed_sizes(decoding: Decoding) -> Callable[[Change], Row]:
    """Return what goes a round, and compares the first batch after each change with a steady one."""
    batches = Batches(open_data(bench_pictures()).index, CUDA, 128, 8, decoding)
    sizes = [Resolution(res) for res in (128, 224, 320)]

    def timed(change: Change) -> Row:
        visits = in_one_stream(batches, circuit(sizes)) if change.known else first_times(batches, rises(sizes))
        return {
            "changes": [_of_visit(visit) for visit in visits if visit.before is not None],
            "num_wrong": sum(visit.num_wrong for visit in visits),
        }

    return timed


def _of_visit(visit: Visit) -> Row:
    return {
        "from": visit.before,
        "res": visit.res,
        "first_ratio": round(visit.ratio(0), 3),
        "steady_ms": round(visit.steady_ms, 2),
    }
