"""What a data set may look like on disk: class folders or a CSV manifest, both listed as candidates."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dali_fixres.errors import DataError, did_you_mean
from dali_fixres.index.shards import read_shard
from dali_fixres.index.table import TRAIN, VAL

__all__ = ["Candidate", "Listing", "list_source"]

VAL_NAMES = ("val", "valid", "validation", "test")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be a picture.

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


def list_source(data: Path) -> Listing:
    """List a data set: a folder of class folders, a folder with train/ and val/, tar shards, or a CSV manifest.

    Raises:
        DataError: If there is no such data set, or it has none of these forms.
    """
    try:
        is_folder, exists = data.is_dir(), data.exists()
    except OSError as error:
        raise DataError(f"cannot look at {data}: {error.strerror}; check its permissions") from error
    if is_folder:
        shards = _find_shards(data)
        return _list_shards(data, shards) if shards else _list_folder(data)
    if not exists:
        raise DataError(f"no such folder or manifest: {data}; give --data a folder with train/ and val/, or a CSV file")
    if data.suffix.lower() == ".csv":
        return _list_manifest(data)
    if data.suffix.lower() == ".tar":
        return _list_shards(data.parent, [data])
    raise DataError(f"{data} is neither a folder, nor a .csv manifest (columns path,label[,split]), nor a .tar shard")


def _list_folder(root: Path) -> Listing:
    train = root / "train"
    val = next((root / name for name in VAL_NAMES if (root / name).is_dir()), None)
    if not train.is_dir():
        # Test pictures alone are enough to evaluate on; without those it is one tree of classes.
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
    if not names:
        raise DataError(
            f"{folder} has no class folders; expected {folder}/<class>/*.jpg, "
            f"or a folder with train/<class>/*.jpg and val/<class>/*.jpg"
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
            raise DataError(f"class folder {parent / name} is empty; put pictures into it or remove it")


def _raise_unlistable(error: OSError) -> None:
    raise DataError(f"cannot list {error.filename}: {error.strerror}; check its permissions") from error


def _find_shards(root: Path) -> list[Path]:
    """Return the tar files in a folder, and in its folders for splits."""
    folders = [root, *(root / name for name in (TRAIN, *VAL_NAMES))]
    try:
        return sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir() if _is_shard(path))
    except OSError as error:
        raise DataError(f"cannot list {root}: {error.strerror}; check its permissions") from error


def _is_shard(path: Path) -> bool:
    """Return whether a path is a tar file, and not a hidden one that is still being written."""
    return path.suffix.lower() == ".tar" and not path.name.startswith(".")


def _list_shards(root: Path, shards: list[Path]) -> Listing:
    candidates = [
        Candidate(
            path=os.fsencode(shard.relative_to(root) / member.name),
            label=member.label,
            split=_shard_split(shard, root),
            shard=number,
            offset=member.offset,
            num_bytes=member.num_bytes,
        )
        for number, shard in enumerate(shards)
        for member in read_shard(shard)
    ]
    if not candidates:
        raise DataError(f"the {len(shards)} shard(s) of {root} hold no pictures; expected samples of .jpg and .cls")
    _check_trained(candidates, str(root))
    classes = _sorted_labels({candidate.label for candidate in candidates})
    return Listing(root, tuple(candidates), classes, tuple(str(shard.relative_to(root)) for shard in shards))


def _shard_split(shard: Path, root: Path) -> str | None:
    """Return the split that a shard's folder, or the first word of its name, says it is of."""
    folder = shard.parent.name if shard.parent != root else ""
    word = folder or re.split(r"[^a-z]", shard.name.lower(), maxsplit=1)[0]
    return VAL if word in VAL_NAMES else TRAIN if word == TRAIN else None


def _check_trained(candidates: Sequence[Candidate], where: str) -> None:
    """Refuse labels that are only tested on, which a typo may be."""
    trained = {candidate.label for candidate in candidates if candidate.split != VAL}
    unknown = sorted({candidate.label for candidate in candidates} - trained)
    if trained and unknown:
        raise DataError(
            f"{where} has {len(unknown)} label(s) to test on that it never trains on: {', '.join(unknown[:5])}"
            f"{did_you_mean(unknown[0], trained)}"
        )


def _list_manifest(manifest: Path) -> Listing:
    root = manifest.parent
    candidates = []
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            missing = {"path", "label"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{manifest} lacks the column(s) {', '.join(sorted(missing))}; its first line must read path,label "
                    "or path,label,split"
                )
            candidates = [_manifest_row(row, f"{manifest}, line {reader.line_num}") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {manifest}: {error}") from error
    if not candidates:
        raise DataError(f"{manifest} has no rows below its first line")
    _check_trained(candidates, str(manifest))
    return Listing(root, tuple(candidates), _sorted_labels({candidate.label for candidate in candidates}))


def _manifest_row(row: dict[str, str | None], where: str) -> Candidate:
    path, label, split = row["path"], row["label"], row.get("split") or None
    if not path or not label:
        raise DataError(f"{where}: path and label must not be empty")
    if split in VAL_NAMES:
        split = VAL
    if split not in {TRAIN, VAL, None}:
        raise DataError(f"{where}: split must be train or one of {', '.join(VAL_NAMES)}; found {split!r}")
    return Candidate(os.fsencode(path), label, split)


def _sorted_labels(labels: set[str]) -> tuple[str, ...]:
    """Sort labels by name, or by value if all are whole numbers, so that "10" follows "9"."""
    if all(label.isascii() and label.isdigit() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))
