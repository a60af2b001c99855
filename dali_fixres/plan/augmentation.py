"""Named ways to look at training pictures: which window, whether mirrored, how much colour jitter."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dali_fixres.windows import (
    NUM_UNIFORMS,
    WindowFunction,
    centre_window,
    random_resized_window,
    shifted_window,
)

__all__ = ["AUGMENTATIONS", "UNIFORMS_PER_SAMPLE", "Augmentation"]

UNIFORMS_PER_SAMPLE = NUM_UNIFORMS + 4
"""Random numbers per picture: its window, its flip, its three jitter factors."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How pictures are varied.

    Attributes:
        window: Where to look.
        flip: Whether half of the pictures are mirrored.
        jitter: Brightness, contrast and saturation are scaled by factors within 1 ± this.
    """

    window: WindowFunction
    flip: bool
    jitter: float

    def flips(self, uniforms: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which pictures are mirrored, (n,)."""
        return (uniforms[:, NUM_UNIFORMS] < 0.5) & self.flip

    def jitters(self, uniforms: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return the colour factors, (n, 3), or None if colours stay."""
        if self.jitter == 0:
            return None
        return 1 + self.jitter * (2 * uniforms[:, NUM_UNIFORMS + 1 :] - 1)


AUGMENTATIONS = MappingProxyType(
    {
        "train": Augmentation(random_resized_window, flip=True, jitter=0.3),
        "v1": Augmentation(centre_window, flip=False, jitter=0.0),
        "v2": Augmentation(shifted_window, flip=True, jitter=0.05),
    }
)
"""``train``: FixRes' training; ``v1`` and ``v2``: the authors' first and second way to fine-tune."""
