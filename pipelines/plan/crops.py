"""Crop boxes: which part of each source image becomes the network's input.

A crop box is (y0, x0, y1, x1) in source pixels, as floats; the graph resamples it to a square. Everything here
is a pure function of image sizes and uniform random numbers, vectorised over images.

All crop functions share one signature, so that an augmentation can name any of them:
``(heights (n,), widths (n,), resolution, uniforms (n, NUM_UNIFORMS) in [0, 1)) -> crop boxes (n, 4) float64``.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipelines.resolution import Resolution

__all__ = [
    "NUM_UNIFORMS",
    "CropFunction",
    "Floats",
    "Ints",
    "centre_crop",
    "corner_crop",
    "random_resized_crop",
    "shifted_crop",
    "squash_crop",
]  # fmt: skip

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Range: TypeAlias = tuple[float, float]
CropFunction: TypeAlias = Callable[[Ints, Ints, Resolution, Floats], Floats]

NUM_TRIES = 10
"""Areas and aspects that torchvision's RandomResizedCrop tries before it falls back to a centre crop."""

NUM_UNIFORMS = 2 * NUM_TRIES + 2
"""Random numbers per crop box: an area and an aspect for each try, and a position."""

AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)


def random_resized_crop(
    heights: Ints,
    widths: Ints,
    resolution: Resolution,  # noqa: ARG001
    uniforms: Floats,
    *,
    area: Range = AREA,
    aspect: Range = ASPECT,
) -> Floats:
    """Draw training crop boxes as torchvision's ``RandomResizedCrop.get_params`` does.

    Args:
        heights: Of the images in pixels, (n,).
        widths: Likewise.
        resolution: Not used.
        uniforms: Random numbers in [0, 1), (n, NUM_UNIFORMS).
        area: Least and largest share of the image's area.
        aspect: Least and largest width over height.
    """
    areas = (heights * widths)[:, None] * (area[0] + (area[1] - area[0]) * uniforms[:, :NUM_TRIES])
    low, high = np.log(aspect)
    aspects = np.exp(low + (high - low) * uniforms[:, NUM_TRIES : 2 * NUM_TRIES])
    tried_w, tried_h = np.rint(np.sqrt(areas * aspects)), np.rint(np.sqrt(areas / aspects))
    fits = (tried_w > 0) & (tried_w <= widths[:, None]) & (tried_h > 0) & (tried_h <= heights[:, None])
    first = fits.argmax(axis=1)
    rows = np.arange(len(heights))
    any_fits = fits[rows, first]
    fallback_h, fallback_w = _aspect_limited(heights, widths, aspect)
    h = np.where(any_fits, tried_h[rows, first], fallback_h)
    w = np.where(any_fits, tried_w[rows, first], fallback_w)
    y = np.where(any_fits, np.floor(uniforms[:, -2] * (heights - h + 1)), (heights - h) // 2)
    x = np.where(any_fits, np.floor(uniforms[:, -1] * (widths - w + 1)), (widths - w) // 2)
    return np.stack([y, x, y + h, x + w], axis=1)


def _aspect_limited(heights: Ints, widths: Ints, allowed: Range) -> tuple[Floats, Floats]:
    """Return the largest centre crop whose aspect is allowed: torchvision's fallback."""
    aspects = widths / heights
    h = np.where(aspects < allowed[0], np.rint(widths / allowed[0]), heights)
    w = np.where(aspects > allowed[1], np.rint(heights * allowed[1]), widths)
    return h.astype(np.float64), w.astype(np.float64)


def centre_crop(heights: Ints, widths: Ints, resolution: Resolution, uniforms: Floats) -> Floats:  # noqa: ARG001
    """Return the test crop boxes: "resize the shorter side to R, centre-crop C", in source pixels.

    The offset is rounded half to even, as torchvision's ``center_crop`` does.
    """
    return _centred(heights, widths, resolution, *_resized(heights, widths, resolution))


def squash_crop(heights: Ints, widths: Ints, resolution: Resolution, uniforms: Floats) -> Floats:  # noqa: ARG001
    """Return test crop boxes for "resize both sides to R, centre-crop C": timm's ``crop_mode="squash"``."""
    side = np.full_like(heights, resolution.resize_px)
    return _centred(heights, widths, resolution, side, side)


def shifted_crop(heights: Ints, widths: Ints, resolution: Resolution, uniforms: Floats) -> Floats:
    """Return test crop boxes that are centred vertically and at a random position horizontally.

    This is the crop of the authors' second fine-tuning recipe ("v2").
    """
    resized_h, resized_w = _resized(heights, widths, resolution)
    y = np.rint((resized_h - resolution.crop_px) / 2)
    x = np.floor(uniforms[:, -1] * (resized_w - resolution.crop_px + 1))
    return _in_source(heights, widths, resolution, resized_h, resized_w, y, x)


def corner_crop(
    heights: Ints,
    widths: Ints,
    resolution: Resolution,
    uniforms: Floats,  # noqa: ARG001
    *,
    bottom: bool,
    right: bool,
) -> Floats:
    """Return test crop boxes in a corner of the resized image: with the centre, torchvision's ``five_crop``."""
    resized_h, resized_w = _resized(heights, widths, resolution)
    y, x = (resized_h - resolution.crop_px) * bottom, (resized_w - resolution.crop_px) * right
    return _in_source(heights, widths, resolution, resized_h, resized_w, y.astype(np.float64), x.astype(np.float64))


def _resized(heights: Ints, widths: Ints, resolution: Resolution) -> tuple[Ints, Ints]:
    """Return the sizes with the shorter side at ``resize_px``; the longer is rounded down, as in torchvision."""
    shorter = np.minimum(heights, widths)
    return heights * resolution.resize_px // shorter, widths * resolution.resize_px // shorter


def _centred(heights: Ints, widths: Ints, resolution: Resolution, resized_h: Ints, resized_w: Ints) -> Floats:
    """Return the boxes of the centre crop of images resized to these sizes."""
    y, x = (np.rint((resized - resolution.crop_px) / 2) for resized in (resized_h, resized_w))
    return _in_source(heights, widths, resolution, resized_h, resized_w, y, x)


def _in_source(
    heights: Ints, widths: Ints, resolution: Resolution, resized_h: Ints, resized_w: Ints, y: Floats, x: Floats
) -> Floats:
    """Map a crop at (y, x) of the resized image back to source coordinates."""
    per_row, per_column = heights / resized_h, widths / resized_w
    side = resolution.crop_px
    return np.stack([y * per_row, x * per_column, (y + side) * per_row, (x + side) * per_column], axis=1)
