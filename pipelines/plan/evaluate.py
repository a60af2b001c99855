"""The plan of an evaluation: every image exactly once over all ranks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.dataset import VAL, Dataset
from pipelines.errors import ConfigError, DataError
from pipelines.plan.augmentation import AUGMENTATIONS, UNIFORMS_PER_SAMPLE, Augmentation, plan_batch
from pipelines.plan.batch_plan import BatchPlan
from pipelines.plan.copies import Copies
from pipelines.plan.random import uniforms_of
from pipelines.resolution import Resolution

__all__ = ["EvalPlan"]


@dataclass(frozen=True, slots=True, eq=False)
class EvalPlan:
    """Images of a split in the order of their rows, distributed over the ranks in turn; nothing is padded or dropped.

    The last batch may be short, and a rank may have one image less than another.

    Attributes:
        dataset: The data set.
        batch_size: Images per process and step.
        rank, world_size: This process, and how many there are.
        unreadable: Rows that are left out.
        copies: Which resized copies are read, if the data set has any.
        split: `VAL`, or `TRAIN` to analyse training images.
        every: Take one image of this many.
        augmentation: Crop box, flip and jitter; the plain test crop by default.
        seed, view: Decide what is random in the augmentation.
    """

    dataset: Dataset
    batch_size: int
    rank: int = 0
    world_size: int = 1
    unreadable: frozenset[int] = frozenset()
    copies: Copies = "exact"
    split: str = VAL
    every: int = 1
    augmentation: Augmentation = AUGMENTATIONS["v1"]
    seed: int = 0
    view: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"`batch_size` must be at least 1; found {self.batch_size}")
        if len(self.dataset.span(self.split)) == 0:
            raise DataError(
                f"{self.dataset.root} has no images to {'test' if self.split == VAL else 'train'} on; give data with "
                "both, or `val_fraction=0.1` for data without a split"
            )

    @property
    def num_images(self) -> int:
        """Images of all ranks, unreadable ones included."""
        return len(self._taken)

    @property
    def num_rounds(self) -> int:
        """The most batches that any rank can have."""
        return -(-self.num_images // (self.world_size * self.batch_size))

    @property
    def num_assigned(self) -> int:
        """Images of this rank, unreadable ones included."""
        return len(self._assigned)

    @property
    def rows(self) -> NDArray[np.int64]:
        """This rank's rows of the data set, without unreadable ones."""
        assigned = self._assigned
        rows = np.arange(assigned.start, assigned.stop, assigned.step)
        if not self.unreadable:
            return rows
        return rows[~np.isin(rows, np.fromiter(self.unreadable, dtype=np.int64, count=len(self.unreadable)))]

    @property
    def _taken(self) -> range:
        """Rows of all ranks."""
        return self.dataset.span(self.split)[:: self.every]

    @property
    def _assigned(self) -> range:
        """This rank's rows, unreadable ones included."""
        return self._taken[self.rank :: self.world_size]

    def batches(self, resolution: Resolution, first_batch: int = 0) -> Iterator[BatchPlan]:
        """Yield this rank's batches at a resolution, from one on."""
        rows = self.rows
        for first in range(first_batch * self.batch_size, len(rows), self.batch_size):
            ids = rows[first : first + self.batch_size]
            uniforms = np.zeros((len(ids), UNIFORMS_PER_SAMPLE))
            if self.augmentation.is_random:
                uniforms = uniforms_of(self.seed, self.view, ids, UNIFORMS_PER_SAMPLE)
            yield plan_batch(self.dataset, ids, self.augmentation, resolution, uniforms, self.copies)
