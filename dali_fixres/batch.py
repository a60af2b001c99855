"""What flows: the plan's order for one batch, and the batch that the graph makes of it."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dali_fixres.resolution import Resolution

__all__ = ["Batch", "BatchPlan"]


@dataclass(frozen=True, slots=True, eq=False)
class BatchPlan:
    """One batch, decided but not yet read.

    Attributes:
        ids: Rows of the index, (n,) int64.
        windows: Source windows (y0, x0, y1, x1) in pixels, (n, 4) float64.
        flip: Which pictures are mirrored left to right, (n,) bool.
        jitter: Factors of brightness, contrast and saturation, (n, 3) float64; None leaves colours alone.
        resolution: The apparent size of every picture of the batch.
        rungs: Which copy of each picture is read, (n,) int64: a position in `Index.rungs`, or `BASE`.
    """

    ids: NDArray[np.int64]
    windows: NDArray[np.float64]
    flip: NDArray[np.bool_]
    jitter: NDArray[np.float64] | None
    resolution: Resolution
    rungs: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One batch as the network gets it.

    Attributes:
        images: Normalised pictures, (n, 3, h, w) in channels-last memory; float32 on CPU, float16 on GPU.
        labels: Class numbers, (n,) int64, on the device of the images.
        ids: Rows of the index, (n,) int64, on the host.
        resolution: The apparent size the plan asked for.
    """

    images: torch.Tensor
    labels: torch.Tensor
    ids: NDArray[np.int64]
    resolution: Resolution

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.ids)
