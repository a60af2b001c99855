"""A baseline: torchvision's transforms under torch's DataLoader, on PIL images or, as torchvision-v2, on tensors."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from bench.baselines.protocol import Settings, serve


class Images(Dataset[tuple[torch.Tensor, int]]):
    """The files, as torchvision's ImageFolder gives them to a training loop."""

    def __init__(self, files: list[tuple[str, int]], load: Callable[[str], torch.Tensor]) -> None:
        self._files = files
        self._load = load

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        """Return a crop and its class."""
        path, label = self._files[number]
        return self._load(path), label


class WithPil:
    """Reads with PIL."""

    def __init__(self, settings: Settings, res: int) -> None:
        self._transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(res),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(settings["mean"], settings["std"]),
            ]
        )

    def __call__(self, path: str) -> torch.Tensor:
        """Return a crop."""
        with Image.open(path) as image:
            crop: torch.Tensor = self._transform(image.convert("RGB"))
        return crop


class WithTensors:
    """Reads with torchvision's decoder; resizes bytes."""

    def __init__(self, settings: Settings, res: int) -> None:
        self._transform = v2.Compose(
            [
                v2.RandomResizedCrop(res, antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(settings["mean"], settings["std"]),
            ]
        )

    def __call__(self, path: str) -> torch.Tensor:
        """Return a crop."""
        crop: torch.Tensor = self._transform(decode_image(path, ImageReadMode.RGB))
        return crop


def loader(settings: Settings, res: int) -> Iterable[Any]:
    """Return a DataLoader at a resolution."""
    load = WithTensors if settings["loader"] == "torchvision-v2" else WithPil
    images = Images(settings["files"], load(settings, res))
    return DataLoader(images, settings["batch_size"], shuffle=True, num_workers=settings["workers"])


if __name__ == "__main__":
    serve(loader, ("torch", "torchvision", "pillow"))
