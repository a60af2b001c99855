"""What every layout is listed as, before images are measured, and how its folders are searched."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pipelines.dataset.splits import SPLIT_NAMES, split_word, unused_tests
from pipelines.dataset.table import VAL
from pipelines.errors import DataError, did_you_mean

__all__ = ["Candidate", "Listing", "Progress", "check_trained", "find_files", "sorted_labels", "subfolders"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of images done, and of all."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be an image.

    Attributes:
        path: Path below the data set's root (or absolute), as the file system's bytes.
        label: Class name.
        split: `TRAIN`, `VAL`, or None where the data set does not say.
        shard: Position of its tar file in `Listing.shards`, or None for a file of its own.
        offset, num_bytes: Where it lies in that.
    """

    path: bytes
    label: str
    split: str | None
    shard: int | None = None
    offset: int = 0
    num_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """All candidates of a data set.

    Attributes:
        root: Folder that relative paths start from.
        candidates: In no particular order.
        classes: Class names in label order.
        shards: Tar files below the root, if that is what the candidates are in.
    """

    root: Path
    candidates: tuple[Candidate, ...]
    classes: tuple[str, ...]
    shards: tuple[str, ...] = ()


def check_trained(candidates: Sequence[Candidate], where: str) -> None:
    """Refuse labels that are only tested on, which a typo may be."""
    trained = {candidate.label for candidate in candidates if candidate.split != VAL}
    unknown = sorted({candidate.label for candidate in candidates} - trained)
    if trained and unknown:
        raise DataError(
            f"{where} has {len(unknown)} label(s) to test on that it never trains on: {', '.join(unknown[:5])}"
            f"{did_you_mean(unknown[0], trained)}"
        )


def sorted_labels(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Return the labels in order: by name, or by value if all are whole numbers, so that "10" follows "9"."""
    labels = {candidate.label for candidate in candidates}
    if all(label.isascii() and label.isdigit() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def subfolders(folder: Path) -> tuple[str, ...]:
    """Return the names of the folders in a folder, sorted; none that begin with a dot."""
    return tuple(sorted(entry.name for entry in _entries(folder) if entry.is_dir()))


def find_files(root: Path, suffix: str) -> list[Path]:
    """Return the files of a kind in a folder, in its folders for splits, and in data/; none that begin with a dot.

    Of several splits to test on, the first of `VAL_NAMES` is taken, as with class folders.
    """
    folders = [root, *(root / name for name in (*SPLIT_NAMES, "data"))]
    found = sorted(
        folder / entry.name
        for folder in folders
        if folder.is_dir()
        for entry in _entries(folder)
        if entry.name.lower().endswith(suffix)
    )
    unused = unused_tests({split_word(path, root) for path in found})
    return [path for path in found if split_word(path, root) not in unused]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder, but for what begins with a dot."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror}; check its permissions") from error
