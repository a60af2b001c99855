"""The plan of an evaluation: every picture exactly once over all ranks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dali_fixres.batch import BatchPlan
from dali_fixres.errors import ConfigError, DataError
from dali_fixres.index import VAL, Index
from dali_fixres.plan.augmentation import AUGMENTATIONS, UNIFORMS_PER_SAMPLE, plan_batch
from dali_fixres.resolution import Resolution

__all__ = ["EvaluationPlan"]


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationPlan:
    """Test pictures in index order, dealt to the ranks in turn; nothing is padded or dropped.

    The last batch may be short, and a rank may have one picture less than another.

    Attributes:
        index: The data set.
        batch_size: Pictures per process and step.
        rank, world_size: As everywhere.
    """

    index: Index
    batch_size: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"--batch-size must be at least 1; found {self.batch_size}")
        if len(self.index.rows(VAL)) == 0:
            raise DataError(f"{self.index.root} has no pictures to test on")

    @property
    def rows(self) -> NDArray[np.int64]:
        """This rank's rows of the index."""
        return self.index.rows(VAL)[self.rank :: self.world_size]

    @property
    def num_batches(self) -> int:
        """Batches of this rank, a short last one included."""
        return -(-len(self.rows) // self.batch_size)

    def batches(self, resolution: Resolution) -> Iterator[BatchPlan]:
        """Yield this rank's batches at a resolution."""
        rows = self.rows
        for first in range(0, len(rows), self.batch_size):
            ids = rows[first : first + self.batch_size]
            yield plan_batch(
                self.index, ids, AUGMENTATIONS["v1"], resolution, np.zeros((len(ids), UNIFORMS_PER_SAMPLE))
            )
