"""Folders that one process writes at a time: a second one is refused, with the first one's name."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipelines.errors import ConfigError

__all__ = ["LOCK", "lock", "locked"]

LOCK = ".lock"

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of file systems without locks, as some mounts of Lustre: there writing is allowed, without a lock."""


@contextmanager
def locked(folder: Path, other: str) -> Iterator[None]:
    """Keep others out of a folder; as `lock`.

    Raises:
        ConfigError: If another process is writing it, or it cannot be written.
    """
    try:
        file = lock(folder, other)
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}; {other}") from error
    with file:
        yield


def lock(folder: Path, other: str) -> IO[str]:
    """Lock a folder until the result is closed or the process ends, however that happens.

    Args:
        folder: It must exist.
        other: What to do instead of waiting, for the message.

    Raises:
        ConfigError: If another process is writing it.
        OSError: If it cannot be written.
    """
    file = (folder / LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise ConfigError(f"{folder} is being written by {holder}; wait for it, or {other}") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            file.close()
            raise
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file
