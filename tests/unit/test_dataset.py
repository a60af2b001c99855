"""Which files are images, what they are called, and the fingerprint over them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from image_files import counted, draw, draw_tree, write_manifest

from pipelines.dataset import ORIGINAL, Dataset, ResizedCopies, open_dataset
from pipelines.dataset.table import with_copies
from pipelines.errors import DataError

NO_IMAGE = "not a JPEG, PNG, BMP, TIFF, WebP, PNM or JPEG 2000 image"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder for images that does not exist yet."""
    return tmp_path / "data"


def _left_out(opened: Dataset) -> dict[str, str]:
    return {item.path.name: item.reason for item in opened.left_out}


def test_paths_of_many_images_lead_to_their_files(data: Path, tmp_path: Path) -> None:
    """They are of one length, whatever the images' and copies' own are; absolute ones have no root before them."""
    elsewhere = draw(tmp_path / "e/a.png", size=(3, 4))
    manifest = write_manifest(data, f"path,label\n{elsewhere},a\nimages/one.jpg,a\nimages/two.jpg,b\n")
    dataset = open_dataset(manifest, val_fraction=1)
    zeros = np.zeros(len(dataset), np.int64)
    copy = ResizedCopies(64, tmp_path / "a longer place for copies", zeros, zeros, zeros, (), zeros, zeros)
    dataset = with_copies(dataset, [copy])
    rows, copy_ids = np.array([2, 0, 1, 1]), np.array([ORIGINAL, ORIGINAL, 0, ORIGINAL])
    found = [os.path.normpath(bytes(path)) for path in dataset.files(rows, copy_ids)]
    assert found == [dataset.file(row, copy) for row, copy in zip(rows.tolist(), copy_ids.tolist(), strict=True)]


def test_files_that_are_no_images_are_left_out(data: Path) -> None:
    """Text, empty files, GIFs and system files are listed with their reasons, whatever their names say."""
    draw_tree(data, ["a"], 2)
    (data / "a/notes.jpg").write_text("this is text\n")
    (data / "a/empty.jpg").touch()
    draw(data / "a/animation.jpg", mode="P", image_format="GIF")
    (data / "a/Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100))
    (data / "a/cut.jpg").write_bytes((data / "a/000.jpg").read_bytes()[:20])
    opened = open_dataset(data, val_fraction=0.5)
    reasons = _left_out(opened)
    assert reasons == {
        "Thumbs.db": NO_IMAGE,
        "animation.jpg": NO_IMAGE,
        "empty.jpg": "empty file",
        "notes.jpg": NO_IMAGE,
        "cut.jpg": NO_IMAGE,
    }
    assert {opened.path(row).name for row in range(len(opened))} == {"000.jpg", "001.jpg"}
    assert {item.path.parent for item in opened.left_out} == {data / "a"}


def test_data_without_a_readable_image(data: Path) -> None:
    """If nothing can be read the error names the first file and why."""
    (data / "a").mkdir(parents=True)
    (data / "a/notes.jpg").write_text("this is text\n")
    with pytest.raises(DataError, match=rf"{data} has no readable image; {data}/a/notes\.jpg: {NO_IMAGE}"):
        open_dataset(data, val_fraction=0.5)


@pytest.mark.parametrize(
    ("name", "mode", "image_format"),
    [
        ("rgb.jpg", "RGB", "JPEG"),
        ("grey.JPEG", "L", "JPEG"),
        ("cmyk.jpg", "CMYK", "JPEG"),
        ("rgb.png", "RGB", "PNG"),
        ("alpha.png", "RGBA", "PNG"),
        ("palette.png", "P", "PNG"),
        ("deep.png", "I;16", "PNG"),
        ("rgb.bmp", "RGB", "BMP"),
        ("rgb.tiff", "RGB", "TIFF"),
        ("rgb.webp", "RGB", "WEBP"),
        ("rgb.ppm", "RGB", "PPM"),
        ("grey.pgm", "L", "PPM"),
        ("rgb.jp2", "RGB", "JPEG2000"),
        ("png-in-truth.jpg", "RGB", "PNG"),
        ("no-suffix", "RGB", "JPEG"),
    ],
)
def test_formats(data: Path, name: str, mode: str, image_format: str) -> None:
    """Every format that DALI reads is recognised by the file's content, not by its name."""
    draw(data / "a" / name, size=(33, 17), mode=mode, image_format=image_format)
    opened = open_dataset(data, val_fraction=1)
    assert opened.left_out == ()
    assert (opened.heights.tolist(), opened.widths.tolist()) == ([17], [33])


def test_images_of_many_megapixels(data: Path) -> None:
    """An image above PIL's warning limit of 89 megapixels is measured without a warning."""
    path = data / "a/huge.ppm"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"P6 10000 9500 255\n" + bytes(100))
    dataset = open_dataset(data, val_fraction=1)
    assert (dataset.heights.tolist(), dataset.widths.tolist()) == ([9500], [10000])


