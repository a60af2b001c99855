"""Colour as one affine map per image: jitter and normalisation, composed before any pixel is touched."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BYTES", "IMAGENET", "Normalisation", "jitter_and_normalise"]

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in a grey value (ITU-R BT.601, as torchvision's ``rgb_to_grayscale``)."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and standard deviation per channel of images in 0-1: the first is subtracted, then the second divides."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

BYTES = Normalisation(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
"""Leaves colours in 0-255."""


def jitter_and_normalise(jitter: NDArray[np.float64], normalisation: Normalisation) -> NDArray[np.float32]:
    """Compose brightness, contrast, saturation and normalisation into one affine map per image.

    The order is fixed, contrast is scaled about the grey of the normalisation's mean instead of each image's mean,
    and nothing is clipped in between: see docs/fidelity.md.

    Args:
        jitter: Factors of brightness, contrast and saturation, (n, 3); 1 leaves a property as it is.
        normalisation: Applied last.

    Returns:
        Maps [M | t], (n, 3, 4) float32: ``M @ rgb + t`` takes colours in 0-255 to the network's input.
    """
    brightness, contrast, saturation = (jitter[:, k, None, None] for k in range(3))
    grey = float(LUMA @ np.array(normalisation.mean)) * 255
    mix = saturation * np.eye(3) + (1 - saturation) * np.broadcast_to(LUMA, (3, 3))
    matrix = mix * brightness * contrast
    offset = np.broadcast_to((1 - contrast) * grey, (len(jitter), 3, 1))
    std = np.array(normalisation.std)[:, None]
    mean = np.array(normalisation.mean)[:, None]
    full = np.concatenate([matrix / (255 * std), (offset / 255 - mean) / std], axis=2)
    return full.astype(np.float32)
