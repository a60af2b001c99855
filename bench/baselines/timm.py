"""A baseline: the loader of timm's training script, which normalises whole batches in the main process."""

from collections.abc import Iterable
from typing import Any

import torch
from PIL import Image
from timm.data.loader import create_loader
from torch.utils.data import Dataset

from bench.baselines.protocol import Settings, serve


class Images(Dataset[tuple[Any, int]]):
    """The files; `create_loader` sets the transform."""

    def __init__(self, files: list[tuple[str, int]]) -> None:
        self._files = files
        self.transform: Any = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        """Return a crop and its class."""
        path, label = self._files[number]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


def loader(settings: Settings, res: int) -> Iterable[Any]:
    """Return timm's loader at a resolution: crop and flip as in its script, without colour jitter."""
    images: Any = Images(settings["files"])  # timm names its own kinds of data sets, and takes any
    batches: Iterable[Any] = create_loader(
        images,
        input_size=(3, res, res),
        batch_size=settings["batch_size"],
        is_training=True,
        color_jitter=0.0,
        interpolation="bilinear",
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        num_workers=settings["workers"],
        persistent_workers=False,
        device=torch.device("cpu"),
    )
    return batches


if __name__ == "__main__":
    serve(loader, ("timm", "torch", "pillow"))
