"""What all kinds of data sets are listed as, before images are measured."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.dataset.table import TRAIN, VAL
from pipelines.errors import DataError, did_you_mean

__all__ = ["VAL_NAMES", "Candidate", "Listing", "check_trained", "other_tests", "sorted_labels", "split_named"]

VAL_NAMES = ("val", "valid", "validation", "test")
"""What splits to test on are called; of several in a data set, the first of these is taken."""


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


def split_named(word: str) -> str | None:
    """Return the split that a word names, or None."""
    return VAL if word in VAL_NAMES else TRAIN if word == TRAIN else None


def other_tests(words: Collection[str | None]) -> list[str]:
    """Return which of a data set's splits to test on are left out, because another comes first."""
    return [name for name in VAL_NAMES if name in words][1:]


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
