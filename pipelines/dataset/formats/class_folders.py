"""Folders named after classes: train/<class>/*.jpg and val/<class>/*.jpg, one of the two, or <class>/*.jpg."""

import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.dataset.formats.tables import unused_table
from pipelines.dataset.listing import Candidate, Listing, Progress, subfolders
from pipelines.dataset.splits import VAL_NAMES
from pipelines.dataset.table import TRAIN, VAL
from pipelines.errors import DataError, did_you_mean

__all__ = ["DESCRIPTION", "list_images", "recognises"]

DESCRIPTION = "a folder with train/ and val/, each with class folders (<class>/*.jpg); one tree of class folders"


def recognises(path: Path) -> bool:
    """Return whether a path is a folder with folders in it."""
    return path.is_dir() and bool(subfolders(path))


def list_images(path: Path, _on_progress: Progress) -> Listing:
    """List all files below each class folder, at any depth, as torchvision's ImageFolder does.

    Raises:
        DataError: If a folder cannot be listed, has no images, or val/ names classes that train/ lacks.
    """
    train = path / TRAIN
    val = next((path / name for name in VAL_NAMES if (path / name).is_dir()), None)
    if not train.is_dir():
        # Test images alone are enough to evaluate on; without those it is one tree of classes.
        parent, split = (val, VAL) if val else (path, None)
        return Listing(path, tuple(_candidates(path, parent, split)), _class_names(parent))
    if val is None:
        # The train folder alone: `val_fraction` may still take a part of it.
        return Listing(path, tuple(_candidates(path, train, split=None)), _class_names(train))
    classes = _class_names(train)
    unknown = sorted(set(_class_names(val)) - set(classes))
    if unknown:
        raise DataError(
            f"{val} has {len(unknown)} class folder(s) that {train} lacks: {', '.join(unknown[:5])}"
            f"{did_you_mean(unknown[0], classes)}; remove them, or add images of them to train"
        )
    return Listing(path, (*_candidates(path, train, TRAIN), *_candidates(path, val, VAL)), classes)


def _class_names(folder: Path) -> tuple[str, ...]:
    names = subfolders(folder)
    if not names:
        raise DataError(unused_table(folder) or f"{folder} has no class folders; expected {folder}/<class>/*.jpg")
    return names


def _candidates(root: Path, parent: Path, split: str | None) -> Iterator[Candidate]:
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
