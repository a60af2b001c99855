"""Files that are replaced in one step: a kill leaves the old content or the new one, never half of it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pipelines.errors import SaveError

__all__ = ["replacing"]


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk or quota that is full, or a file that may not grow."""


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file to write; it takes the place of `path` at the end, once it is on the disk.

    Raises:
        SaveError: If it cannot be written; what was there before is intact.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        # Where the disk is full, torch.save raises a RuntimeError on top of the system's error.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        before = "; what was there before is intact" if path.is_file() else ""
        advice = "; make room and try again" if cause.errno in FULL else ""
        raise SaveError(f"cannot write {path}: {cause.strerror}{before}{advice}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
