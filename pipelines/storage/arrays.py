"""NumPy archives in the cache: written in one step, and ignored where they are damaged; names packed into arrays."""

import os
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["load_arrays", "pack_names", "save_arrays", "unpack_names"]

DAMAGED = (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile)
"""What NumPy and zipfile raise for an archive that is missing, cut or changed."""


def load_arrays(path: Path) -> dict[str, NDArray[np.generic]] | None:
    """Return the arrays of a cached archive, or None if it is missing or damaged."""
    try:
        # Opened here, because NumPy leaves a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except DAMAGED:
        return None


def save_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Cache arrays; where the cache cannot be written, nothing is lost but time, so that is no error."""
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.npz")
    named: dict[str, Any] = {**arrays}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(temporary, **named)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def pack_names(names: Iterable[bytes]) -> NDArray[np.uint8]:
    """Join names, none of them empty, into one array, a zero byte between each two."""
    return np.frombuffer(b"\0".join(names), np.uint8)


def unpack_names(packed: NDArray[np.generic]) -> list[bytes]:
    """Return the names that `pack_names` has joined."""
    return packed.tobytes().split(b"\0") if len(packed) else []
