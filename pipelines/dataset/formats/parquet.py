"""Hugging Face's Parquet files: one, or those of a folder, of its folders for splits, or of data/ in it.

They are unpacked into tar shards first.
"""

from dataclasses import replace
from pathlib import Path

from pipelines.dataset.formats import tar_shards
from pipelines.dataset.listing import Listing, Progress, find_files
from pipelines.dataset.splits import split_named, split_word
from pipelines.dataset.unpack import Table, unpack

__all__ = ["DESCRIPTION", "list_images", "recognises"]

DESCRIPTION = "Hugging Face's .parquet files"

SUFFIX = ".parquet"


def recognises(path: Path) -> bool:
    """Return whether a path is a Parquet file, or a folder with some."""
    return bool(find_files(path, SUFFIX)) if path.is_dir() else path.suffix.lower() == SUFFIX


def list_images(path: Path, on_progress: Progress) -> Listing:
    """List the images of Parquet files; a file's folder or name may say its split.

    Raises:
        DataError: If they cannot be unpacked.
    """
    root, files = (path, find_files(path, SUFFIX)) if path.is_dir() else (path.parent, [path])
    unpacked = unpack([Table(file, split_named(split_word(file, root))) for file in files], on_progress)
    listing = tar_shards.list_images(unpacked.folder, on_progress)
    if unpacked.class_names is None:
        return listing
    names = unpacked.class_names
    return replace(
        listing,
        candidates=tuple(replace(one, label=names[int(one.label)]) for one in listing.candidates),
        classes=tuple(names[int(label)] for label in listing.classes),
    )
