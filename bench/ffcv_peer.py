"""FFCV's side of `bench/prepared.py`, run by the Python of an environment that has FFCV, and no part of ours.

Reads JSON lines: first the settings, then one ``{"res": …}`` per repeat, each answered with a line of images/s.
Pictures are encoded again with the longest side and JPEG quality that our copies have. Random resized crop, flip and
normalisation to float32 run on the CPU, in the order that is fast with FFCV: normalised before they become tensors.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter
from PIL import Image

WARM_UP = 4
"""As in loaders.py, which cannot be imported here."""


class Pictures:
    """What is written into FFCV's file."""

    def __init__(self, files: list[list[Any]]) -> None:
        self._files = files

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        """Return a picture and its class."""
        path, label = self._files[number]
        return Image.open(path).convert("RGB"), label


def write(settings: dict[str, Any]) -> None:
    """Write the pictures, encoded again."""
    image = RGBImageField(write_mode="jpg", max_resolution=settings["max_side"], jpeg_quality=settings["quality"])
    writer = DatasetWriter(settings["file"], {"image": image, "label": IntField()}, num_workers=settings["workers"])
    writer.from_indexed_dataset(Pictures(settings["files"]))


def loader(settings: dict[str, Any], res: int) -> Any:
    """Return FFCV's loader at a resolution."""
    mean, std = (255 * np.array(settings[name]) for name in ("mean", "std"))
    image = [
        RandomResizedCropRGBImageDecoder((res, res)),
        RandomHorizontalFlip(),
        NormalizeImage(mean, std, np.float32),
        ToTensor(),
        ToTorchImage(),
    ]
    return Loader(
        settings["file"],
        batch_size=settings["batch_size"],
        num_workers=settings["workers"],
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={"image": image, "label": [IntDecoder(), ToTensor(), Squeeze()]},
    )


def measure(batches: Any, num_batches: int) -> float:
    """Return images/s, without the first batches and with more to come after the last."""
    source = iter(batches)
    for _ in range(WARM_UP):
        next(source)
    started = time.perf_counter()
    count = sum(len(next(source)[0]) for _ in range(num_batches))
    return count / (time.perf_counter() - started)


def main() -> None:
    """Answer requests until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr  # FFCV may print
    settings = json.loads(sys.stdin.readline())
    write(settings)
    loaders = {res: loader(settings, res) for res in settings["resolutions"]}
    versions = {name: version(name) for name in ("ffcv", "torch", "numba", "numpy")}
    megabytes = round(Path(settings["file"]).stat().st_size / 1e6, 1)
    print(json.dumps({**versions, "megabytes": megabytes}), file=answers, flush=True)
    for line in sys.stdin:
        print(measure(loaders[json.loads(line)["res"]], settings["num_batches"]), file=answers, flush=True)


if __name__ == "__main__":
    main()
