"""Operations of augmentation policies: which ones an image gets, in slots, with a magnitude each."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUM_SLOTS", "Operation", "Operations"]

NUM_SLOTS = 2
"""Operations of an image, one after the other."""


class Operation(IntEnum):
    """What `pipelines.dali.operations` does, by number; the magnitude's unit is in brackets."""

    NONE = 0
    SOLARIZE = 1  # inverts values from the magnitude on [0-255]


@dataclass(frozen=True, slots=True, eq=False)
class Operations:
    """The operations of a batch.

    Attributes:
        numbers: Of `Operation`, (n, NUM_SLOTS) int32.
        magnitudes: (n, NUM_SLOTS) float32.
    """

    numbers: NDArray[np.int32]
    magnitudes: NDArray[np.float32]
