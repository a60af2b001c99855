"""The plan of a training or fine-tuning stage."""

from collections.abc import Iterator
from dataclasses import dataclass

from dali_fixres.batch import BatchPlan
from dali_fixres.errors import ConfigError, DataError
from dali_fixres.index import Index
from dali_fixres.plan.augmentation import UNIFORMS_PER_SAMPLE, Augmentation, plan_batch
from dali_fixres.plan.random import permutation, uniforms_at
from dali_fixres.resolution import Schedule

__all__ = ["TrainPlan"]


@dataclass(frozen=True, slots=True, eq=False)
class TrainPlan:
    """Every batch of a stage, as a pure function of epoch and step.

    An epoch is a permutation of the training pictures, cut into global batches of ``batch_size * world_size``;
    what does not fill one is left for the next permutation. Rank r takes the r-th part of each global batch,
    so the global sequence is the same for every world size with the same global batch.

    Attributes:
        index: The data set.
        augmentation: How pictures are varied.
        schedule: The resolution of each epoch.
        batch_size: Pictures per process and step.
        seed, rank, world_size: As everywhere.
    """

    index: Index
    augmentation: Augmentation
    schedule: Schedule
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"--batch-size must be at least 1; found {self.batch_size}")
        if self.num_samples == 0:
            raise DataError(
                f"{self.index.root} has no training pictures; expected {self.index.root}/train/<class>/*.jpg"
            )
        if self.steps_per_epoch == 0:
            raise ConfigError(
                f"a batch of {self.batch_size} pictures on each of {self.world_size} process(es) is larger than the "
                f"{self.num_samples} training pictures of {self.index.root}; lower --batch-size"
            )

    @property
    def num_samples(self) -> int:
        """Number of training pictures."""
        return self.index.num_train

    @property
    def steps_per_epoch(self) -> int:
        """Full global batches in an epoch."""
        return self.num_samples // (self.batch_size * self.world_size)

    def at(self, epoch: int, step: int) -> BatchPlan:
        """Return this rank's batch at a step (from 0) of an epoch (from 0)."""
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step {step} of an epoch of {self.steps_per_epoch} steps")
        first = (step * self.world_size + self.rank) * self.batch_size
        # The rows that are trained on come first in the index, so a permutation's entries are rows.
        ids = permutation(self.seed, epoch, self.num_samples)[first : first + self.batch_size]
        uniforms = uniforms_at(self.seed, epoch, first, len(ids), UNIFORMS_PER_SAMPLE)
        return plan_batch(self.index, ids, self.augmentation, self.schedule.at(epoch), uniforms)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[BatchPlan]:
        """Yield the batches of an epoch, from a step on."""
        return (self.at(epoch, step) for step in range(first_step, self.steps_per_epoch))
