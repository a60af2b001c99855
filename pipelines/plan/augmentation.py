"""Named augmentations: which crop box, whether mirrored, how much colour jitter, which interpolation."""

from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pipelines.dataset import Dataset
from pipelines.plan.batch_plan import BatchPlan
from pipelines.plan.copies import Copies, choose_copies
from pipelines.plan.crops import (
    NUM_UNIFORMS,
    CropFunction,
    centre_crop,
    random_resized_crop,
    shifted_crop,
)
from pipelines.plan.interpolation import TrainInterpolation, planned_interpolation
from pipelines.plan.views import VIEWS, Views
from pipelines.resolution import Resolution

__all__ = ["AUGMENTATIONS", "UNIFORMS_PER_SAMPLE", "Augmentation", "plan_batch", "views_of"]

FLIP, JITTER = NUM_UNIFORMS, slice(NUM_UNIFORMS + 1, NUM_UNIFORMS + 4)
INTERPOLATION, FLIP_VERTICAL = NUM_UNIFORMS + 4, NUM_UNIFORMS + 5
"""Places of an image's random numbers; those of its crop box come first."""

UNIFORMS_PER_SAMPLE = NUM_UNIFORMS + 6
"""Random numbers per image."""

RANDOM_CROPS = (random_resized_crop, shifted_crop)
"""Crop functions that use their random numbers."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How images are varied.

    Attributes:
        crop: Draws the crop boxes.
        flip: Share of the images that are mirrored left to right.
        jitter: Brightness, contrast and saturation are scaled by factors within 1 ± this.
        interpolation: What resizes the crop.
        flip_vertical: Share of the images that are mirrored top to bottom.
        as_pil: Whether a CPU calculates crops to PIL's very bytes, as is right for tests.
    """

    crop: CropFunction
    flip: float
    jitter: float
    interpolation: TrainInterpolation = "bilinear"
    flip_vertical: float = 0.0
    as_pil: bool = False

    @property
    def is_random(self) -> bool:
        """Whether two views of an image may differ."""
        flips = 0 < self.flip < 1 or 0 < self.flip_vertical < 1
        crop = self.crop.func if isinstance(self.crop, partial) else self.crop
        return flips or self.jitter > 0 or self.interpolation == "random" or crop in RANDOM_CROPS


AUGMENTATIONS = MappingProxyType(
    {
        "train": Augmentation(random_resized_crop, flip=0.5, jitter=0.3),
        "v1": Augmentation(centre_crop, flip=0.0, jitter=0.0, as_pil=True),
        "v2": Augmentation(shifted_crop, flip=0.5, jitter=0.05),
    }
)
"""``train``: FixRes' training; ``v1`` and ``v2``: the authors' first and second fine-tuning recipe."""


def views_of(views: Views) -> tuple[Augmentation, ...]:
    """Return the views whose predictions are averaged, each as an augmentation without randomness."""
    return tuple(Augmentation(view.crop, flip=float(view.mirrored), jitter=0.0, as_pil=True) for view in VIEWS[views])


def plan_batch(
    dataset: Dataset,
    ids: NDArray[np.int64],
    augmentation: Augmentation,
    resolution: Resolution,
    uniforms: NDArray[np.float64],
    copies: Copies = "exact",
) -> BatchPlan:
    """Plan one batch.

    Args:
        dataset: The data set.
        ids: Its rows, (n,).
        augmentation: How the images are varied.
        resolution: The size they are resized to.
        uniforms: Random numbers in [0, 1), (n, UNIFORMS_PER_SAMPLE).
        copies: Which resized copies may be read, if there are any.
    """
    crop_boxes = augmentation.crop(dataset.heights[ids], dataset.widths[ids], resolution, uniforms[:, :NUM_UNIFORMS])
    jitter = 1 + augmentation.jitter * (2 * uniforms[:, JITTER] - 1)
    return BatchPlan(
        ids=ids,
        crop_boxes=crop_boxes,
        flip=uniforms[:, FLIP] < augmentation.flip,
        flip_vertical=uniforms[:, FLIP_VERTICAL] < augmentation.flip_vertical,
        interpolation=planned_interpolation(augmentation.interpolation, uniforms[:, INTERPOLATION]),
        jitter=jitter if augmentation.jitter > 0 else None,
        resolution=resolution,
        copy_ids=choose_copies(dataset, ids, crop_boxes, resolution, copies),
        as_pil=augmentation.as_pil,
    )
