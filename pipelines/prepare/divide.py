"""A data set, divided into parts; and what its copies are called."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.dataset import TRAIN, VAL, Dataset
from pipelines.dataset.headers import FileSpan
from pipelines.errors import ConfigError
from pipelines.prepare.encode import CopySettings
from pipelines.prepare.part import Part, Source

__all__ = ["check_class_names", "divide"]

MAX_NAME_BYTES = 200
"""File systems allow 255 for a name, suffixes included."""


def divide(dataset: Dataset, target: Path, settings: CopySettings) -> tuple[Part, ...]:
    """Divide a data set into parts; images of a split are shuffled, for readers that go through shards in order."""
    taken: set[str] = set()
    parts = []
    for split in (TRAIN, VAL):
        rows = np.random.default_rng(0).permutation(dataset.rows(split)).tolist()
        for number, first in enumerate(range(0, len(rows), settings.shard_size)):
            sources = tuple(_source(dataset, row, split, taken) for row in rows[first : first + settings.shard_size])
            parts.append(Part(f"{split}-{number:06}", target, sources, settings))
    return tuple(parts)


def check_class_names(classes: Sequence[str]) -> None:
    """Refuse classes that would share a folder.

    Raises:
        ConfigError: If there are two.
    """
    folders: dict[str, str] = {}
    for name in classes:
        other = folders.setdefault(_safe(name).lower(), name)
        if other != name:
            raise ConfigError(f"the classes {other!r} and {name!r} would share a folder; use `layout=shards`")


def _source(dataset: Dataset, row: int, split: str, taken: set[str]) -> Source:
    path = os.fsdecode(dataset.relative_path(row))
    label = int(dataset.labels[row])
    class_name = dataset.classes[label]
    key = f"{split}/{_safe(class_name)}/{_name(path, split, class_name)}"
    while key.lower() in taken:
        key += f"-{row}"
    taken.add(key.lower())
    span = FileSpan(Path(os.fsdecode(dataset.file(row))))
    if dataset.shards:
        shard = dataset.root / dataset.shards[dataset.shard_of[row]]
        span = FileSpan(shard, int(dataset.offsets[row]), int(dataset.num_bytes[row]))
    return Source(row, key, span, label, class_name, path.encode("utf-8", "replace").decode())


def _name(path: str, split: str, class_name: str) -> str:
    """Return an image's name below its class: its path without suffix, and without its split's and class's folders."""
    *folders, file = path.split("/")
    given = {"", ".", "..", split, class_name}
    kept = [] if path.startswith("/") else [folder for folder in folders if folder not in given]
    return _safe("-".join([*kept, file.rpartition(".")[0] or file]))


def _safe(text: str) -> str:
    """Return a name that any file system takes, without dots, as a key in a shard ends at the first one."""
    name = re.sub(r"[^\w-]", "_", text) or "_"
    return name.encode()[:MAX_NAME_BYTES].decode("utf-8", "ignore")
