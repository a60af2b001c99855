"""Random numbers by position: any part of the stream can be had without drawing what comes before it.

Every picture of an epoch has a position in one global order, and a fixed number of uniforms belong to each
position. So the numbers do not depend on how positions are dealt out to ranks and batches.
"""

from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stream", "permutation", "uniforms_at"]

_PER_COUNTER = 4
"""Doubles that one step of Philox's counter yields."""


class Stream(IntEnum):
    """Independent sequences under one seed."""

    ORDER = 0
    AUGMENTATION = 1


def _philox(seed: int, stream: Stream, epoch: int) -> np.random.Philox:
    return np.random.Philox(np.random.SeedSequence([seed, stream, epoch]))


def uniforms_at(seed: int, epoch: int, first: int, count: int, width: int) -> NDArray[np.float64]:
    """Return the uniforms in [0, 1) of positions ``first … first + count``, (count, width) float64."""
    counters = -(-width // _PER_COUNTER)
    philox = _philox(seed, Stream.AUGMENTATION, epoch)
    philox.advance(first * counters)
    drawn = np.random.Generator(philox).random((count, counters * _PER_COUNTER))
    return drawn[:, :width]


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits `size` samples; the last two are kept, for they cost O(size)."""
    order = np.random.Generator(_philox(seed, Stream.ORDER, epoch)).permutation(size)
    order.flags.writeable = False
    return order
