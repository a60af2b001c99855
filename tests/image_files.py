"""Image files for tests of data sets: their content does not matter, but their sizes."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from PIL import Image

from pipelines.dataset import Dataset, open_dataset
from pipelines.errors import DataError

__all__ = ["counted", "draw", "draw_tree", "error_of", "num_headers_read", "samples", "split_of", "write_manifest"]

Progress = Callable[[int, int], None]


def draw(path: Path, size: tuple[int, int] = (12, 8), mode: str = "RGB", image_format: str | None = None) -> Path:
    """Write an image of width by height pixels, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, format=image_format)
    return path


def draw_tree(root: Path, classes: Iterable[str], count: int) -> None:
    """Write `count` images into each class folder below `root`."""
    for name in classes:
        for number in range(count):
            draw(root / name / f"{number:03}.jpg", size=(10 + number, 20))


def write_manifest(data: Path, text: str) -> Path:
    """Write a manifest beside images one.jpg to four.jpg."""
    for number, name in enumerate(("one", "two", "three", "four")):
        draw(data / f"images/{name}.jpg", size=(30 + number, 20))
    path = data / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


def samples(dataset: Dataset, split: str) -> list[tuple[str, int]]:
    """Return path and label of each image of a split, in the order of rows."""
    return [(str(dataset.path(int(row))), int(dataset.labels[row])) for row in dataset.rows(split)]


def split_of(dataset: Dataset) -> dict[bytes, bool]:
    """Return whether each path is tested on."""
    return {dataset.relative_path(row): row >= dataset.num_train for row in range(len(dataset))}


def counted(
    data: Path,
    val_fraction: float | None = None,
    on_progress: Progress = lambda done, total: None,  # noqa: ARG005
) -> tuple[Dataset, int]:
    """Open a data set, and count the headers that were read for it."""
    totals = [0]

    def note(done: int, total: int) -> None:
        totals.append(total)
        on_progress(done, total)

    return open_dataset(data, val_fraction=val_fraction, on_progress=note), totals[-1]


def num_headers_read(data: Path, val_fraction: float | None = None) -> int:
    """Open a data set, and return how many headers were read for it."""
    return counted(data, val_fraction)[1]


def error_of(data: Path, val_fraction: float | None = None) -> str:
    """Return the text of the DataError that opening gives."""
    with pytest.raises(DataError) as caught:
        open_dataset(data, val_fraction=val_fraction)
    assert type(caught.value) is DataError
    assert "\n" not in str(caught.value)
    return str(caught.value)
