import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.dataset import TRAIN, VAL, Dataset, open_dataset
from pipelines.errors import DataError


def draw(*paths: Path) -> None:
    """Write small images."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(path)


def write_lines(path: Path, rows: list[Any]) -> Path:
    """Write JSON lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def names(dataset: Dataset, split: str) -> set[tuple[str, str]]:
    """Return path and class of each image of a split."""
    return {
        (dataset.relative_path(row).decode(), dataset.classes[dataset.labels[row]])
        for row in dataset.rows(split).tolist()
    }


def test_metadata_in_the_folders_of_splits(tmp_path: Path) -> None:
    """As Hugging Face's ImageFolder has it: train/metadata.csv and test/metadata.csv, file names relative to them."""
    draw(tmp_path / "train" / "1.png", tmp_path / "train" / "deep" / "2.png", tmp_path / "test" / "1.png")
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label\n1.png,cat\ndeep/2.png,dog\n")
    (tmp_path / "test" / "metadata.csv").write_text("file_name,label\n1.png,dog\n")
    dataset = open_dataset(tmp_path)
    assert names(dataset, TRAIN) == {("train/1.png", "cat"), ("train/deep/2.png", "dog")}
    assert names(dataset, VAL) == {("test/1.png", "dog")}


def test_metadata_of_json_lines_for_the_whole(tmp_path: Path) -> None:
    """One metadata.jsonl above the splits: the first folder of a file name says its split; labels may be numbers."""
    draw(tmp_path / "train" / "1.png", tmp_path / "train" / "2.png", tmp_path / "validation" / "1.png")
    write_lines(
        tmp_path / "metadata.jsonl",
        [
            {"file_name": "train/1.png", "label": 10, "text": "ten"},
            {"file_name": "train/2.png", "label": 9},
            {"file_name": "validation/1.png", "label": 9},
        ],
    )
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("9", "10")
    assert names(dataset, TRAIN) == {("train/1.png", "10"), ("train/2.png", "9")}
    assert names(dataset, VAL) == {("validation/1.png", "9")}


def test_flat_images_with_metadata_need_a_split(tmp_path: Path) -> None:
    """Images in one folder have no split; --val-fraction draws one."""
    draw(*(tmp_path / f"{number}.png" for number in range(4)))
    rows = [{"file_name": f"{number}.png", "label": "ab"[number % 2]} for number in range(4)]
    write_lines(tmp_path / "metadata.jsonl", rows)
    with pytest.raises(DataError, match="give `val_fraction="):
        open_dataset(tmp_path)
    dataset = open_dataset(tmp_path, val_fraction=0.5)
    assert (len(dataset.rows(TRAIN)), len(dataset.rows(VAL))) == (2, 2)


def test_metadata_without_labels_is_no_manifest(tmp_path: Path) -> None:
    """Class folders with captions beside them are class folders."""
    draw(tmp_path / "train" / "cat" / "1.png", tmp_path / "val" / "cat" / "1.png")
    (tmp_path / "train" / "metadata.csv").write_text("file_name,text\ncat/1.png,a cat\n")
    assert open_dataset(tmp_path).classes == ("cat",)


def test_the_first_of_two_test_splits_is_taken(tmp_path: Path) -> None:
    """As with folders: where there are validation and test images, the test images stay out."""
    draw(*(tmp_path / f"{number}.png" for number in range(3)))
    splits = ("train", "test", "validation")
    rows = [{"path": f"{number}.png", "label": "cat", "split": split} for number, split in enumerate(splits)]
    dataset = open_dataset(write_lines(tmp_path / "list.jsonl", rows))
    assert (names(dataset, TRAIN), names(dataset, VAL)) == ({("0.png", "cat")}, {("2.png", "cat")})


def test_metadata_that_cannot_be_read(tmp_path: Path) -> None:
    """A broken metadata file is named; the folder is not taken for one without."""
    (tmp_path / "metadata.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"metadata.jsonl, line 1 is not JSON"):
        open_dataset(tmp_path, val_fraction=1.0)


def test_a_table_of_json_lines(tmp_path: Path) -> None:
    """--data FILE.jsonl is a manifest like FILE.csv."""
    draw(tmp_path / "1.png", tmp_path / "2.png")
    rows = [{"path": "1.png", "label": "cat", "split": "train"}, {"path": "2.png", "label": "cat", "split": "val"}]
    dataset = open_dataset(write_lines(tmp_path / "list.jsonl", rows))
    assert (names(dataset, TRAIN), names(dataset, VAL)) == ({("1.png", "cat")}, {("2.png", "cat")})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"path": "1.png", "label": "cat"}\n{"path": ', "line 2 is not JSON"),
        ("[1, 2]\n", 'line 1: expected an object, as in {"file_name": "1.jpg", "label": "cat"}'),
        ('{"path": "1.png"}\n', "line 1: path and label must not be empty"),
        ('{"path": "1.png", "label": ["cat"]}\n', "line 1: path must be text, and label a name or a number"),
        ('{"path": "1.png", "label": "cat", "split": "dev"}\n', "line 1: split must be train or one of"),
        ("\n", "has no rows"),
        ('{"path": "\\ud800.png", "label": "cat"}\n', "is not text that can be written"),
        ('{"path": "1.png", "label": "\\ud800"}\n', "is not text that can be written"),
    ],
)
def test_json_lines_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    """Each is refused in one line that names the file and the line."""
    table = tmp_path / "list.jsonl"
    table.write_text(text)
    with pytest.raises(DataError) as caught:
        open_dataset(table, val_fraction=1.0)
    assert str(caught.value).startswith(str(table))
    assert message in str(caught.value)


def test_an_image_listed_twice(tmp_path: Path) -> None:
    """Two rows for one image would train on it twice, perhaps with two labels."""
    draw(tmp_path / "1.png")
    table = write_lines(tmp_path / "list.jsonl", [{"path": "1.png", "label": "cat"}, {"path": "1.png", "label": "dog"}])
    with pytest.raises(DataError, match=r"lists 1.png twice; each image may be there once"):
        open_dataset(table, val_fraction=1.0)


def test_metadata_without_labels_and_without_class_folders(tmp_path: Path) -> None:
    """It is named as what lacks the labels, instead of asking for class folders."""
    draw(tmp_path / "1.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\n1.png,a cat\n")
    with pytest.raises(DataError, match=r"metadata.csv has no column label, and there are no class folders"):
        open_dataset(tmp_path, val_fraction=1.0)


def test_spaces_behind_commas(tmp_path: Path) -> None:
    """A table written as "path, label" has these columns, and labels without the space."""
    draw(tmp_path / "1.png")
    (tmp_path / "list.csv").write_text("path, label\n1.png, cat\n")
    assert open_dataset(tmp_path / "list.csv", val_fraction=1.0).classes == ("cat",)


def test_a_name_with_a_comma(tmp_path: Path) -> None:
    """A row with more fields than columns is refused: what stands third is not its label."""
    (tmp_path / "list.csv").write_text("path,label\na/0, big.jpg,b\n")
    with pytest.raises(DataError, match=r"list.csv, line 2: has more fields than the first line"):
        open_dataset(tmp_path / "list.csv", val_fraction=1.0)


def test_a_folder_with_a_table_of_another_name(tmp_path: Path) -> None:
    """The error names the table, which has to be given itself."""
    (tmp_path / "all.csv").write_text("path,label\n1.png,cat\n")
    with pytest.raises(DataError, match=r"has no class folders; to read the table all.csv, give it: .*/all.csv"):
        open_dataset(tmp_path, val_fraction=1.0)
