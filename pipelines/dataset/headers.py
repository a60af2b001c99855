"""Sizes of images from their headers, without decoding them, many at a time."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

__all__ = ["FORMATS", "NOT_AN_IMAGE", "FileSpan", "Header", "read_headers"]

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
"""What both DALI's decoders and PIL read."""

NOT_AN_IMAGE = "not a JPEG, PNG, BMP, TIFF, WebP, PNM or JPEG 2000 image"

NUM_THREADS = 8
"""More than cores: on network folders most of the time is waiting for the first bytes of each file."""

CHUNK = 64

FIRST_BYTES = 1 << 14
"""Read of each image at first; nearly all headers end within."""


@dataclass(frozen=True, slots=True)
class Header:
    """An image's size in pixels, or in `problem` why the file cannot be used."""

    height: int = 0
    width: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class FileSpan:
    """The bytes of an image: a file, or `num_bytes` of a shard from an offset on."""

    file: Path
    offset: int = 0
    num_bytes: int | None = None

    def read(self, limit: int | None = None) -> bytes:
        """Return the image's bytes, or the first of them."""
        num_bytes = self.num_bytes if limit is None or self.num_bytes is None else min(limit, self.num_bytes)
        with self.file.open("rb") as file:
            file.seek(self.offset)
            return file.read(limit if num_bytes is None else num_bytes)


def read_headers(spans: Sequence[FileSpan], on_progress: Callable[[int], None]) -> list[Header]:
    """Read each image's header; `on_progress` gets the number of images done since its last call."""
    chunks = [spans[start : start + CHUNK] for start in range(0, len(spans), CHUNK)]
    headers: list[Header] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(NUM_THREADS) as pool:
        # PIL warns of images above 89 Mpx, which are read like others; it still refuses those above 179 Mpx.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for chunk in pool.map(lambda some: [_read_header(span) for span in some], chunks):
            headers.extend(chunk)
            on_progress(len(chunk))
    return headers


def _read_header(span: FileSpan) -> Header:
    try:
        start = span.read(FIRST_BYTES)
        if not start:
            return Header(problem="empty file")
        try:
            return _size_of(start)
        except (OSError, SyntaxError, ValueError):
            # The header may be behind a long comment or colour profile; if not, this raises what is wrong.
            return _size_of(span.read()) if len(start) == FIRST_BYTES else _size_of(start)
    except UnidentifiedImageError:
        return Header(problem=NOT_AN_IMAGE)
    except OSError as error:
        return Header(problem=error.strerror or f"unreadable header: {error}")
    except (Image.DecompressionBombError, SyntaxError, ValueError) as error:
        return Header(problem=f"unreadable header: {error}")


def _size_of(content: bytes) -> Header:
    with Image.open(BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        return Header(height=height, width=width)
