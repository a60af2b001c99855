"""One rgb, decoded once and encoded at several sizes."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.dataset.headers import FORMATS

__all__ = ["Copy", "Sizes", "encode_copies", "total_bytes"]


NOT_PLAIN = {"exif", "icc_profile", "progressive"}
"""What other readers would turn or recolour a JPEG by, or what makes it slow to decode."""


FULL_COLOUR, HALF_COLOUR = "4:4:4", "4:2:0"
"""Colour at every pixel, or, as in most photographs, at every second one. What is scaled down is read where it has just
enough pixels for a crop, so it needs colour at each of them."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Which copies are made of each rgb.

    Attributes:
        sides: Shorter sides in pixels, ascending.
        max_side: Longest side of the full copy, pixels; None to make none.
        quality: Of the JPEGs.
    """

    sides: tuple[int, ...]
    max_side: int | None
    quality: int

    @property
    def names(self) -> tuple[str, ...]:
        """Folders of the copies, the full one last."""
        return (*map(str, self.sides), *(("full",) if self.max_side else ()))


@dataclass(frozen=True, slots=True)
class Copy:
    """An encoded copy and its size in pixels."""

    content: bytes
    height: int
    width: int


def encode_copies(content: bytes, sizes: Sizes) -> dict[str, Copy]:
    """Return the copies of an encoded rgb by folder; no resized copy that would not be smaller than the full copy.

    As the trainer sees it: not turned by EXIF, colour profiles passed over, grey and CMYK made RGB. The bytes depend on
    the rgb and the settings alone. The full copy of a plain JPEG that is within bounds, and no longer than its
    copy would be, is that very file.

    Raises:
        Exception: Whatever a broken rgb makes PIL raise.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        rgb = _rgb(image)
        photograph = image.format == "JPEG" and image.mode == "RGB"
        plain = photograph and not image.info.keys() & NOT_PLAIN
    width, height = rgb.size
    scale = min(1.0, sizes.max_side / max(height, width)) if sizes.max_side else 1.0
    copies = {}
    for side in sizes.sides:
        if side < round(scale * min(height, width)):
            copies[str(side)] = _scaled(rgb, side / min(height, width), sizes.quality, FULL_COLOUR)
    if sizes.max_side:
        colour = HALF_COLOUR if photograph and scale == 1 else FULL_COLOUR
        full = _scaled(rgb, scale, sizes.quality, colour)
        # Encoding it again would lose detail and gain nothing.
        keep = plain and scale == 1 and len(content) <= len(full.content)
        copies["full"] = Copy(content, height, width) if keep else full
    return copies


def _rgb(image: Image.Image) -> Image.Image:
    """Return a rgb as RGB of 8 bits; 16 bits are scaled down, where PIL would cut off what is above 255."""
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


def total_bytes(copies: Sequence[Copy]) -> int:
    """Return what copies take in tar files: a member is a block of header and whole blocks; .cls and .json have one."""
    return sum((1 + -(-len(copy.content) // 512) + 2 + 2) * 512 for copy in copies)
