"""Images for tests, drawn on the spot."""

import numpy as np
from PIL import Image


def natural_image(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Draw smooth coloured noise with sharp-edged boxes: low and high frequencies, as photographs have them."""
    coarse = rng.integers(0, 256, (height // 24 + 2, width // 24 + 2, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).copy()
    for _ in range(12):
        y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
        h, w = rng.integers(3, height // 3), rng.integers(3, width // 3)
        pixels[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)
