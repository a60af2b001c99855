"""WebDataset tar shards: one file, or those of a folder, of its folders for splits, or of data/ in it."""

import os
from pathlib import Path

from pipelines.dataset.listing import (
    Candidate,
    Listing,
    Progress,
    check_trained,
    find_files,
    sorted_labels,
    subfolders,
)
from pipelines.dataset.shards import read_shard
from pipelines.dataset.splits import SPLIT_NAMES, split_named, split_word
from pipelines.errors import DataError

__all__ = ["DESCRIPTION", "list_images", "recognises"]

DESCRIPTION = "uncompressed .tar shards of WebDataset"

SUFFIX = ".tar"


def recognises(path: Path) -> bool:
    """Return whether a path is a shard, or a folder with shards."""
    if not path.is_dir():
        return path.suffix.lower() == SUFFIX
    shards = find_files(path, SUFFIX)
    return bool(shards) and not (all(shard.parent == path for shard in shards) and _has_class_folders(path))


def list_images(path: Path, _on_progress: Progress) -> Listing:
    """List the images of shards; a shard's folder or name may say its split.

    Raises:
        DataError: If a shard cannot be read or used, or there are no images.
    """
    root, shards = (path, find_files(path, SUFFIX)) if path.is_dir() else (path.parent, [path])
    candidates = [
        Candidate(
            path=os.fsencode(f"{shard.relative_to(root)}/{member.name}"),
            label=member.label,
            split=split_named(split_word(shard, root)),
            shard=number,
            offset=member.offset,
            num_bytes=member.num_bytes,
        )
        for number, shard in enumerate(shards)
        for member in read_shard(shard)
    ]
    if not candidates:
        raise DataError(f"the {len(shards)} shard(s) of {root} hold no images; expected samples of .jpg and .cls")
    check_trained(candidates, str(root))
    names = tuple(str(shard.relative_to(root)) for shard in shards)
    return Listing(root, tuple(candidates), sorted_labels(candidates), names)


def _has_class_folders(root: Path) -> bool:
    """Return whether a split has class folders: a .tar file beside it is what they were unpacked from."""
    folders = [root / name for name in SPLIT_NAMES]
    return any(subfolders(folder) for folder in folders if folder.is_dir())