@pytest.mark.parametrize(
    "name", [b"with spaces .jpg", "snö 雪 🦉.jpg".encode(), b"odd \xff\xfe\x80.jpg", b"quo\"te's,;\\.jpg", b"-rf.jpg"]
)
def test_odd_file_names(data: Path, name: bytes) -> None:
    """Any file name keeps its bytes, in the cache too."""
    path = os.fsencode(data) + b"/a b/" + name
    draw(draw(data / "a b/x.jpg", size=(5, 6)).rename(os.fsdecode(path)).with_name("y.jpg"))
    dataset = open_dataset(data, val_fraction=1)
    rows = {dataset.relative_path(row): dataset.path(row) for row in range(2)}
    assert set(rows) == {b"a b/" + name, b"a b/y.jpg"}
    assert os.fsencode(rows[b"a b/" + name]) == path
    assert rows[b"a b/" + name].exists()
    again, num_read_again = counted(data, val_fraction=1)
    assert num_read_again == 0
    assert again.fingerprint == dataset.fingerprint


@pytest.mark.parametrize("name", [b"with spaces", "snö 雪".encode(), b"odd \xff\xfe\x80"])
def test_odd_class_names(data: Path, name: bytes) -> None:
    """Any folder name may be a class."""
    folder = data / os.fsdecode(name)
    draw_tree(folder.parent, [folder.name], 2)
    dataset = open_dataset(data, val_fraction=0.5)
    assert dataset.classes == (os.fsdecode(name),)
    assert dataset.relative_path(0).startswith(name + b"/")


def test_fingerprint_is_the_contents_not_the_places(data: Path, tmp_path: Path) -> None:
    """A copy in another folder, with other times, has the same fingerprint."""
    draw_tree(data / "train", ["a", "b"], 2)
    draw_tree(data / "val", ["a", "b"], 1)
    fingerprint = open_dataset(data).fingerprint
    assert len(fingerprint) == 64
    shutil.copytree(data, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    os.utime(tmp_path / "elsewhere/train/a/000.jpg", ns=(1, 1))
    assert open_dataset(tmp_path / "elsewhere").fingerprint == fingerprint


@pytest.mark.parametrize("change", ["size", "length", "label", "name", "split", "new", "class"])
def test_fingerprint_covers_changes(data: Path, change: str) -> None:
    """An image of another size, length, label, name or split, a new image, or a class renamed changes it."""
    draw_tree(data / "train", ["a", "b"], 2)
    draw_tree(data / "val", ["a", "b"], 1)
    before = open_dataset(data).fingerprint
    image = data / "train/a/001.jpg"
    if change == "size":
        length = image.stat().st_size
        draw(image, size=(12, 20))
        assert image.stat().st_size == length
    elif change == "length":
        image.write_bytes(image.read_bytes() + b"\0")
    elif change == "label":
        image.rename(data / "train/b/002.jpg")
    elif change == "name":
        image.rename(image.with_name("002.jpg"))
    elif change == "split":
        image.rename(data / "val/a/001.jpg")
    elif change == "new":
        draw(data / "train/a/new.jpg")
    else:
        for split in ("train", "val"):
            (data / split / "b").rename(data / split / "c")
    assert open_dataset(data).fingerprint != before


def test_fingerprint_of_relabelled_manifests_differs(data: Path) -> None:
    """The same files under other labels or splits are another data set."""
    texts = [
        "path,label,split\nimages/one.jpg,a,train\nimages/two.jpg,a,val\n",
        "path,label,split\nimages/one.jpg,b,train\nimages/two.jpg,b,val\n",
        "path,label,split\nimages/one.jpg,a,val\nimages/two.jpg,a,train\n",
        # These two differ in nothing but which image is an a and which is a b.
        "path,label,split\nimages/one.jpg,a,train\nimages/two.jpg,b,train\nimages/three.jpg,a,val\n",
        "path,label,split\nimages/one.jpg,b,train\nimages/two.jpg,a,train\nimages/three.jpg,a,val\n",
    ]
    assert len({open_dataset(write_manifest(data, text)).fingerprint for text in texts}) == 5
