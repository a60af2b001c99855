"""Splits: what they are called on disk, and how one is drawn where a data set has none."""

import hashlib
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from pipelines.dataset.table import TRAIN, VAL
from pipelines.errors import DataError

__all__ = ["SPLIT_NAMES", "VAL_NAMES", "check_split", "draw_val", "split_named", "split_word", "unused_tests"]

VAL_NAMES = ("val", "valid", "validation", "test")
"""What splits to test on are called; of several in a data set, the first of these is taken."""

SPLIT_NAMES = (TRAIN, *VAL_NAMES)


def split_named(word: str) -> str | None:
    """Return the split that a word names, or None."""
    return VAL if word in VAL_NAMES else TRAIN if word == TRAIN else None


def unused_tests(words: Collection[str | None]) -> list[str]:
    """Return which of a data set's splits to test on are left out, because another comes first."""
    return [name for name in VAL_NAMES if name in words][1:]


def split_word(path: Path, root: Path) -> str:
    """Return the word that names a file's split, of its folder or else of its name; empty if there is none.

    Raises:
        DataError: If its name says that it is to train and to test on.
    """
    if path.parent != root and split_named(path.parent.name):
        return path.parent.name
    words = [word for word in re.split(r"[^a-z]+", path.stem.lower()) if split_named(word)]
    if len({split_named(word) for word in words}) > 1:
        raise DataError(
            f"the name of {path} says {' and '.join(words)}; rename it, or put it into a folder train or val"
        )
    return words[0] if words else ""


def check_split(data: Path, val_fraction: float | None, *, is_split: bool) -> None:
    """Refuse a data set of which it is not clear which images are tested on.

    Args:
        data: Its folder or file.
        val_fraction: As `open_dataset` takes it.
        is_split: Whether the data set itself names the split of every image.

    Raises:
        DataError: If `val_fraction` is missing, superfluous or out of range.
    """
    if val_fraction is not None and not 0 < val_fraction <= 1:
        raise DataError(f"`val_fraction` must be above 0 and at most 1; found {val_fraction}")
    if not is_split and val_fraction is None:
        folders = f"{data}/train/<class>/*.jpg and {data}/val/<class>/*.jpg"
        in_file = "files named train-… and val-…" if data.suffix in {".tar", ".parquet"} else "a split column"
        expected = folders if data.is_dir() else in_file
        raise DataError(f"{data} does not say which images to test on; expected {expected}, or give `val_fraction=0.1`")
    if is_split and val_fraction is not None and val_fraction < 1:
        raise DataError(f"{data} has its own split; leave `val_fraction` out")


def draw_val(images: Sequence[tuple[str, bytes]], fraction: float) -> set[bytes]:
    """Draw a share of each class by a hash of the path: the same on every machine, whatever else is added.

    Args:
        images: Class and path of each image to draw from.
        fraction: Share of each class.
    """
    by_class: dict[str, list[bytes]] = {}
    for label, path in images:
        by_class.setdefault(label, []).append(path)
    drawn: set[bytes] = set()
    for paths in by_class.values():
        paths.sort(key=lambda path: hashlib.blake2b(path, digest_size=8).digest())
        # At least one to test on, but never the last one to train on.
        count = len(paths) if fraction == 1 else min(max(1, round(fraction * len(paths))), len(paths) - 1)
        drawn.update(paths[:count])
    return drawn
