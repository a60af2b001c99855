"""Whether the graph works on a device, and how fast each decoder is there, on images drawn on the spot."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dali_fixres.demo.draw import draw_image
from pipelines import IMAGENET, Dataset, EvalPlan, Loader, Resolution
from pipelines.dali.choose_decoder import Decoder, Timing, time_decoders
from pipelines.dali.fused.machine_code import entries
from pipelines.dataset.table import make_dataset

__all__ = ["check_graph", "cpu_operator", "time_drawn_images"]

NUM_DRAWN = 64
"""Images that both decoders are timed on, of sizes as in ImageNet."""

GREY = 128
"""Colour, 0-255, of the image that checks the graph."""


def check_graph(device: str, decode: Decoder) -> str:
    """Return what is wrong with the graph on a device, or an empty string: one grey image must come out grey."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = _save(Path(folder), [Image.new("RGB", (80, 60), (GREY, GREY, GREY))])
        try:
            with Loader(dataset, max_batch_size=1, device=device, decode=decode) as loader:
                (batch,) = loader.run(EvalPlan(dataset, batch_size=1).batches(Resolution(32)))
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the finding to show
            return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        mean, std = np.array(IMAGENET.mean), np.array(IMAGENET.std)
        expected = torch.from_numpy((GREY / 255 - mean) / std).float()
        difference = (batch.images.float().cpu()[0].mean(dim=(1, 2)) - expected).abs().max().item()
        return "" if difference < 0.01 else f"the image came out wrong by {difference:.3f}"


def cpu_operator() -> str:
    """Return ``compiled`` if the CPU's operator is, or else why DALI's operators do its work."""
    found = entries()
    return f"DALI's operators, which are slower: {found}" if isinstance(found, str) else "compiled"


def time_drawn_images() -> Timing:
    """Time both decoders on drawn images.

    Raises:
        RunError: If neither works.
    """
    with tempfile.TemporaryDirectory() as folder:
        dataset = _save(Path(folder), [draw_image(0, "val", number) for number in range(NUM_DRAWN)])

        def loader_of(decoder: Decoder) -> Loader:
            return Loader(dataset, max_batch_size=NUM_DRAWN, device="cuda", decode=decoder)

        return time_decoders(dataset, NUM_DRAWN, loader_of, torch.cuda.synchronize)


def _save(folder: Path, images: Sequence[Image.Image]) -> Dataset:
    """Write images as JPEGs and return them as a data set of test images."""
    names = [f"{number:03}.jpg" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        image.save(folder / name, quality=92)
    columns = {
        "labels": np.zeros(len(images), np.int64),
        "heights": np.array([image.height for image in images], np.int64),
        "widths": np.array([image.width for image in images], np.int64),
        "num_bytes": np.array([(folder / name).stat().st_size for name in names], np.int64),
    }
    is_val = np.ones(len(images), np.bool_)
    return make_dataset(folder, ["drawn"], [name.encode() for name in names], columns, is_val=is_val)
