"""Which pictures cannot be decoded, one by one: DALI fails a batch as a whole and names no file.

Always on the CPU: a GPU's hardware decoder may take a truncated file for a good one.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from dali_fixres.index import FORMATS, NOT_A_PICTURE, Index
from dali_fixres.windows import Ints
from pipelines.graph import build_probe

__all__ = ["Probe"]

CHUNK = 16
"""Pictures that a thread takes at once."""


class Probe:
    """Decodes whole pictures, each by itself, over several threads.

    Args:
        index: The data set.
        num_threads: Pictures decoded at once.
    """

    def __init__(self, index: Index, num_threads: int) -> None:
        self._index = index
        self._num_threads = num_threads
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(num_threads):
            self._idle.put(build_probe())

    def unreadable(
        self,
        rows: Ints,
        on_progress: Callable[[int], None] = lambda done: None,  # noqa: ARG005
    ) -> dict[int, str]:
        """Return what is wrong with each picture that cannot be decoded, or is not what was indexed.

        Args:
            rows: Of the index, (n,).
            on_progress: Called with the number of pictures done.
        """
        chunks = [rows[start : start + CHUNK].tolist() for start in range(0, len(rows), CHUNK)]
        reasons: dict[int, str] = {}
        done = 0
        with ThreadPoolExecutor(self._num_threads) as pool:
            for chunk, found in zip(chunks, pool.map(self._check, chunks), strict=True):
                reasons |= found
                done += len(chunk)
                on_progress(done)
        return reasons

    def _check(self, rows: Sequence[int]) -> dict[int, str]:
        pipeline = self._idle.get()
        try:
            reasons = {row: self._problem(pipeline, row) for row in rows}
        finally:
            self._idle.put(pipeline)
        return {row: reason for row, reason in reasons.items() if reason}

    def _problem(self, pipeline: Any, row: int) -> str:
        """Say what is wrong with a picture, or return an empty string."""
        path = self._index.path(row)
        try:
            (picture,) = pipeline.run(path=[np.frombuffer(os.fsencode(path), np.uint8)])
        except RuntimeError as error:
            return _in_words(path) or f"DALI cannot decode it: {_first_cause(error)}"
        found = tuple(picture.shape()[0][:2])
        indexed = int(self._index.heights[row]), int(self._index.widths[row])
        return "" if found == indexed else f"has changed since it was indexed: {found} instead of {indexed} pixels"


def _in_words(path: Path) -> str:
    """Say what PIL finds wrong with a file, which reads better than what DALI says."""
    try:
        if path.stat().st_size == 0:
            return "empty file"
        with Image.open(path, formats=FORMATS) as image:
            image.load()
    except UnidentifiedImageError:
        return NOT_A_PICTURE
    except Exception as error:  # noqa: BLE001 - whatever a broken file makes PIL raise is the finding to report
        return str(getattr(error, "strerror", None) or error) or type(error).__name__
    return ""


def _first_cause(error: RuntimeError) -> str:
    """Return the line of a DALI error that says what happened."""
    _, _, cause = str(error).partition("encountered:")
    lines = [line.strip() for line in cause.splitlines() if line.strip()]
    return lines[0] if lines else str(error).partition("\n")[0]
