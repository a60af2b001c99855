"""The reference for pixels and accuracies: what torchvision makes of a file on PIL's image."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from pipelines import Resolution

__all__ = ["torchvision_test_image"]


def torchvision_test_image(path: Path, resolution: Resolution, interpolation: str = "bilinear") -> NDArray[np.float32]:
    """Return a test image on the 0-255 scale, (h, w, 3): the shorter side resized, then the centre cropped."""
    with Image.open(path) as image:
        mode = InterpolationMode(interpolation)
        resized = functional.resize(image.convert("RGB"), [resolution.resize_px], mode)
        return np.asarray(functional.center_crop(resized, [resolution.crop_px])).astype(np.float32)
