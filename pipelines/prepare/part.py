"""What is written together: the images of a part, and what has become of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipelines.dataset.headers import FileSpan
from pipelines.prepare.encode import CopySettings

__all__ = ["Part", "Placed", "Source", "Written"]

DONE = ".done"
"""Folder of notes; each part leaves one when it is complete."""


@dataclass(frozen=True, slots=True)
class Source:
    """An image to copy.

    Attributes:
        row: In the source data set.
        key: Name of its copies, without extension: ``train/cat/one``.
        span: Its bytes.
        label: Number of its class.
        class_name: Name of its class.
        path: Its path in the source, for messages and for the shards.
    """

    row: int
    key: str
    span: FileSpan
    label: int
    class_name: str
    path: str


@dataclass(frozen=True, slots=True)
class Part:
    """Images that are written together.

    Attributes:
        name: ``train-000000``, also the name of its shards.
        target: Folder of the prepared data set.
        sources: The images.
        settings: Which copies are made.
    """

    name: str
    target: Path
    sources: tuple[Source, ...]
    settings: CopySettings

    def shard(self, folder: str) -> Path:
        """Return the shard with the copies of one size."""
        return self.target / folder / f"{self.name}.tar"

    def file(self, folder: str, key: str) -> Path:
        """Return the file of one copy, in class folders."""
        return self.target / folder / f"{key}.jpg"

    @property
    def note(self) -> Path:
        """The file that says that this part is complete."""
        return self.target / DONE / f"{self.name}.json"


class Placed(NamedTuple):
    """Where a copy lies: its size in pixels and bytes, and its offset in the shard."""

    height: int
    width: int
    num_bytes: int
    offset: int


@dataclass(frozen=True, slots=True)
class Written:
    """A written part.

    Attributes:
        digests: SHA-256 of each shard and .idx file, by path below the target; or of all files of each folder.
        copies: Copies of each image, by row and folder.
        unreadable: What is wrong with images that cannot be decoded, by row.
        num_bytes: Of all copies.
    """

    digests: dict[str, str]
    copies: dict[int, dict[str, Placed]]
    unreadable: dict[int, str]
    num_bytes: int
