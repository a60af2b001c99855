"""Random numbers by position: any of them can be drawn without those before.

Every image of an epoch has a position in one global order, and a fixed number of uniforms belong to each
position. So the numbers do not depend on how positions are distributed over ranks and batches.
"""

from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stream", "permutation", "step_seed", "uniforms_at", "uniforms_of"]

_PER_COUNTER = 4
"""Doubles per step of Philox's counter."""


class Stream(IntEnum):
    """Independent sequences under one seed."""

    ORDER = 0
    AUGMENTATION = 1
    NETWORK = 2


def _philox(seed: int, stream: Stream, epoch: int) -> np.random.Philox:
    return np.random.Philox(np.random.SeedSequence([seed, stream, epoch]))


def uniforms_at(seed: int, epoch: int, first: int, count: int, width: int) -> NDArray[np.float64]:
    """Return the uniforms in [0, 1) of positions ``first … first + count``, (count, width) float64."""
    counters = -(-width // _PER_COUNTER)
    philox = _philox(seed, Stream.AUGMENTATION, epoch)
    philox.advance(first * counters)
    drawn = np.random.Generator(philox).random((count, counters * _PER_COUNTER))
    return drawn[:, :width]


def uniforms_of(seed: int, epoch: int, positions: NDArray[np.int64], width: int) -> NDArray[np.float64]:
    """Return the uniforms in [0, 1) of any positions, (n, width) float64; fast where most follow one another."""
    runs = np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1)
    return np.concatenate([uniforms_at(seed, epoch, int(run[0]), len(run), width) for run in runs])


def step_seed(seed: int, rank: int, step: int) -> int:
    """Return the seed, 64 bits, of what a network draws in a step (dropout): no random state has to be saved."""
    return int(np.random.SeedSequence([seed, Stream.NETWORK, rank, step]).generate_state(1, np.uint64)[0])


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits `size` samples; the last two are cached, as each costs O(size)."""
    order = np.random.Generator(_philox(seed, Stream.ORDER, epoch)).permutation(size)
    order.flags.writeable = False
    return order
