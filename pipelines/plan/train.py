"""The plan of a training or fine-tuning stage."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from pipelines.dataset import Dataset
from pipelines.errors import ConfigError, DataError
from pipelines.plan.augmentation import UNIFORMS_PER_SAMPLE, Augmentation, plan_batch
from pipelines.plan.batch_plan import BatchPlan
from pipelines.plan.copies import Copies
from pipelines.plan.order import EpochOrder
from pipelines.plan.random import uniforms_of
from pipelines.resolution import Schedule

__all__ = ["TrainPlan"]


@dataclass(frozen=True, slots=True, eq=False)
class TrainPlan:
    """Every batch of a stage, as a pure function of epoch and step.

    The global sequence of images is the same for every world size with the same global batch. How far an epoch
    is done is counted in positions of that sequence, so it can be resumed with another world size or batch.

    Attributes:
        dataset: The data set.
        augmentation: How images are varied.
        schedule: The resolution of each epoch, and perhaps its batch size.
        batch_size: Images per process and step, where the schedule does not say.
        seed: Decides everything random.
        rank, world_size: This process, and how many there are.
        repeats: Times that each image is in a global batch, with other random numbers (repeated augmentation).
        unreadable: Rows that are skipped, see `EpochOrder.batch`.
        copies: Which resized copies are read, if the data set has any.
    """

    dataset: Dataset
    augmentation: Augmentation
    schedule: Schedule
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    repeats: int = 1
    unreadable: frozenset[int] = frozenset()
    copies: Copies = "exact"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"`batch_size` must be at least 1; found {self.batch_size}")
        if self.dataset.num_train == 0:
            raise DataError(
                f"{self.dataset.root} has no training images; expected {self.dataset.root}/train/<class>/*.jpg"
            )
        for phase in self.schedule.phases:
            order = self._order(phase.first_epoch)
            if order.num_steps == 0:
                each = f" on each of {self.world_size} processes" if self.world_size > 1 else ""
                raise ConfigError(
                    f"a batch of {order.batch_size} images{each} is larger than the {self.dataset.num_train} training "
                    f"images of {self.dataset.root}; lower `batch_size`"
                )
            if order.global_batch % self.repeats:
                fits = next(b for b in count(order.batch_size) if b * self.world_size % self.repeats == 0)
                raise ConfigError(
                    f"the global batch of {order.global_batch} images ({order.batch_size} on each of "
                    f"{self.world_size} process(es)) is not a multiple of `repeats={self.repeats}`; "
                    f"`batch_size={fits}` is"
                )

    @property
    def max_batch_size(self) -> int:
        """Images of the largest batch of this process."""
        return max(phase.batch_size or self.batch_size for phase in self.schedule.phases)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Images per batch of this process and pixels of the crop, each pair of the stage once, in its order."""
        phases = self.schedule.phases
        return tuple(dict.fromkeys((phase.batch_size or self.batch_size, phase.crop_px) for phase in phases))

    def global_batch(self, epoch: int) -> int:
        """Return the images per step over all processes."""
        return self._order(epoch).global_batch

    def num_steps(self, epoch: int, num_done: int = 0) -> int:
        """Return how many full global batches an epoch has from its position `num_done` on."""
        order = self._order(epoch, num_done)
        # Not below 0 where less data is left than was done, as when a run is resumed with changed data.
        return max(0, order.num_steps - num_done // order.global_batch)

    def steps_before(self, epoch: int, num_done: int = 0) -> int:
        """Return how many steps of the stage come before position `num_done` of an epoch."""
        begun = min(num_done // self.global_batch(epoch), self.num_steps(epoch))
        return sum(map(self.num_steps, range(epoch))) + begun

    def at(self, epoch: int, step: int, num_done: int = 0) -> BatchPlan:
        """Return this rank's batch at a step of an epoch, counted from position `num_done` on.

        Raises:
            IndexError: If the epoch has no such step.
        """
        if not 0 <= step < self.num_steps(epoch, num_done):
            raise IndexError(f"step {step} of {self.num_steps(epoch, num_done)}")
        order = self._order(epoch, num_done)
        rows, positions = order.batch(num_done // order.global_batch + step, self.unreadable)
        uniforms = uniforms_of(self.seed, epoch, positions, UNIFORMS_PER_SAMPLE)
        return plan_batch(self.dataset, rows, self.augmentation, self.schedule.at(epoch), uniforms, self.copies)

    def global_rows(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Return the rows that all ranks together have at a step of an epoch, unreadable ones included."""
        order = replace(self._order(epoch), rank=0, world_size=1, batch_size=self.global_batch(epoch))
        return order.batch(step, frozenset())[0]

    def epoch(self, epoch: int, num_done: int = 0, first_step: int = 0) -> Iterator[BatchPlan]:
        """Yield the batches of an epoch from its position `num_done` on, without the first few of these."""
        return (self.at(epoch, step, num_done) for step in range(first_step, self.num_steps(epoch, num_done)))

    def _order(self, epoch: int, num_done: int = 0) -> EpochOrder:
        batch_size = self.schedule.phase(epoch).batch_size or self.batch_size
        return EpochOrder(
            seed=self.seed,
            epoch=epoch,
            num_samples=self.dataset.num_train,
            batch_size=batch_size,
            rank=self.rank,
            world_size=self.world_size,
            repeats=self.repeats,
            # 0 while the global batch is the one that the epoch was begun with.
            origin=num_done % (batch_size * self.world_size),
        )
