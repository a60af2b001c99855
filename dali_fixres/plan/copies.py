"""Which pre-scaled copy of a picture is read for a crop."""

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dali_fixres.config import Copies
from dali_fixres.index import BASE, Index
from dali_fixres.resolution import Resolution

__all__ = ["SOURCE_PIXELS", "choose_copies"]

SOURCE_PIXELS: MappingProxyType[Copies, float] = MappingProxyType({"exact": 1.0, "fast": 0.7, "original": np.inf})
"""Pixels of a copy that there have to be, along each side, for each pixel of the crop."""


def choose_copies(
    index: Index, ids: NDArray[np.int64], windows: NDArray[np.float64], resolution: Resolution, copies: Copies
) -> NDArray[np.int64]:
    """Return the smallest copy of each picture with enough pixels in its window, or `BASE`, (n,) int64.

    Args:
        index: The data set.
        ids: Its rows, (n,).
        windows: In pixels of the pictures themselves, (n, 4).
        resolution: What they are resized to.
        copies: How many pixels are enough.
    """
    sizes = windows[:, 2:] - windows[:, :2]
    needed = SOURCE_PIXELS[copies] * resolution.crop_px
    chosen = np.full(len(ids), BASE, dtype=np.int64)
    for number in reversed(range(len(index.rungs))):
        rung = index.rungs[number]
        scales = np.stack([rung.heights[ids] / index.heights[ids], rung.widths[ids] / index.widths[ids]], axis=1)
        # A hair less is enough: sizes of copies are rounded.
        enough = (sizes * scales >= needed * (1 - 1e-3)).all(axis=1) & (rung.heights[ids] > 0)
        chosen[enough] = number
    return chosen
