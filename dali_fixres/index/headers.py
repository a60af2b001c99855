"""Sizes of pictures from their headers, without decoding them, many at a time."""

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

__all__ = ["FORMATS", "NOT_A_PICTURE", "Header", "read_headers"]

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
"""What both DALI's decoders and PIL read."""

NOT_A_PICTURE = "not a JPEG, PNG, BMP, TIFF, WebP, PNM or JPEG 2000 picture"

NUM_THREADS = 8
"""More than cores: on network folders the time goes into waiting for the first bytes of each file."""

CHUNK = 64


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's first bytes say: its size in pixels, or in `problem` why it cannot be used."""

    height: int = 0
    width: int = 0
    problem: str | None = None


def read_headers(root: Path, paths: Sequence[bytes], on_progress: Callable[[int], None]) -> list[Header]:
    """Read the header of each path below `root`; `on_progress` gets the number of files done since its last call."""
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    headers: list[Header] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(NUM_THREADS) as pool:
        # PIL warns of pictures above 89 Mpx; they are indexed like others, and it still refuses above 179 Mpx.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for chunk in pool.map(lambda some: [_read_header(root / os.fsdecode(path)) for path in some], chunks):
            headers.extend(chunk)
            on_progress(len(chunk))
    return headers


def _read_header(path: Path) -> Header:
    try:
        if path.stat().st_size == 0:
            return Header(problem="empty file")
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            return Header(height=height, width=width)
    except UnidentifiedImageError:
        return Header(problem=NOT_A_PICTURE)
    except OSError as error:
        return Header(problem=error.strerror or f"unreadable header: {error}")
    except (Image.DecompressionBombError, SyntaxError, ValueError) as error:
        return Header(problem=f"unreadable header: {error}")
