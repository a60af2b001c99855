"""The data set a run was trained on, in a file: to resume later, and to report what has changed in the data."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.dataset.table import Dataset, make_dataset
from pipelines.errors import DataError
from pipelines.storage.arrays import pack_names, unpack_names
from pipelines.storage.atomic import replacing

__all__ = ["Difference", "compare", "load_snapshot", "save_snapshot", "snapshot_arrays", "snapshot_dataset"]

COLUMNS = ("labels", "heights", "widths", "num_bytes", "shard_of", "offsets")

NUM_NAMED = 3


def save_snapshot(path: Path, dataset: Dataset) -> None:
    """Write what a data set's fingerprint covers, as a compressed NumPy archive without pickles.

    Raises:
        SaveError: If it cannot be written.
    """
    with replacing(path) as file:
        arrays: dict[str, Any] = {**snapshot_arrays(dataset)}
        np.savez_compressed(file, **arrays)


def load_snapshot(path: Path, root: Path) -> Dataset:
    """Return the data set that a snapshot holds, its images now in `root`.

    Raises:
        DataError: If it is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return snapshot_dataset(stored, root)
    except Exception as error:  # a damaged archive may raise anything
        raise DataError(f"cannot read {path}, which lists the data of the run: {error}") from error


def snapshot_arrays(dataset: Dataset) -> dict[str, NDArray[np.generic]]:
    """Return a data set, without its resized copies, as arrays of plain types."""
    return {
        "classes": pack_names(os.fsencode(name) for name in dataset.classes),
        "paths": pack_names(dataset.relative_path(row) for row in range(len(dataset))),
        "is_val": np.arange(len(dataset)) >= dataset.num_train,
        "shards": pack_names(os.fsencode(shard) for shard in dataset.shards),
        **{name: getattr(dataset, name) for name in COLUMNS},
    }


def snapshot_dataset(stored: Mapping[str, NDArray[np.generic]], root: Path) -> Dataset:
    """Return the data set that `snapshot_arrays` was given; errors in the arrays are raised as they come."""
    classes, paths = (unpack_names(stored[name]) for name in ("classes", "paths"))
    columns = {name: stored[name].astype(np.int64) for name in COLUMNS}
    shards = [os.fsdecode(name) for name in unpack_names(stored["shards"])]
    is_val = stored["is_val"].astype(np.bool_)
    return make_dataset(root, [os.fsdecode(name) for name in classes], paths, columns, is_val, shards)


@dataclass(frozen=True, slots=True)
class Difference:
    """What distinguishes two data sets: classes, and paths of images below the root."""

    classes_added: frozenset[str]
    classes_removed: frozenset[str]
    added: frozenset[bytes]
    removed: frozenset[bytes]
    changed: frozenset[bytes]

    def within(self, paths: Iterable[bytes]) -> bool:
        """Return whether nothing but these images has gone or changed."""
        return not (
            self.classes_added or self.classes_removed or self.added or (self.removed | self.changed) - {*paths}
        )

    def __str__(self) -> str:
        """Count and name the first of each kind."""
        images = {"added": self.added, "removed": self.removed, "changed": self.changed}
        kinds = {
            "class(es) added": sorted(self.classes_added),
            "class(es) removed": sorted(self.classes_removed),
            **{kind: [os.fsdecode(path) for path in sorted(paths)] for kind, paths in images.items()},
        }
        return "; ".join(
            f"{len(names)} {kind}: {', '.join(names[:NUM_NAMED])}{' …' if len(names) > NUM_NAMED else ''}"
            for kind, names in kinds.items()
            if names
        )


def compare(old: Dataset, new: Dataset) -> Difference:
    """Return how a data set differs from its older state."""
    was, now = _by_path(old), _by_path(new)
    return Difference(
        classes_added=frozenset(new.classes) - frozenset(old.classes),
        classes_removed=frozenset(old.classes) - frozenset(new.classes),
        added=frozenset(now.keys() - was.keys()),
        removed=frozenset(was.keys() - now.keys()),
        changed=frozenset(path for path in was.keys() & now.keys() if was[path] != now[path]),
    )


def _by_path(dataset: Dataset) -> dict[bytes, tuple[object, ...]]:
    """Return what the fingerprint covers of each image."""
    names = [dataset.classes[label] for label in dataset.labels.tolist()]
    is_val = np.arange(len(dataset)) >= dataset.num_train
    columns = (column.tolist() for column in (is_val, dataset.heights, dataset.widths, dataset.num_bytes))
    return dict(zip(map(dataset.relative_path, range(len(dataset))), zip(names, *columns, strict=True), strict=True))
