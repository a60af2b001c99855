"""Text and JSON files, replaced in one step or appended to; errors name the file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError, SaveError
from pipelines.storage.atomic import replacing

__all__ = ["append_text", "make_folder", "write_json", "write_text"]


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a file in one atomic step.

    Raises:
        SaveError: If it cannot be written; what was there before is intact.
    """
    with replacing(path) as file:
        file.write(text.encode("utf-8", errors))


def append_text(path: Path, text: str, errors: str = "strict") -> None:
    """Append to a file.

    Raises:
        SaveError: If it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8", errors=errors) as file:
            file.write(text)
    except OSError as error:
        raise SaveError(f"cannot write {path}: {error.strerror}; make room, then resume") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON in one atomic step, with the folders above it.

    Raises:
        ConfigError: If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    except SaveError as error:
        raise ConfigError(str(error)) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        SaveError: If that fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"cannot make {folder}: {error.strerror}") from error
