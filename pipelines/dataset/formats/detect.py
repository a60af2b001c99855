"""What a data set may look like on disk; every form is listed as candidates."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.dataset.formats.parquet import Table, unpack
from pipelines.dataset.formats.shards import read_shard
from pipelines.dataset.formats.tables import (
    METADATA,
    TABLES,
    find_metadata,
    list_manifest,
    list_metadata,
    unlabelled_metadata,
)
from pipelines.dataset.listing import (
    VAL_NAMES,
    Candidate,
    Listing,
    check_trained,
    other_tests,
    sorted_labels,
    split_named,
)
from pipelines.dataset.table import TRAIN, VAL
from pipelines.errors import DataError, did_you_mean

__all__ = ["list_source"]

SUPPORTED = (
    "a folder with train/ and val/, each with class folders; one tree of class folders; a .csv or .jsonl file with "
    "path (or file_name), label and perhaps split; a folder with such a metadata.csv or metadata.jsonl; "
    "uncompressed .tar shards of WebDataset; Hugging Face's .parquet files"
)


def list_source(data: Path, on_progress: Callable[[int, int], None]) -> Listing:
    """List a data set.

    Args:
        data: A folder or file of one of the forms of `SUPPORTED`.
        on_progress: Called with the numbers of images unpacked and to be unpacked, where that is needed.

    Raises:
        DataError: If there is no such data set, or it has none of these forms.
    """
    try:
        is_folder, exists = data.is_dir(), data.exists()
    except OSError as error:
        raise DataError(f"cannot look at {data}: {error.strerror}; check its permissions") from error
    if not exists:
        raise DataError(
            f"no such folder or manifest: {data}; give a folder of images, a .csv, .jsonl, .tar or .parquet"
        )
    suffix = data.suffix.lower()
    if is_folder:
        return _list_inside(data, on_progress)
    if suffix in TABLES:
        return list_manifest(data)
    if suffix == ".tar":
        return _list_shards(data.parent, [data])
    if suffix == ".parquet":
        return _list_parquet(data.parent, [data], on_progress)
    raise DataError(f"{data} is of no known form; what can be read is {SUPPORTED}")


def _list_inside(root: Path, on_progress: Callable[[int, int], None]) -> Listing:
    shards = _find(root, ".tar")
    beside_folders = all(shard.parent == root for shard in shards) and _has_class_folders(root)
    if shards and not beside_folders:
        return _list_shards(root, shards)
    if tables := find_metadata(root):
        return list_metadata(root, tables)
    if files := _find(root, ".parquet"):
        return _list_parquet(root, files, on_progress)
    return _list_folder(root)


def _has_class_folders(root: Path) -> bool:
    """Return whether images of a split lie in folders: a .tar file beside them is what they were unpacked from."""
    folders = [root / name for name in (TRAIN, *VAL_NAMES) if (root / name).is_dir()]
    return any(entry.is_dir() and entry.name[0] != "." for folder in folders for entry in folder.iterdir())


def _list_folder(root: Path) -> Listing:
    train = root / "train"
    val = next((root / name for name in VAL_NAMES if (root / name).is_dir()), None)
    if not train.is_dir():
        # Test images alone are enough to evaluate on; without those it is one tree of classes.
        parent, split = (val, VAL) if val else (root, None)
        return Listing(root, tuple(_class_folders(root, parent, split)), _class_names(parent))
    if val is None:
        # The train folder alone: --val-fraction may still take a part of it.
        return Listing(root, tuple(_class_folders(root, train, split=None)), _class_names(train))
    classes = _class_names(train)
    unknown = sorted(set(_class_names(val)) - set(classes))
    if unknown:
        raise DataError(
            f"{val} has {len(unknown)} class folder(s) that {train} lacks: {', '.join(unknown[:5])}"
            f"{did_you_mean(unknown[0], classes)}; both must name the same classes"
        )
    candidates = (*_class_folders(root, train, split=TRAIN), *_class_folders(root, val, split=VAL))
    return Listing(root, candidates, classes)


def _class_names(folder: Path) -> tuple[str, ...]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror}; check its permissions") from error
    tables = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in TABLES)
    if not names and tables and not set(tables) & set(METADATA):
        raise DataError(f"{folder} has no class folders; to read the table {tables[0]}, give it: {folder / tables[0]}")
    if not names and (table := unlabelled_metadata(folder)):
        raise DataError(
            f"{table} has no column label, and there are no class folders beside it; expected file_name,label"
        )
    if not names:
        raise DataError(
            f"{folder} has no class folders; expected {folder}/<class>/*.jpg; what can be read is {SUPPORTED}"
        )
    return tuple(names)


def _class_folders(root: Path, parent: Path, split: str | None) -> Iterator[Candidate]:
    """List all files below each class folder, at any depth, as torchvision's ImageFolder does."""
    for name in _class_names(parent):
        found = False
        for folder, folders, files in os.walk(parent / name, followlinks=True, onerror=_raise_unlistable):
            folders.sort()
            relative = Path(folder).relative_to(root)
            for file in files:
                found = True
                yield Candidate(os.fsencode(relative / file), name, split)
        if not found:
            raise DataError(f"class folder {parent / name} is empty; put images into it or remove it")


def _raise_unlistable(error: OSError) -> None:
    raise DataError(f"cannot list {error.filename}: {error.strerror}; check its permissions") from error


def _find(root: Path, suffix: str) -> list[Path]:
    """Return the files of a kind in a folder, in its folders for splits, and in data/; none that are being written.

    Of several splits to test on, the first of `VAL_NAMES` is taken, as with class folders.
    """
    folders = [root, *(root / name for name in (TRAIN, *VAL_NAMES, "data"))]
    try:
        files = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    except OSError as error:
        raise DataError(f"cannot list {root}: {error.strerror}; check its permissions") from error
    found = sorted(path for path in files if path.suffix.lower() == suffix and not path.name.startswith("."))
    others = other_tests({_split_word(path, root) for path in found})
    return [path for path in found if _split_word(path, root) not in others]


def _list_shards(root: Path, shards: list[Path]) -> Listing:
    candidates = [
        Candidate(
            path=os.fsencode(f"{shard.relative_to(root)}/{member.name}"),
            label=member.label,
            split=split_named(_split_word(shard, root)),
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


def _list_parquet(root: Path, files: list[Path], on_progress: Callable[[int, int], None]) -> Listing:
    unpacked = unpack([Table(path, split_named(_split_word(path, root))) for path in files], on_progress)
    listing = _list_shards(unpacked.folder, _find(unpacked.folder, ".tar"))
    return unpacked.named(listing)


def _split_word(path: Path, root: Path) -> str:
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
