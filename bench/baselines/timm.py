"""A baseline: the loader of timm's training script, which normalises whole batches in the main process."""

from collections.abc import Iterable
from typing import Any

import torch
from timm.data.loader import create_loader

from bench.baselines.protocol import Settings, serve
from bench.baselines.torchvision import Images, read_with_pil


def loader(settings: Settings, res: int) -> Iterable[Any]:
    """Return timm's loader at a resolution: crop and flip as in its script, without colour jitter."""
    images: Any = Images(settings["files"], read_with_pil)  # timm names its own kinds of data sets, and takes any
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
