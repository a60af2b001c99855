"""Sizes known from an earlier run, believed as long as a file's length and modification time are the same."""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from pipelines.dataset.headers import Header
from pipelines.storage.cache_folder import cache_folder

__all__ = ["FileState", "cache_path", "load_known", "save_known"]

FileState = tuple[int, int]
"""A file's length in bytes and its modification time in nanoseconds."""

VERSION = 1


def cache_path(data: Path) -> Path:
    """Return where the headers of a data set are remembered."""
    name = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:16]
    return cache_folder() / "index" / f"{name}-v{VERSION}.npz"


def load_known(cache: Path) -> dict[bytes, tuple[FileState, Header]]:
    """Return what is remembered of each path; nothing if the cache is missing or damaged (it is only a cache)."""
    try:
        # Opened here, because NumPy leaves a damaged archive open.
        with cache.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            paths = stored["paths"].tobytes().split(b"\0")
            columns = (stored[name].tolist() for name in ("num_bytes", "mtimes_ns", "heights", "widths"))
            return {
                path: ((num_bytes, mtime_ns), Header(height, width))
                for path, num_bytes, mtime_ns, height, width in zip(paths, *columns, strict=True)
            }
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile):
        return {}


def save_known(cache: Path, known: Mapping[bytes, tuple[FileState, Header]]) -> None:
    """Remember headers, in one atomic step; an unwritable cache folder costs only time, so it is not an error."""
    table = np.array(
        [(*state, header.height, header.width) for state, header in known.values()], dtype=np.int64
    ).reshape(-1, 4)
    temporary = cache.with_name(f"{cache.stem}.{os.getpid()}.npz")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            temporary,
            paths=np.frombuffer(b"\0".join(known), dtype=np.uint8),
            num_bytes=table[:, 0],
            mtimes_ns=table[:, 1],
            heights=table[:, 2],
            widths=table[:, 3],
        )
        temporary.replace(cache)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
