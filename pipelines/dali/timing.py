"""Times both ways to decode on a user's own images; the loader that runs them is given."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Protocol

from pipelines.batch import Batch
from pipelines.dali.decoding import Timing, Way, images_per_s, time_ways
from pipelines.dataset import TRAIN, VAL, Dataset
from pipelines.errors import UnreadableError
from pipelines.plan import AUGMENTATIONS, BatchPlan, EvalPlan
from pipelines.resolution import Resolution

__all__ = ["time_decoding"]

NUM_BATCHES = 4
"""Batches of different images that each way is timed on, at least; they are repeated."""

RESOLUTION = Resolution(224)


class RunsPlans(Protocol):
    """What is needed of a `pipelines.Loader`."""

    def run(self, plans: Iterable[BatchPlan]) -> Iterator[Batch]:
        """Yield one batch for each plan."""

    def unreadable(self, plans: Iterable[BatchPlan]) -> dict[int, tuple[Path, str]]:
        """Return images that cannot be decoded, by row."""


def time_decoding(
    dataset: Dataset,
    batch_size: int,
    loader_of: Callable[[Way], AbstractContextManager[RunsPlans]],
    wait: Callable[[], None],
) -> Timing:
    """Time both ways to decode, with training crops at 224 px of images from all over a data set.

    Args:
        dataset: The data set.
        batch_size: Images per batch.
        loader_of: Builds a loader that decodes one way.
        wait: Waits for the GPU.

    Raises:
        RunError: If neither way works.
    """

    def speed_of(way: Way) -> float:
        with loader_of(way) as loader:
            plans = readable_plans(loader, sample_plan(dataset, batch_size))
            return images_per_s(loader.run(cycle(plans)), wait)

    return time_ways(speed_of)


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
