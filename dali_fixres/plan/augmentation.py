"""Named ways to look at training pictures: which window, whether mirrored, how much colour jitter."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dali_fixres.batch import BatchPlan
from dali_fixres.config import Copies
from dali_fixres.index import Index
from dali_fixres.plan.copies import choose_copies
from dali_fixres.resolution import Resolution
from dali_fixres.views import LOOKS, Views
from dali_fixres.windows import (
    NUM_UNIFORMS,
    WindowFunction,
    centre_window,
    random_resized_window,
    shifted_window,
)

__all__ = ["AUGMENTATIONS", "UNIFORMS_PER_SAMPLE", "Augmentation", "looks_of", "plan_batch"]

UNIFORMS_PER_SAMPLE = NUM_UNIFORMS + 4
"""Random numbers per picture: its window, its flip, its three jitter factors."""

RANDOM_WINDOWS = (random_resized_window, shifted_window)
"""Those that use their random numbers."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How pictures are varied.

    Attributes:
        window: Where to look.
        flip: Share of the pictures that are mirrored.
        jitter: Brightness, contrast and saturation are scaled by factors within 1 ± this.
    """

    window: WindowFunction
    flip: float
    jitter: float

    @property
    def is_random(self) -> bool:
        """Whether two looks at a picture may differ."""
        return 0 < self.flip < 1 or self.jitter > 0 or self.window in RANDOM_WINDOWS


AUGMENTATIONS = MappingProxyType(
    {
        "train": Augmentation(random_resized_window, flip=0.5, jitter=0.3),
        "v1": Augmentation(centre_window, flip=0.0, jitter=0.0),
        "v2": Augmentation(shifted_window, flip=0.5, jitter=0.05),
    }
)
"""``train``: FixRes' training; ``v1`` and ``v2``: the authors' first and second way to fine-tune."""


def looks_of(views: Views) -> tuple[Augmentation, ...]:
    """Return the looks whose answers are averaged, each as an augmentation that leaves nothing to chance."""
    return tuple(Augmentation(look.window, flip=float(look.mirrored), jitter=0.0) for look in LOOKS[views])


def plan_batch(
    index: Index,
    ids: NDArray[np.int64],
    augmentation: Augmentation,
    resolution: Resolution,
    uniforms: NDArray[np.float64],
    copies: Copies = "exact",
) -> BatchPlan:
    """Order one batch.

    Args:
        index: The data set.
        ids: Its rows, (n,).
        augmentation: How they are looked at.
        resolution: At which size.
        uniforms: Random numbers in [0, 1), (n, UNIFORMS_PER_SAMPLE).
        copies: Which pre-scaled copies may be read, if there are any.
    """
    windows = augmentation.window(index.heights[ids], index.widths[ids], resolution, uniforms[:, :NUM_UNIFORMS])
    jitter = 1 + augmentation.jitter * (2 * uniforms[:, NUM_UNIFORMS + 1 :] - 1)
    return BatchPlan(
        ids=ids,
        windows=windows,
        flip=uniforms[:, NUM_UNIFORMS] < augmentation.flip,
        jitter=jitter if augmentation.jitter > 0 else None,
        resolution=resolution,
        rungs=choose_copies(index, ids, windows, resolution, copies),
    )
