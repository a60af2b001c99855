"""Manifests of paths and labels, as CSV."""

from pathlib import Path

import pytest
from image_files import draw, error_of, samples, split_of, write_manifest

from pipelines.dataset import TRAIN, VAL, open_dataset
from pipelines.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder for images that does not exist yet."""
    return tmp_path / "data"


def test_manifest_with_a_split(data: Path) -> None:
    """Rows name path, label and split; other columns are ignored and paths start at the manifest's folder."""
    manifest = write_manifest(
        data,
        "split,path,note,label\n"
        "train,images/one.jpg,x,owl\n"
        "train,images/two.jpg,,cat\n"
        "\n"
        "val,images/three.jpg,,owl\n"
        'val,"images/four.jpg","a, b",cat\n',
    )
    dataset = open_dataset(manifest)
    assert dataset.classes == ("cat", "owl")
    assert dataset.root == data
    assert samples(dataset, TRAIN) == [(str(data / "images/one.jpg"), 1), (str(data / "images/two.jpg"), 0)]
    assert samples(dataset, VAL) == [(str(data / "images/four.jpg"), 0), (str(data / "images/three.jpg"), 1)]
    assert dataset.widths.tolist() == [30, 31, 33, 32]


def test_manifest_without_a_split(data: Path) -> None:
    """A manifest without splits takes a share of each class."""
    manifest = write_manifest(
        data, "path,label\nimages/one.jpg,a\nimages/two.jpg,a\nimages/three.jpg,b\nimages/four.jpg,b\n"
    )
    dataset = open_dataset(manifest, val_fraction=0.5)
    assert sorted(dataset.labels[dataset.rows(VAL)].tolist()) == [0, 1]
    assert sorted(dataset.labels[dataset.rows(TRAIN)].tolist()) == [0, 1]


def test_manifest_with_some_splits(data: Path) -> None:
    """Rows that name a split keep it; only the others are drawn from."""
    rows = ["one.jpg,a,train", "two.jpg,a,val", "three.jpg,a,", "four.jpg,a,"]
    manifest = write_manifest(data, "\n".join(["path,label,split", *(f"images/{row}" for row in rows)]))
    split = split_of(open_dataset(manifest, val_fraction=0.5))
    assert (split[b"images/one.jpg"], split[b"images/two.jpg"]) == (False, True)
    assert {split[b"images/three.jpg"], split[b"images/four.jpg"]} == {False, True}


def test_numeric_labels_are_sorted_by_value(data: Path) -> None:
    """If all labels are whole numbers 9 comes before 10; else they are sorted as words."""
    rows = "images/one.jpg,10\nimages/two.jpg,9\nimages/three.jpg,100\n"
    manifest = write_manifest(data, f"path,label\n{rows}")
    assert open_dataset(manifest, val_fraction=1).classes == ("9", "10", "100")
    manifest = write_manifest(data, f"path,label\n{rows}images/four.jpg,x\n")
    assert open_dataset(manifest, val_fraction=1).classes == ("10", "100", "9", "x")


def test_manifest_paths_may_be_absolute(data: Path, tmp_path: Path) -> None:
    """An absolute path stands for itself."""
    elsewhere = draw(tmp_path / "elsewhere/a.png", size=(3, 4))
    manifest = write_manifest(data, f"path,label,split\n{elsewhere},a,val\nimages/one.jpg,a,train\n")
    dataset = open_dataset(manifest)
    assert [dataset.path(row) for row in range(2)] == [data / "images/one.jpg", elsewhere]


def test_manifest_written_by_a_spreadsheet(data: Path) -> None:
    """A byte order mark and carriage returns do no harm."""
    manifest = write_manifest(data, "")
    manifest.write_bytes(b"\xef\xbb\xbfpath,label,split\r\nimages/one.jpg,\xc3\xa4,val\r\n")
    dataset = open_dataset(manifest)
    assert dataset.classes == ("ä",)
    assert dataset.path(0) == data / "images/one.jpg"


def test_manifest_names_a_missing_file(data: Path) -> None:
    """A file that is not there is left out, with the system's reason."""
    manifest = write_manifest(data, "path,label,split\nimages/one.jpg,a,train\nimages/none.jpg,a,val\n")
    opened = open_dataset(manifest)
    assert len(opened) == 1
    assert [(item.path, item.reason) for item in opened.left_out] == [
        (data / "images/none.jpg", "No such file or directory")
    ]


def test_manifest_with_an_impossible_path(data: Path) -> None:
    """A path that no file can have, with a zero byte in it, is left out like a missing file."""
    manifest = write_manifest(data, "path,label,split\nimages/one.jpg,a,train\nimages/t\0wo.jpg,a,val\n")
    opened = open_dataset(manifest)
    assert (len(opened), len(opened.left_out)) == (1, 1)
    assert opened.left_out[0].reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nimages/one.jpg,a\n", r"lacks the column\(s\) path; its first line must be path,label"),
        ("images/one.jpg,a\n", r"lacks the column\(s\) path, label; its first line must be path,label"),
        ("", r"lacks the column\(s\) path, label"),
        ("path,label\n", r"has no rows"),
        ("path,label,split\nimages/one.jpg,a,train\nimages/two.jpg,a,dev\n",
         r", line 3: split must be train or one of val, valid, validation, test; found 'dev'"),
        ("path,label\nimages/one.jpg,a\n,b\n", r", line 3: path and label must not be empty"),
        ("path,label\nimages/one.jpg\n", r", line 2: path and label must not be empty"),
        ('path,label\n"images/one.jpg,a\n', r"cannot read .*: unexpected end of data"),
    ],
)  # fmt: skip
def test_bad_manifests(data: Path, text: str, message: str) -> None:
    """A manifest that cannot be used is refused with its path, the line and what is expected."""
    manifest = write_manifest(data, text)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(manifest, val_fraction=0.5)
    assert str(manifest) in str(caught.value)


def test_manifest_in_another_encoding(data: Path) -> None:
    """A manifest that is not UTF-8 is refused with its path."""
    manifest = write_manifest(data, "")
    manifest.write_bytes(b"path,label\nimages/one.jpg,\xe4\n")
    with pytest.raises(DataError, match=r"list\.csv, line 2: is not UTF-8"):
        open_dataset(manifest, val_fraction=0.5)


def test_manifest_without_split_and_no_val_fraction(data: Path) -> None:
    """A manifest without splits and without --val-fraction is refused with both ways out."""
    manifest = write_manifest(data, "path,label\nimages/one.jpg,a\n")
    assert error_of(manifest) == (
        f"{manifest} does not say which images to test on; expected a split column, or give `val_fraction=0.1`"
    )


def test_a_manifest_tests_only_on_labels_it_trains_on(data: Path) -> None:
    """A label that only test rows have is named, with the nearest that is trained on."""
    manifest = write_manifest(data, "path,label,split\nimages/one.jpg,apple,train\nimages/two.jpg,appel,val\n")
    message = error_of(manifest)
    assert "appel" in message
    assert "did you mean 'apple'" in message
