"""Resampling filters, by name and by number."""

from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = ["INTERPOLATIONS", "RADII", "Interpolation", "TrainInterpolation", "planned_interpolation"]

Interpolation: TypeAlias = Literal["bilinear", "bicubic", "lanczos"]
"""PIL's filters of these names: all antialias when they shrink an image."""

TrainInterpolation: TypeAlias = Interpolation | Literal["random"]
"""``random``: bilinear or bicubic, drawn for each image, as timm does."""

INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
"""A filter's number is its place here."""

RADII: NDArray[np.float64] = np.array([1.0, 2.0, 3.0])
"""How far each filter reaches, in pixels of the output."""

RANDOM: tuple[Interpolation, ...] = ("bilinear", "bicubic")


def planned_interpolation(interpolation: TrainInterpolation, uniforms: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the number of each image's filter.

    Args:
        interpolation: One for all, or ``random``.
        uniforms: Random numbers in [0, 1), (n,).
    """
    choice = RANDOM if interpolation == "random" else (interpolation,)
    numbers = np.array([INTERPOLATIONS.index(name) for name in choice], dtype=np.int32)
    return numbers[(uniforms * len(numbers)).astype(np.int64)]
