"""The batch, as it leaves this package: all that a training loop needs to know of it."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.resolution import Resolution

__all__ = ["Batch"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One batch as the network gets it.

    Attributes:
        images: Normalised images, (n, 3, h, w) in channels-last memory; float32 on CPU, float16 on GPU.
        labels: Class numbers, (n,) int64, on the device of the images.
        ids: Row number of each image in the data set, which elsewhere is called its row, (n,) int64, on the host.
        resolution: The apparent size the plan asked for.
    """

    images: torch.Tensor
    labels: torch.Tensor
    ids: NDArray[np.int64]
    resolution: Resolution

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)
