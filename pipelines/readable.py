"""Batches without the images that cannot be read: these are found, noted, and left out of the batches that follow."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from pipelines.batch import Batch
from pipelines.dataset import Dataset
from pipelines.errors import DataError, UnreadableError
from pipelines.loader import Loader
from pipelines.plan import BatchPlan, EvalPlan, TrainPlan
from pipelines.resolution import Resolution

__all__ = ["ReadableBatches", "SkippedImages", "readable_batches"]

MAX_CHECKED_AHEAD = 16
"""Batches checked at once where failures follow one another closely: each failure costs the batches in flight."""


class SkippedImages:
    """Rows of a data set that cannot be read, and what is wrong with each.

    Args:
        dataset: The data set.
        known: What is known from before, by row.
        strict: Whether to stop at the first one instead.
        on_found: Called with what is new, by row, before it is noted.
    """

    def __init__(
        self,
        dataset: Dataset,
        known: Mapping[int, str] | None = None,
        *,
        strict: bool = False,
        on_found: Callable[[Mapping[int, str]], None] = lambda new: None,  # noqa: ARG005
    ) -> None:
        self._dataset = dataset
        self._strict = strict
        self._on_found = on_found
        self.reasons = dict(known or {})
        self.rows = frozenset(self.reasons)

    def add(self, error: UnreadableError) -> None:
        """Note the images that a batch failed over.

        Raises:
            UnreadableError: If the first one is to stop the run.
            DataError: If not single images but the whole data set is gone.
        """
        if self._strict:
            raise UnreadableError(error.images, "; repair it, or leave `strict` out to skip it") from error
        _check_still_there(self._dataset.root)
        self.merge({row: reason for row, (_, reason) in error.images.items()})
        if 2 * len(self.rows) > len(self._dataset):
            raise DataError(
                f"{len(self.rows)} of the {len(self._dataset)} images of {self._dataset.root} cannot be read; is all "
                "of it still mounted?"
            )

    def merge(self, reasons: Mapping[int, str]) -> None:
        """Note rows that have been found elsewhere, as by another process."""
        new = {row: reason for row, reason in reasons.items() if row not in self.rows}
        if new:
            self._on_found(new)
            self.reasons |= new
            self.rows = self.rows.union(new)


def readable_batches(
    loader: Loader, plans: Callable[[frozenset[int], int], Iterator[BatchPlan]], skipped: SkippedImages
) -> Iterator[Batch]:
    """Yield the batches of a pass over the data set.

    Where a batch fails, its unreadable images are noted and the pass continues from that very batch without them.
    The batches before are not affected, because a plan never moves an image forward past an unreadable one.

    Args:
        loader: Executes the plans.
        plans: Returns the plans of the pass without some rows, from a batch number on.
        skipped: What is left out; what is found is added to it.

    Raises:
        UnreadableError, DataError: As `SkippedImages.add`.
    """
    batches = loader.run(plans(skipped.rows, 0))
    num_yielded = last_failed = 0
    ahead = 1
    while True:
        try:
            batch = next(batches, None)
        except UnreadableError as error:
            ahead = min(2 * ahead, MAX_CHECKED_AHEAD) if num_yielded - last_failed <= ahead else 1
            last_failed = num_yielded
            skipped.add(error)
            if found := loader.unreadable(islice(plans(skipped.rows, num_yielded), ahead)):
                skipped.add(UnreadableError(found))
            batches = loader.run(plans(skipped.rows, num_yielded))
            continue
        if batch is None:
            return
        num_yielded += 1
        yield batch


@dataclass(frozen=True, slots=True, eq=False)
class ReadableBatches:
    """A loader and what it leaves out: the source of all batches of a run."""

    loader: Loader
    skipped: SkippedImages

    def epoch(self, plan: TrainPlan, epoch: int, num_done: int = 0) -> Iterator[Batch]:
        """Yield the training batches of an epoch from position `num_done` on."""
        return readable_batches(
            self.loader, lambda rows, first: replace(plan, unreadable=rows).epoch(epoch, num_done, first), self.skipped
        )

    def evaluation(self, plan: EvalPlan, resolution: Resolution) -> Iterator[Batch]:
        """Yield the batches of an evaluation."""
        return readable_batches(
            self.loader, lambda rows, first: replace(plan, unreadable=rows).batches(resolution, first), self.skipped
        )


def _check_still_there(root: Path) -> None:
    """Stop where skipping single images would lose the data set one by one."""
    try:
        with os.scandir(root) as entries:
            empty = next(entries, None) is None
    except OSError as error:
        raise DataError(f"cannot list {root} any more: {error.strerror}; is it still mounted?") from error
    if empty:
        raise DataError(f"{root} has become empty; is it still mounted?")
