"""Prepared data sets: images and their resized copies, with an index, so that nothing has to be listed or measured.

DST/
    prepared.json               settings, sizes, fingerprint of the source
    index.npz                   every image, every copy, and where it lies; written last
    160/  256/  …  full/        the copies, and the images themselves: tar shards or class folders
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np

from pipelines.dataset.snapshot import snapshot_arrays, snapshot_dataset
from pipelines.dataset.table import Dataset, ResizedCopies, with_copies
from pipelines.errors import DataError
from pipelines.storage.arrays import pack_names, unpack_names
from pipelines.storage.atomic import replacing

__all__ = ["FULL", "INDEX", "MANIFEST", "VERSION", "PreparedFile", "load", "read_manifest", "recognises", "save"]

MANIFEST, INDEX, FULL = "prepared.json", "index.npz", "full"

VERSION = 1

COLUMNS = ("heights", "widths", "num_bytes", "shard_of", "offsets")


class PreparedFile(TypedDict):
    """`prepared.json` of a prepared data set: its source and settings."""

    version: Annotated[int, "of the format"]
    source: Annotated[str, "path"]
    root: Annotated[str | None, "folder of the source's images; null if `full`"]
    source_fingerprint: Annotated[str, "64 hexadecimal digits"]
    sizes: Annotated[list[int], "pixels; shorter sides of the resized copies, ascending"]
    full: Annotated[bool, "whether `full/` holds the images themselves; else they are read from the source"]
    max_side: Annotated[int | None, "pixels; longest side in `full/`; null without it"]
    quality: Annotated[int, "of JPEG, 1 to 95"]
    layout: Annotated[str, "`shards` or `folder`"]
    shard_size: Annotated[int, "images per shard"]
    num_images: Annotated[int, "of the source"]


def recognises(path: Path) -> bool:
    """Return whether a path is a folder with a prepared data set, finished or not."""
    return (path / MANIFEST).is_file()


def load(folder: Path) -> Dataset:
    """Return a prepared data set.

    Raises:
        DataError: If it is not finished, damaged, or of another version.
    """
    if not (folder / INDEX).exists():
        raise DataError(f"{folder} is not finished; prepare it again with the same settings to resume")
    manifest = read_manifest(folder)
    root = folder / FULL if manifest.get("full") else Path(str(manifest.get("root")))
    try:
        with (folder / INDEX).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            dataset = snapshot_dataset(stored, root)
            copies = [_load_copies(stored, folder, side_px) for side_px in stored["sides"].tolist()]
    except Exception as error:  # a damaged archive may raise anything
        raise DataError(f"cannot read {folder / INDEX}: {error}; remove it and prepare the data set again") from error
    _check_shards(folder, dataset, copies)
    return with_copies(dataset, copies)


def save(folder: Path, dataset: Dataset, copies: Sequence[ResizedCopies]) -> None:
    """Write the index of a prepared data set.

    Raises:
        SaveError: If it cannot be written.
    """
    arrays: dict[str, Any] = {"sides": np.array([copy.side_px for copy in copies], np.int64)}
    arrays |= snapshot_arrays(dataset)
    for copy in copies:
        arrays |= {f"{copy.side_px}/{name}": getattr(copy, name) for name in COLUMNS}
        arrays[f"{copy.side_px}/shards"] = pack_names(map(os.fsencode, copy.shards))
    with replacing(folder / INDEX) as file:
        np.savez_compressed(file, **arrays)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the settings of a prepared data set.

    Raises:
        DataError: If they cannot be read.
    """
    try:
        content: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {folder / MANIFEST}: {error}; prepare the data set again") from error
    found = content.get("version") if isinstance(content, dict) else None
    if found != VERSION:
        raise DataError(
            f"{folder / MANIFEST} has version {found}, and this program reads {VERSION}; prepare the data set again"
        )
    return content


def _load_copies(stored: Any, folder: Path, side_px: int) -> ResizedCopies:
    columns = {name: stored[f"{side_px}/{name}"].astype(np.int64) for name in COLUMNS}
    shards = tuple(map(os.fsdecode, unpack_names(stored[f"{side_px}/shards"])))
    return ResizedCopies(side_px=side_px, root=folder / str(side_px), shards=shards, **columns)


def _check_shards(folder: Path, dataset: Dataset, copies: Sequence[ResizedCopies]) -> None:
    """Make sure that every shard is there and long enough for what the index says is in it."""
    places: tuple[Dataset | ResizedCopies, ...] = (dataset, *copies)
    for place in places:
        ends = np.zeros(len(place.shards), np.int64)
        if place.shards:
            np.maximum.at(ends, place.shard_of, place.offsets + place.num_bytes)
        for shard, end in zip(place.shards, ends.tolist(), strict=True):
            path = place.root / shard
            found = path.stat().st_size if path.is_file() else -1
            if found < end:
                what = "is missing" if found < 0 else f"ends at byte {found}, before its last image"
                raise DataError(
                    f"shard {path} {what}; remove {folder / INDEX} and prepare the data set again to restore it"
                )
