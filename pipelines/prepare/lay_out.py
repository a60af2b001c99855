"""The index of a prepared data set, from where its copies have been placed."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.dataset import Dataset, ResizedCopies
from pipelines.dataset.formats.prepared import FULL
from pipelines.dataset.table import make_dataset
from pipelines.prepare.part import Part, Placed

__all__ = ["lay_out"]


def lay_out(
    source: Dataset, parts: Sequence[Part], placed: Mapping[int, Mapping[str, Placed]]
) -> tuple[Dataset, list[ResizedCopies]]:
    """Return a prepared data set and its resized copies.

    Its rows are the readable images in the source's order, so that a seed draws the same images from both.

    Args:
        source: The data set that was copied.
        parts: All parts of it.
        placed: Copies of each readable image, by row and folder.
    """
    target, settings = parts[0].target, parts[0].settings
    rows = sorted(placed)
    part_of = {item.row: number for number, part in enumerate(parts) for item in part.sources}
    shard_of = np.array([part_of[row] for row in rows], np.int64)
    shards = tuple(f"{part.name}.tar" for part in parts) if settings.layout == "shards" else ()
    names = [source.relative_path(row) for row in rows]
    columns = {name: getattr(source, name)[rows] for name in ("labels", "heights", "widths", "num_bytes")}
    columns |= {"offsets": source.offsets[rows], "shard_of": source.shard_of[rows]}
    if settings.max_side is not None:
        keys = {item.row: item.key for part in parts for item in part.sources}
        folders = [f"{shards[number]}/" if shards else "" for number in shard_of.tolist()]
        names = [os.fsencode(f"{folder}{keys[row]}.jpg") for folder, row in zip(folders, rows, strict=True)]
        columns |= _columns([placed[row][FULL] for row in rows]) | {"shard_of": shard_of}
    is_val = np.array(rows) >= source.num_train
    dataset = make_dataset(
        target / FULL, source.classes, names, columns, is_val, shards if settings.max_side else source.shards
    )
    copies = [
        _resized_copies(target, side_px, [placed[row] for row in rows], shards, shard_of) for side_px in settings.sides
    ]
    return dataset, copies


def _resized_copies(
    target: Path,
    side_px: int,
    placed: Sequence[Mapping[str, Placed]],
    shards: tuple[str, ...],
    shard_of: NDArray[np.int64],
) -> ResizedCopies:
    """Return the copies of one size; images without one have zeros."""
    none = Placed(height=0, width=0, num_bytes=0, offset=0)
    columns = _columns([copies.get(str(side_px), none) for copies in placed])
    return ResizedCopies(side_px, target / str(side_px), shards=shards, shard_of=shard_of, **columns)


def _columns(placed: Sequence[Placed]) -> dict[str, NDArray[np.int64]]:
    heights, widths, num_bytes, offsets = np.array(placed, np.int64).reshape(-1, 4).T
    return {"heights": heights, "widths": widths, "num_bytes": num_bytes, "offsets": offsets}
