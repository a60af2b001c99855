"""Chooses the decoder of batches that are wanted on a GPU: the GPU's, or CPU threads, whichever is faster.

Both are timed on a user's own images. Neither DALI nor torch is imported here: who asks gives a loader for each.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from pipelines.dali.messages import first_cause
from pipelines.dataset import TRAIN, VAL, Dataset
from pipelines.errors import ConfigError, RunError, UnreadableError
from pipelines.plan import AUGMENTATIONS, BatchPlan, EvalPlan
from pipelines.processes import usable_cores
from pipelines.resolution import Resolution
from pipelines.storage.cache_folder import cache_folder
from pipelines.storage.files import write_json

__all__ = ["DECODERS", "Decode", "Decoder", "Timing", "faster_decoder", "machine", "time_decoders"]

Decoder: TypeAlias = Literal["gpu", "cpu"]
"""``gpu``: the GPU decodes whole images. ``cpu``: CPU threads decode the regions that crops need, to the very pixels of
PIL, and these are copied. With both the GPU resizes and normalises."""

Decode: TypeAlias = Literal["auto", "cpu", "gpu"]
"""A decoder, or ``auto``: the faster one. On a CPU there is only ``cpu``."""

DECODERS: tuple[Decoder, ...] = ("gpu", "cpu")

WARM_UP = 4
"""Batches before the clock starts: by then memory is allocated, and the graph works ahead."""

SECONDS = 0.5
"""How long each decoder is timed."""

NUM_BATCHES = 4
"""Batches of different images that each decoder is timed on, at least; they are repeated."""

RESOLUTION = Resolution(224)

DRIVER = Path("/sys/module/nvidia/version")


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast each decoder is.

    Attributes:
        images_per_s: Of the decoders that work; at least one does.
        failed: What went wrong with the others.
    """

    images_per_s: Mapping[Decoder, float]
    failed: Mapping[Decoder, str]

    @property
    def faster(self) -> Decoder:
        """The decoder with more images/s."""
        return max(self.images_per_s, key=lambda decoder: self.images_per_s[decoder])


class RunsPlans(Protocol):
    """What is needed of a `pipelines.Loader`."""

    def run(self, plans: Iterable[BatchPlan]) -> Iterator[Sized]:
        """Yield one batch for each plan."""

    def unreadable(self, plans: Iterable[BatchPlan]) -> dict[int, tuple[Path, str]]:
        """Return images that cannot be decoded, by row."""


def time_decoders(
    dataset: Dataset,
    batch_size: int,
    loader_of: Callable[[Decoder], AbstractContextManager[RunsPlans]],
    wait: Callable[[], None],
) -> Timing:
    """Time both decoders, with training crops at 224 px of images from all over a data set.

    Args:
        dataset: The data set.
        batch_size: Images per batch.
        loader_of: Builds a loader with a decoder.
        wait: Waits for the GPU.

    Raises:
        RunError: If neither works.
    """

    def speed_of(decoder: Decoder) -> float:
        with loader_of(decoder) as loader:
            plans = readable_plans(loader, sample_plan(dataset, batch_size))
            return images_per_s(loader.run(cycle(plans)), wait)

    return compare_decoders(speed_of)


def compare_decoders(speed_of: Callable[[Decoder], float]) -> Timing:
    """Return the speed of both decoders, or why one fails.

    Args:
        speed_of: Returns the images/s of a decoder.

    Raises:
        RunError: If neither works.
    """
    speeds: dict[Decoder, float] = {}
    failed: dict[Decoder, str] = {}
    for decoder in DECODERS:
        try:
            speeds[decoder] = speed_of(decoder)
        except (RuntimeError, UnreadableError) as error:
            failed[decoder] = first_cause(str(error)) or str(error).strip().partition("\n")[0] or type(error).__name__
    if not speeds:
        raise RunError("images cannot be decoded: " + "; ".join(_failures(failed)))
    return Timing(speeds, failed)


def sample_plan(dataset: Dataset, batch_size: int) -> EvalPlan:
    """Return a plan of evenly spaced images: `NUM_BATCHES` batches or up to twice as many, as far as there are any."""
    split = TRAIN if dataset.num_train else VAL
    every = max(1, len(dataset.span(split)) // (NUM_BATCHES * batch_size))
    return EvalPlan(dataset, batch_size, split=split, every=every, augmentation=AUGMENTATIONS["train"])


def readable_plans(loader: RunsPlans, plan: EvalPlan) -> list[BatchPlan]:
    """Return a plan's batches without the images that cannot be decoded.

    Raises:
        UnreadableError: If no image is left.
    """
    unreadable = loader.unreadable(plan.batches(RESOLUTION))
    plans = list(replace(plan, unreadable=frozenset(unreadable)).batches(RESOLUTION))
    if not plans:
        raise UnreadableError(unreadable)
    return plans


def images_per_s(
    batches: Iterator[Sized], wait: Callable[[], None], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return how many images/s come out of endless batches, after a warm-up.

    Args:
        batches: They never end.
        wait: Waits for the GPU.
        clock: Returns the time in s.
    """
    for _ in range(WARM_UP):
        next(batches)
    wait()
    start, num_images = clock(), 0
    while clock() - start < SECONDS:
        num_images += len(next(batches))
    wait()
    return num_images / (clock() - start)


def faster_decoder(key: Mapping[str, Any], time_both: Callable[[], Timing], warn: Callable[[str], None]) -> Decoder:
    """Return the faster decoder: the one in the cache folder, or else timed now and written there.

    If one decoder fails, a warning gives the reason and the other is taken. As the failure may be temporary, nothing is
    written then.

    Args:
        key: What the answer depends on, in plain types.
        time_both: Times both decoders.
        warn: Prints a warning.

    Raises:
        RunError: If neither decoder works.
    """
    name = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / "decoding" / f"{name}.json"
    if (decoder := _read(path)) is not None:
        return decoder
    timing = time_both()
    for failure in _failures(timing.failed):
        warn(f"{failure}; decode {timing.faster!r} is used instead")
    if not timing.failed:
        with suppress(ConfigError):  # a cache folder that cannot be written costs only time
            write_json(path, {**key, "images_per_s": dict(timing.images_per_s), "decode": timing.faster})
    return timing.faster


def machine(gpu: str, num_threads: int) -> dict[str, str | int | None]:
    """Return the properties of a machine that decide which decoder is faster.

    Args:
        gpu: Name of the GPU.
        num_threads: CPU threads of the loader.
    """
    return {
        "gpu": gpu,
        "driver": DRIVER.read_text(encoding="utf-8").strip() if DRIVER.exists() else None,
        "dali": version("nvidia-dali-cuda120"),
        "torch": version("torch"),
        "cores": usable_cores(),
        "threads": num_threads,
    }


def _failures(failed: Mapping[Decoder, str]) -> list[str]:
    return [f"decode {decoder!r} fails: {reason}" for decoder, reason in failed.items()]


def _read(path: Path) -> Decoder | None:
    """Return the decoder that is written in a cached file, or None if it is missing or unusable."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["decode"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return next((decoder for decoder in DECODERS if decoder == found), None)
