"""A baseline: torchvision's transforms under torch's DataLoader, on PIL images or, as torchvision-v2, on tensors."""

from collections.abc import Callable, Iterable
from functools import partial
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

    def __init__(self, files: list[tuple[str, int]], read: Callable[[str], Any], transform: Any = None) -> None:
        self._files = files
        self._read = read
        self.transform = transform  # timm's loader sets its own

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        """Return a crop and its class."""
        path, label = self._files[number]
        return self.transform(self._read(path)), label


def read_with_pil(path: str) -> Image.Image:
    """Return an image as PIL decodes it."""
    with Image.open(path) as image:
        return image.convert("RGB")


def images_with_pil(settings: Settings, res: int) -> Images:
    """Return crops of PIL's images."""
    crop = [transforms.RandomResizedCrop(res), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    norm = transforms.Normalize(settings["mean"], settings["std"])
    return Images(settings["files"], read_with_pil, transforms.Compose([*crop, norm]))


def images_as_tensors(settings: Settings, res: int) -> Images:
    """Return crops of what torchvision decodes, resized as bytes."""
    crop = [v2.RandomResizedCrop(res, antialias=True), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]
    norm = v2.Normalize(settings["mean"], settings["std"])
    return Images(settings["files"], partial(decode_image, mode=ImageReadMode.RGB), v2.Compose([*crop, norm]))


def loader(settings: Settings, res: int) -> Iterable[Any]:
    """Return a DataLoader at a resolution."""
    images_of = images_as_tensors if settings["loader"] == "torchvision-v2" else images_with_pil
    return DataLoader(images_of(settings, res), settings["batch_size"], shuffle=True, num_workers=settings["workers"])


if __name__ == "__main__":
    serve(loader, ("torch", "torchvision", "pillow"))
