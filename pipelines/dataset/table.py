"""The immutable table of images that every plan and loader refers to by row number."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ORIGINAL", "TRAIN", "VAL", "Dataset", "LeftOut", "ResizedCopies", "make_dataset", "with_copies"]

TRAIN, VAL = "train", "val"

ORIGINAL = -1
"""In place of a resized copy's number: the image itself."""

_SLASH = np.uint8(ord("/"))


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file of a data set that cannot be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class ResizedCopies:
    """Resized copies of a data set's images, columns by row number of the data set.

    Attributes:
        side_px: Length of the shorter side of a copy.
        root: Folder of the copies.
        heights, widths: Pixels, (n,) int64; 0 where an image has no copy because it would not be smaller.
        num_bytes: File sizes, (n,) int64.
        shards: Tar files below `root`; empty where each copy is a file of its own.
        shard_of, offsets: As in `Dataset`.
    """

    side_px: int
    root: Path
    heights: NDArray[np.int64] = field(repr=False)
    widths: NDArray[np.int64] = field(repr=False)
    num_bytes: NDArray[np.int64] = field(repr=False)
    shards: tuple[str, ...]
    shard_of: NDArray[np.int64] = field(repr=False)
    offsets: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """All images of a data set, columns by row number.

    Those to train on come first. Both parts are sorted by path; those of prepared data are in their source's order.

    Attributes:
        root: Folder that relative paths start from.
        classes: Class names; a label is a position here.
        path_bytes: All paths, one after the other, as the file system's bytes.
        path_ends: Where each path ends in `path_bytes`, (n,) int64.
        labels: (n,) int64.
        num_train: Number of images to train on: rows below are trained on, the others are tested on.
        heights, widths: Pixels as stored, EXIF orientation not applied, (n,) int64.
        num_bytes: File sizes, (n,) int64.
        shards: Tar files below `root` that the images are in; empty where each image is a file of its own.
        shard_of: Which of these, (n,) int64.
        offsets: Where an image's bytes begin in its shard, (n,) int64.
        fingerprint: SHA-256 over classes, paths, labels, splits, sizes and copies; the same on every machine.
        copies: Resized copies, smallest first.
        left_out: Files that are no row, because their header cannot be read; not covered by the fingerprint.
    """

    root: Path
    classes: tuple[str, ...]
    path_bytes: NDArray[np.uint8] = field(repr=False)
    path_ends: NDArray[np.int64] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    num_train: int
    heights: NDArray[np.int64] = field(repr=False)
    widths: NDArray[np.int64] = field(repr=False)
    num_bytes: NDArray[np.int64] = field(repr=False)
    shards: tuple[str, ...]
    shard_of: NDArray[np.int64] = field(repr=False)
    offsets: NDArray[np.int64] = field(repr=False)
    fingerprint: str
    copies: tuple[ResizedCopies, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def __len__(self) -> int:
        """Return the number of images of all splits."""
        return len(self.labels)

    def span(self, split: str) -> range:
        """Return the row numbers of a split (`TRAIN` or `VAL`) as a range, which takes no memory."""
        return range(self.num_train, len(self)) if split == VAL else range(self.num_train)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the row numbers of a split (`TRAIN` or `VAL`), ascending."""
        span = self.span(split)
        return np.arange(span.start, span.stop)

    def relative_path(self, row: int) -> bytes:
        """Return an image's path below `root` as bytes; absolute if a table has it so, ``SHARD/MEMBER`` in a shard."""
        start = self.path_ends[row - 1] if row > 0 else 0
        return self.path_bytes[start : self.path_ends[row]].tobytes()

    def path(self, row: int) -> Path:
        """Return an image's file, or for an image in a shard, its name for messages."""
        return self.root / os.fsdecode(self.relative_path(row))

    @property
    def in_shards(self) -> bool:
        """Whether some images or copies are in tar files: then the graph takes bytes instead of paths."""
        return bool(self.shards) or any(copy.shards for copy in self.copies)

    @property
    def num_files(self) -> int:
        """Number of images and copies."""
        return len(self) + sum(int((copy.heights > 0).sum()) for copy in self.copies)

    def file(self, row: int, copy: int = ORIGINAL) -> bytes:
        """Return the absolute path, as bytes, of an image or copy that is a file of its own."""
        root = self.root if copy == ORIGINAL else self.copies[copy].root
        return os.path.join(os.fsencode(root), self.relative_path(row))  # noqa: PTH118 - bytes

    def files(self, rows: NDArray[np.int64], copy_ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the absolute paths of images or copies that are files of their own, (n, longest) uint8.

        Shorter ones are filled with slashes between root and relative path, which mean the same as one.

        Args:
            rows: Of the data set, (n,).
            copy_ids: Which copy of each, (n,).
        """
        ends = self.path_ends[rows]
        starts = np.where(rows > 0, self.path_ends[rows - 1], 0)
        places = ends[:, None] + np.arange(-(ends - starts).max(), 0)
        relative = np.where(places >= starts[:, None], self.path_bytes[places], _SLASH)
        folders = [os.fsencode(root) for root in (self.root, *(copy.root for copy in self.copies))]
        width = max(map(len, folders)) + 1
        table = np.frombuffer(b"".join(folder.ljust(width, b"/") for folder in folders), np.uint8).reshape(-1, width)
        roots = table[copy_ids - ORIGINAL]
        roots[self.path_bytes[starts] == _SLASH] = _SLASH  # an absolute path has no root
        return np.concatenate([roots, relative], axis=1)

    def read(self, row: int, copy: int = ORIGINAL) -> NDArray[np.uint8]:
        """Return an encoded image or copy; less than all of it if the file has become shorter.

        From a shard it is a view into the mapped file, not a copy.

        Raises:
            OSError: If it cannot be read.
        """
        place: Dataset | ResizedCopies = self if copy == ORIGINAL else self.copies[copy]
        if not place.shards:
            return np.fromfile(os.fsdecode(self.file(row, copy)), np.uint8)
        path, content = _map(place.root, place.shards[place.shard_of[row]])
        start, end = int(place.offsets[row]), int(place.offsets[row] + place.num_bytes[row])
        # Reading a map behind the end of a file that has become shorter would kill the process.
        return content[start : min(end, os.stat(path).st_size)]  # noqa: PTH116 - once per image: no Path object


@lru_cache(maxsize=1 << 14)
def _map(root: Path, shard: str) -> tuple[str, NDArray[np.uint8]]:
    """Map a shard into memory once: images are read from anywhere in it, in any order."""
    path = root / shard
    if path.stat().st_size == 0:  # which cannot be mapped
        return str(path), np.empty(0, np.uint8)
    return str(path), np.memmap(path, np.uint8, "r").view(np.ndarray)


def make_dataset(
    root: Path,
    classes: Sequence[str],
    paths: Sequence[bytes],
    columns: dict[str, NDArray[np.int64]],
    is_val: NDArray[np.bool_],
    shards: Sequence[str] = (),
) -> Dataset:
    """Lay images out as a `Dataset`, with its fingerprint.

    Args:
        root: Folder that paths start from.
        classes: Names in label order.
        paths: Of the images, in order, those to train on first.
        columns: The other columns by name; `shard_of` and `offsets` may be missing, where there are no shards.
        is_val: Which images are tested on.
        shards: Tar files that the images are in.
    """
    assert (np.diff(is_val.astype(np.int8)) >= 0).all(), "training images come first"
    filled: dict[str, Any] = {name: np.zeros(len(paths), np.int64) for name in ("shard_of", "offsets")}
    filled |= columns
    digest = hashlib.sha256(b"\0".join(map(os.fsencode, classes)))
    digest.update(b"\0".join(paths))
    digest.update(is_val.tobytes())
    for name in ("labels", "heights", "widths", "num_bytes"):
        digest.update(filled[name].astype("<i8").tobytes())
    return Dataset(
        root=root,
        classes=tuple(classes),
        path_bytes=np.frombuffer(b"".join(paths), dtype=np.uint8),
        path_ends=np.cumsum([len(path) for path in paths], dtype=np.int64),
        num_train=int(len(paths) - is_val.sum()),
        shards=tuple(shards),
        fingerprint=digest.hexdigest(),
        **filled,
    )


def with_copies(dataset: Dataset, copies: Sequence[ResizedCopies]) -> Dataset:
    """Return a data set with resized copies, smallest first; its fingerprint covers them."""
    digest = hashlib.sha256(dataset.fingerprint.encode())
    for copy in copies:
        digest.update(str(copy.side_px).encode())
        for column in (copy.heights, copy.widths, copy.num_bytes):
            digest.update(column.astype("<i8").tobytes())
    return replace(dataset, copies=tuple(copies), fingerprint=digest.hexdigest())
