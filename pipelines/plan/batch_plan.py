"""One planned batch: the input of the graph."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.plan.operations import Operations
from pipelines.resolution import Resolution

__all__ = ["BatchPlan"]


@dataclass(frozen=True, slots=True, eq=False)
class BatchPlan:
    """One batch, planned but not yet read.

    Attributes:
        ids: Row number of each image in the data set, which elsewhere is called its row, (n,) int64.
        crop_boxes: Source crop boxes (y0, x0, y1, x1) in pixels, (n, 4) float64.
        flip: Which images are mirrored left to right, (n,) bool.
        flip_vertical: Which images are mirrored top to bottom, (n,) bool.
        interpolation: What resizes each crop, (n,) int32: positions in `INTERPOLATIONS`.
        jitter: Factors of brightness, contrast and saturation, (n, 3) float64; None leaves colours alone.
        resolution: The apparent size of every image of the batch.
        copy_ids: Which copy of each image is read, (n,) int64: a position in `Dataset.copies`, or `ORIGINAL`.
        as_pil: Whether a CPU calculates the crops as PIL does, to the same bytes; rounding takes time.
        operations: What is done to the crops in bytes, before they are normalised; None for nothing.
        erased: Boxes (y0, x0, y1, x1) of the crop that are set to 0, the mean colour where images are normalised,
            (n, boxes, 4) int32; None for none.
    """

    ids: NDArray[np.int64]
    crop_boxes: NDArray[np.float64]
    flip: NDArray[np.bool_]
    flip_vertical: NDArray[np.bool_]
    interpolation: NDArray[np.int32]
    jitter: NDArray[np.float64] | None
    resolution: Resolution
    copy_ids: NDArray[np.int64]
    as_pil: bool = False
    operations: Operations | None = None
    erased: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)
