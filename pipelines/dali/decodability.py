"""Which images cannot be decoded, and why: DALI fails a batch as a whole and names no file.

The check runs on the CPU, where a truncated file is an error; a GPU's hardware decoder may return wrong pixels instead.
"""

import errno
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipelines.dali.graph import build_decoder
from pipelines.dali.inputs import files_of
from pipelines.dali.messages import first_cause
from pipelines.dataset import FORMATS, NOT_AN_IMAGE, ORIGINAL, Dataset, ResizedCopies
from pipelines.errors import DataError
from pipelines.plan.crops import Ints

__all__ = ["DecodabilityCheck"]

CHUNK = 16
"""Images of one task of the thread pool."""

OF_THE_FILE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors of one file; any other means that the storage has failed, and skipping images would not help."""

Part = tuple[int, int, NDArray[np.int32], NDArray[np.int32]]
"""Row of the data set, number of the resized copy, and start and end (y, x) of the region to decode."""


class DecodabilityCheck:
    """Decodes images one by one, on several threads, to find those that cannot be decoded.

    Args:
        dataset: The data set.
        num_threads: Images decoded at the same time.
    """

    def __init__(self, dataset: Dataset, num_threads: int) -> None:
        self._dataset = dataset
        self._num_threads = num_threads
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(num_threads):
            self._idle.put(build_decoder(from_shards=dataset.in_shards))

    def whole(
        self,
        on_progress: Callable[[int], None] = lambda done: None,  # noqa: ARG005
    ) -> dict[int, str]:
        """Return why images of the data set cannot be decoded, by row; resized copies are decoded as well.

        Args:
            on_progress: Called with the number of files done.

        Raises:
            DataError: If the storage has failed.
        """
        reasons: dict[int, str] = {}
        done = 0

        def advance(count: int) -> None:
            on_progress(done + count)

        places: tuple[Dataset | ResizedCopies, ...] = (self._dataset, *self._dataset.copies)
        for number, place in enumerate(places, start=ORIGINAL):
            rows = np.flatnonzero(place.heights)
            ends = np.stack([place.heights[rows], place.widths[rows]], axis=1).astype(np.int32)
            starts, copy_ids = np.zeros_like(ends), np.full_like(rows, number)
            found = self.regions(rows, copy_ids, starts, ends, advance)
            reasons |= {row: reason for row, reason in found.items() if row not in reasons}
            done += len(rows)
        return reasons

    def regions(
        self,
        rows: Ints,
        copy_ids: Ints,
        starts: NDArray[np.int32],
        ends: NDArray[np.int32],
        on_progress: Callable[[int], None] = lambda done: None,  # noqa: ARG005
    ) -> dict[int, str]:
        """Return why regions of images cannot be decoded, by row.

        Args:
            rows: Rows of the data set, (n,).
            copy_ids: Which copy of each is decoded, (n,).
            starts: First pixel (y, x) of each region, (n, 2) int32.
            ends: One past its last pixel (y, x), (n, 2) int32.
            on_progress: Called with the number of images done.

        Raises:
            DataError: If the storage has failed.
        """
        parts = list(zip(rows.tolist(), copy_ids.tolist(), starts, ends, strict=True))
        chunks = [parts[first : first + CHUNK] for first in range(0, len(parts), CHUNK)]
        reasons: dict[int, str] = {}
        done = 0
        with ThreadPoolExecutor(self._num_threads) as pool:
            for chunk, found in zip(chunks, pool.map(self._check, chunks), strict=True):
                reasons |= found
                done += len(chunk)
                on_progress(done)
        return reasons

    def _check(self, parts: Iterable[Part]) -> dict[int, str]:
        pipeline = self._idle.get()
        try:
            reasons = {part[0]: self._problem(pipeline, part) for part in parts}
        finally:
            self._idle.put(pipeline)
        return {row: reason for row, reason in reasons.items() if reason}

    def _problem(self, pipeline: Any, part: Part) -> str:
        """Return why an image cannot be decoded, or an empty string."""
        row, copy, start, end = part
        try:
            files = files_of(self._dataset, np.array([row]), np.array([copy]))
            pipeline.run(file=files, start=[start], end=[end])
        except RuntimeError as error:
            which = "" if copy == ORIGINAL else f"its copy of {self._dataset.copies[copy].side_px} px: "
            cause = first_cause(str(error)) or str(error).partition("\n")[0]
            return which + (_pil_problem(self._dataset, row, copy) or f"DALI cannot decode it: {cause}")
        return ""


def _pil_problem(dataset: Dataset, row: int, copy: int) -> str:
    """Return why PIL cannot decode an image, in clearer words than DALI's, or an empty string.

    Raises:
        DataError: If the storage has failed.
    """
    try:
        content = dataset.read(row, copy).tobytes()
        if not content:
            return "empty file"
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            image.load()
            size = image.size
    except UnidentifiedImageError:
        return NOT_AN_IMAGE
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is not None and number not in OF_THE_FILE:
            raise DataError(
                f"cannot read {dataset.path(row)}: {os.strerror(number)}; repair the storage, then run again"
            ) from error
        return str(os.strerror(number) if number is not None else error) or type(error).__name__
    copies = dataset if copy == ORIGINAL else dataset.copies[copy]
    indexed = int(copies.widths[row]), int(copies.heights[row])
    if size != indexed:
        return f"has changed since it was indexed: {size} instead of {indexed} pixels"
    return ""
