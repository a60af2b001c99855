"""Images to measure with where no data set is at hand, drawn from a seed."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines import cache_folder, usable_cores

__all__ = ["bench_images"]

NUM_TRAIN, NUM_VAL = 1600, 40

VERSION = 1
"""Raised whenever the same seed gives other images."""


def bench_images() -> Path:
    """Return 1,640 images of ImageNet's sizes and weight (mean 115 kB) in 10 classes, drawn once into the cache.

    Their spectrum falls as that of photographs does, so decoding costs what it costs there. They show nothing.
    """
    folder = cache_folder() / f"bench-v{VERSION}"
    if not folder.exists():
        partial_folder = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial_folder, ignore_errors=True)
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(partial(_draw, partial_folder), range(NUM_TRAIN + NUM_VAL)))
        partial_folder.rename(folder)
    return folder


def _draw(folder: Path, number: int) -> None:
    path = folder / ("train" if number < NUM_TRAIN else "val") / f"c{number % 10}" / f"{number:05}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    longer = 500 if rng.random() < 0.7 else int(rng.integers(350, 600))
    shorter = round(longer / rng.choice([4 / 3, 3 / 2, 1.0], p=[0.6, 0.3, 0.1]))
    height, width = (longer, shorter) if rng.random() < 0.25 else (shorter, longer)
    grey, *colours = (_noise(rng, height, width) for _ in range(3))
    pixels = np.stack([grey + 0.3 * colours[0], grey, grey + 0.3 * colours[1]], axis=-1)
    Image.fromarray(np.clip(128 + 55 * pixels, 0, 255).astype(np.uint8)).save(path, quality=95)


def _noise(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Return noise of unit variance whose amplitude falls with the frequency to the power of 1.3."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    phases = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
    noise = np.fft.irfft2(phases * frequency**-1.3, s=(height, width))
    normed: NDArray[np.float64] = noise / noise.std()
    return normed
