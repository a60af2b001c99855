"""Which resized copy of an image is read for a crop."""

from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipelines.dataset import ORIGINAL, Dataset
from pipelines.resolution import Resolution

__all__ = ["SOURCE_PIXELS", "Copies", "choose_copies"]

Copies: TypeAlias = Literal["exact", "fast", "original"]
"""Which resized copies are read: those that need no upsampling, those with at least 0.7 times the crop's pixels along
each side, or none."""

SOURCE_PIXELS: MappingProxyType[Copies, float] = MappingProxyType({"exact": 1.0, "fast": 0.7, "original": np.inf})
"""Least ratio of a copy's pixels in the crop box to the crop's pixels, along each side."""


def choose_copies(
    dataset: Dataset, ids: NDArray[np.int64], crop_boxes: NDArray[np.float64], resolution: Resolution, copies: Copies
) -> NDArray[np.int64]:
    """Return the smallest copy of each image with enough pixels in its crop box, or `ORIGINAL`, (n,) int64.

    Args:
        dataset: The data set.
        ids: Its rows, (n,).
        crop_boxes: In pixels of the originals, (n, 4).
        resolution: What they are resized to.
        copies: How many pixels are enough.
    """
    sizes = crop_boxes[:, 2:] - crop_boxes[:, :2]
    needed = SOURCE_PIXELS[copies] * resolution.crop_px
    chosen = np.full(len(ids), ORIGINAL, dtype=np.int64)
    for number in reversed(range(len(dataset.copies))):
        copy = dataset.copies[number]
        scales = np.stack([copy.heights[ids] / dataset.heights[ids], copy.widths[ids] / dataset.widths[ids]], axis=1)
        # With a tolerance, as sizes of copies are rounded.
        enough = (sizes * scales >= needed * (1 - 1e-3)).all(axis=1) & (copy.heights[ids] > 0)
        chosen[enough] = number
    return chosen
