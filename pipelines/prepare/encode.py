"""One image, decoded once and encoded at several sizes."""

import io
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from pipelines.dataset.formats.prepared import FULL
from pipelines.dataset.headers import FORMATS

__all__ = ["Copy", "CopySettings", "Layout", "encode_copies"]

Layout: TypeAlias = Literal["shards", "folder"]
"""WebDataset tar shards, or a file per copy in class folders."""

NOT_PLAIN = {"exif", "icc_profile", "progressive"}
"""Properties of a JPEG that make other readers turn or recolour it, or that make it slow to decode."""

FULL_COLOUR, HALF_COLOUR = "4:4:4", "4:2:0"
"""Colour at every pixel, or, as in most photographs, at every second one. A resized copy is read where it has just
enough pixels for a crop, so it needs colour at each of them."""


@dataclass(frozen=True, slots=True)
class CopySettings:
    """Which copies are made of each image, and how they are stored.

    Attributes:
        sides: Shorter sides of the resized copies in pixels, ascending.
        max_side: Longest side of the full copy, pixels; None to make none.
        quality: JPEG quality, from 1 to 95.
        layout: How copies are stored.
        shard_size: Images per shard.
    """

    sides: tuple[int, ...]
    max_side: int | None
    quality: int
    layout: Layout
    shard_size: int

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders of the copies below the target, the full one last."""
        return (*map(str, self.sides), *((FULL,) if self.max_side else ()))


@dataclass(frozen=True, slots=True)
class Copy:
    """An encoded copy and its size in pixels."""

    content: bytes
    height: int
    width: int


def encode_copies(content: bytes, settings: CopySettings) -> dict[str, Copy]:
    """Return the copies of an encoded image by folder; only resized copies that are smaller than the full copy.

    EXIF orientation and colour profiles are ignored, as in training; grey and CMYK become RGB. The bytes depend on the
    image and the settings alone. The full copy of a plain JPEG is the very file, if that is no larger than `max_side`
    and takes no more bytes than its copy would.

    Raises:
        Exception: Whatever PIL raises for a broken image.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        rgb = _rgb(image)
        is_photograph = image.format == "JPEG" and image.mode == "RGB"
        is_plain = is_photograph and not image.info.keys() & NOT_PLAIN
    width, height = rgb.size
    max_side = settings.max_side
    scale = min(1.0, max_side / max(height, width)) if max_side else 1.0
    copies = {}
    for side in settings.sides:
        if side < round(scale * min(height, width)):
            copies[str(side)] = _scaled(rgb, side / min(height, width), settings.quality, FULL_COLOUR)
    if max_side:
        colour = HALF_COLOUR if is_photograph and scale == 1 else FULL_COLOUR
        full = _scaled(rgb, scale, settings.quality, colour)
        # Encoding it again would lose detail and gain nothing.
        keep = is_plain and scale == 1 and len(content) <= len(full.content)
        copies[FULL] = Copy(content, height, width) if keep else full
    return copies


def _rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB of 8 bits; 16 bits are scaled down, where PIL would cut off what is above 255."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return image.convert("RGB")


def _scaled(rgb: Image.Image, scale: float, quality: int, subsampling: str) -> Copy:
    width, height = (max(1, round(side * scale)) for side in rgb.size)
    small = rgb if (width, height) == rgb.size else rgb.resize((width, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return Copy(file.getvalue(), height, width)
