"""Which training image is at which position of an epoch: pure arithmetic on positions.

An epoch has one global order of positions, distributed over ranks and steps. Everything random about an image belongs
to its position: the number of ranks changes which rank gets a position, never what is at it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError
from pipelines.plan.random import permutation

__all__ = ["EpochOrder", "Places"]

Places = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows of the data set, and their positions in the epoch, both (n,)."""


@dataclass(frozen=True, slots=True)
class EpochOrder:
    """One rank's share of an epoch.

    A permutation of the images is cut into global batches, of which each rank takes its part; images that do not fill
    a batch are left out. With repeated augmentation a global batch has each of its images `repeats` times, so that
    they are on different ranks; an epoch keeps its length and has fewer different images.

    Attributes:
        seed, epoch: Decide the permutation.
        num_samples: Training images, which are the first rows of the data set.
        batch_size: Images per process and step.
        rank, world_size: This process, and how many there are.
        repeats: Times that each image is in a global batch; divides the global batch.
        origin: Position at which the cut into batches begins: above 0 where an epoch is resumed with another
            global batch than it was begun with. As many images as were unreadable before may then come a second
            time in this epoch.
    """

    seed: int
    epoch: int
    num_samples: int
    batch_size: int
    rank: int
    world_size: int
    repeats: int
    origin: int

    @property
    def global_batch(self) -> int:
        """Images per step over all processes."""
        return self.batch_size * self.world_size

    @property
    def num_steps(self) -> int:
        """Full global batches from the origin on."""
        return (self.num_samples - self.origin) // self.global_batch

    def batch(self, step: int, unreadable: frozenset[int]) -> Places:
        """Return this rank's places of a step, counted from the origin.

        This rank's next image takes the place of an unreadable one, and all later ones move up. What is missing at the
        end comes from the images that fill no batch, or else from the rank's first ones. Images before an unreadable
        one do not move, so it may be found while the epoch runs.

        Raises:
            DataError: If no image of this rank is readable.
        """
        if not unreadable:
            return self._assigned(np.array([step]))
        rows, positions = _readable(self, unreadable)
        wanted = np.arange(step * self.batch_size, (step + 1) * self.batch_size) % len(rows)
        return rows[wanted], positions[wanted]

    def _assigned(self, steps: NDArray[np.int64]) -> Places:
        """Return this rank's places of some steps, unreadable images included."""
        first = self.origin + steps[:, None] * self.global_batch
        place = self.rank * self.batch_size + np.arange(self.batch_size)
        images = first // self.repeats + place % (self.global_batch // self.repeats)
        return self._permutation[images.ravel()], (first + place).ravel()

    def _spare(self) -> Places:
        """Return this rank's part of the images that fill no batch."""
        first = self.origin + self.num_steps * self.global_batch
        rows = self._permutation[first // self.repeats :]
        positions = first + np.arange(len(rows))
        return rows[self.rank :: self.world_size], positions[self.rank :: self.world_size]

    @property
    def _permutation(self) -> NDArray[np.int64]:
        return permutation(self.seed, self.epoch, self.num_samples)


@lru_cache(maxsize=2)
def _readable(order: EpochOrder, unreadable: frozenset[int]) -> Places:
    """Return all readable places of a rank's epoch, in order; O(images), so the last two are cached."""
    assigned, spare = order._assigned(np.arange(order.num_steps)), order._spare()  # noqa: SLF001 - its own module
    rows, positions = (np.concatenate(parts) for parts in zip(assigned, spare, strict=True))
    readable = ~np.isin(rows, np.fromiter(unreadable, dtype=np.int64, count=len(unreadable)))
    if not readable.any():
        raise DataError(f"none of the {len(rows)} training images of rank {order.rank} can be read")
    return rows[readable], positions[readable]
