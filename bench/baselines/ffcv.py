"""A baseline: FFCV, with images written again into a file of its own, at the longest side and JPEG quality it is told.

As ffcv all of them are JPEG; as ffcv-raw50 half of them, drawn by lot, are bare pixels, as in FFCV's own recipe for
ImageNet: faster to read, and a much larger file. Normalised before they become tensors, which is the order that is fast
with FFCV.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Numba, when it is loaded, is told the most threads that it will ever have: one more than cores are tried.
os.environ.setdefault("NUMBA_NUM_THREADS", str(len(os.sched_getaffinity(0)) + 1))

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter
from PIL import Image

from bench.baselines.protocol import Settings, serve


class Images:
    """What is written into FFCV's file."""

    def __init__(self, files: list[list[Any]]) -> None:
        self._files = files

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        """Return an image and its class."""
        path, label = self._files[number]
        return Image.open(path).convert("RGB"), label


def written(settings: Settings) -> str:
    """Return FFCV's file, written by the first resolution that asks for it."""
    file = Path(settings["scratch"]) / f"{settings['loader']}-{len(settings['files'])}.beton"
    if not file.exists():
        image = RGBImageField(
            write_mode="proportion",
            compress_probability=0.5 if settings["loader"] == "ffcv-raw50" else 1.0,
            max_resolution=settings["max_side"],
            jpeg_quality=settings["quality"],
        )
        writer = DatasetWriter(str(file), {"image": image, "label": IntField()}, num_workers=settings["workers"])
        writer.from_indexed_dataset(Images(settings["files"]))
    return str(file)


def loader(settings: Settings, res: int) -> Iterable[Any]:
    """Return FFCV's loader at a resolution."""
    mean, std = (255 * np.array(settings[name]) for name in ("mean", "std"))
    image = [
        RandomResizedCropRGBImageDecoder((res, res)),
        RandomHorizontalFlip(),
        NormalizeImage(mean, std, np.float32),
        ToTensor(),
        ToTorchImage(),
    ]
    batches: Iterable[Any] = Loader(
        written(settings),
        batch_size=settings["batch_size"],
        num_workers=settings["workers"],
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={"image": image, "label": [IntDecoder(), ToTensor(), Squeeze()]},
    )
    return batches


if __name__ == "__main__":
    serve(loader, ("ffcv", "torch", "numba", "numpy"))
