import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from dali_fixres.errors import DataError
from dali_fixres.folders import cache_folder
from dali_fixres.index import BASE, TRAIN, VAL, Index, OpenedData, Rung, open_data
from dali_fixres.index.table import with_rungs

NO_PICTURE = "not a JPEG, PNG, BMP, TIFF, WebP, PNM or JPEG 2000 picture"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder for pictures that does not exist yet."""
    return tmp_path / "data"


def _draw(path: Path, size: tuple[int, int] = (12, 8), mode: str = "RGB", picture_format: str | None = None) -> Path:
    """Write a picture of width by height pixels, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, format=picture_format)
    return path


def _draw_tree(root: Path, classes: Iterable[str], count: int) -> None:
    """Write `count` pictures into each class folder below `root`."""
    for name in classes:
        for number in range(count):
            _draw(root / name / f"{number:03}.jpg", size=(10 + number, 20))


def _samples(index: Index, split: str) -> list[tuple[str, int]]:
    """Return path and label of each sample of a split, in index order."""
    return [(str(index.path(int(row))), int(index.labels[row])) for row in index.rows(split)]


def _split_of(index: Index) -> dict[bytes, bool]:
    """Return whether each path is tested on."""
    return {index.relative_path(row): row >= index.num_train for row in range(len(index))}


def _left_out(opened: OpenedData) -> dict[str, str]:
    return {item.path.name: item.reason for item in opened.left_out}


# Forms of a data set


@pytest.mark.parametrize("val_name", ["val", "valid", "validation", "test"])
def test_train_and_val_are_torchvisions_image_folders(data: Path, val_name: str) -> None:
    """Each split has the pictures, the labels and the order of torchvision's ImageFolder, at any depth."""
    _draw_tree(data / "train", ["owl", "Ant", "cat", "10", "9"], 3)
    _draw(data / "train/cat/indoors/a.jpg")
    _draw(data / "train/cat/indoors/deep/b.jpg")
    _draw_tree(data / val_name, ["owl", "Ant", "cat", "10", "9"], 2)
    index = open_data(data).index
    for split, folder in ((TRAIN, data / "train"), (VAL, data / val_name)):
        reference = ImageFolder(folder)
        assert index.classes == tuple(reference.classes) == ("10", "9", "Ant", "cat", "owl")
        assert _samples(index, split) == reference.samples
    assert len(index) == 17 + 10
    assert index.root == data


def test_classes_that_begin_alike_keep_imagefolders_labels(data: Path) -> None:
    """Where one class's name begins another's, paths and labels are still ImageFolder's."""
    _draw_tree(data, ["a", "a-b", "a b", "ab"], 2)
    index = open_data(data, val_fraction=1).index
    reference = ImageFolder(data)
    assert index.classes == tuple(reference.classes)
    assert sorted(_samples(index, VAL)) == sorted(reference.samples)


def test_val_may_lack_classes(data: Path) -> None:
    """Labels come from train, even where val shows only some of its classes."""
    _draw_tree(data / "train", ["a", "b", "c"], 1)
    _draw_tree(data / "val", ["c"], 1)
    index = open_data(data).index
    assert index.classes == ("a", "b", "c")
    assert _samples(index, VAL) == [(str(data / "val/c/000.jpg"), 2)]


def test_sizes_are_the_files(data: Path) -> None:
    """Height, width and file length of each row are those of its file, rows are sorted by split and path."""
    _draw(data / "train/b/wide.png", size=(300, 20))
    _draw(data / "train/a/tall.bmp", size=(21, 400))
    _draw(data / "val/a/small.jpg", size=(1, 2))
    index = open_data(data).index
    assert [index.path(row).name for row in range(3)] == ["tall.bmp", "wide.png", "small.jpg"]
    assert [index.relative_path(row) for row in range(3)] == [b"train/a/tall.bmp", b"train/b/wide.png",
                                                              b"val/a/small.jpg"]  # fmt: skip
    assert index.heights.tolist() == [400, 20, 2]
    assert index.widths.tolist() == [21, 300, 1]
    assert index.num_bytes.tolist() == [index.path(row).stat().st_size for row in range(3)]
    assert (index.num_train, len(index)) == (2, 3)
    assert index.labels.tolist() == [0, 1, 0]


def test_exif_orientation_is_not_applied(data: Path) -> None:
    """Sizes are those of the stored picture, whichever way a viewer would turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = data / "a/turned.jpg"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    index = open_data(data, val_fraction=1).index
    assert (index.heights.tolist(), index.widths.tolist()) == ([30], [40])


@pytest.mark.parametrize(("fraction", "expected"), [(0.1, 2), (0.25, 5), (0.5, 10), (0.99, 19), (1.0, 20), (0.001, 1)])
def test_val_fraction_is_a_share_of_each_class(data: Path, fraction: float, expected: int) -> None:
    """Of 20 pictures of each class the share is tested on: at least one, and never the last but for a share of 1."""
    _draw_tree(data, ["a", "b"], 20)
    index = open_data(data, val_fraction=fraction).index
    labels = index.labels[index.rows(VAL)].tolist()
    assert [labels.count(0), labels.count(1)] == [expected, expected]
    assert len(index.rows(TRAIN)) == 40 - 2 * expected


@pytest.mark.parametrize(("fraction", "num_val"), [(0.5, 0), (0.99, 0), (1.0, 1)])
def test_a_class_of_one_picture_is_trained_on(data: Path, fraction: float, num_val: int) -> None:
    """A class's only picture is tested on only where all are."""
    _draw_tree(data, ["a"], 1)
    assert len(open_data(data, val_fraction=fraction).index.rows(VAL)) == num_val


def test_val_fraction_draws_the_same_everywhere(data: Path, tmp_path: Path) -> None:
    """The draw is by a hash of the path below the root, lowest first: the same for a copy elsewhere."""
    _draw_tree(data, ["a", "b"], 20)
    split = _split_of(open_data(data, val_fraction=0.25).index)
    for name in ("a", "b"):
        paths = sorted(
            (f"{name}/{number:03}.jpg".encode() for number in range(20)),
            key=lambda path: hashlib.blake2b(path, digest_size=8).digest(),
        )
        assert {path for path, is_val in split.items() if is_val and path[:1] == name.encode()} == set(paths[:5])
    shutil.copytree(data, tmp_path / "elsewhere")
    assert _split_of(open_data(tmp_path / "elsewhere", val_fraction=0.25).index) == split


def test_new_files_of_one_class_do_not_move_others(data: Path) -> None:
    """Pictures that one class gains change no split of another class."""
    _draw_tree(data, ["a", "b"], 20)
    before = _split_of(open_data(data, val_fraction=0.25).index)
    for number in range(100, 140):
        _draw(data / f"b/{number}.jpg")
    after = _split_of(open_data(data, val_fraction=0.25).index)
    assert sum(after.values()) == 5 + 15
    assert {path: after[path] for path in before if path.startswith(b"a/")} == {
        path: is_val for path, is_val in before.items() if path.startswith(b"a/")
    }


def test_files_that_are_no_pictures_move_no_split(data: Path) -> None:
    """The share is of a class's pictures: a system file that appears beside them moves none of them."""
    _draw_tree(data, ["a", "b", "c"], 10)
    before = _split_of(open_data(data, val_fraction=0.3).index)
    for name in ("a", "b", "c"):
        for number in range(10):
            (data / name / f"Thumbs{number}.db").write_bytes(b"no picture")
    after = open_data(data, val_fraction=0.3)
    assert len(after.left_out) == 30
    assert _split_of(after.index) == before


def test_train_alone_takes_a_val_fraction(data: Path) -> None:
    """A folder with train/ but no val/ is split like a single tree."""
    _draw_tree(data / "train", ["a", "b"], 10)
    index = open_data(data, val_fraction=0.2).index
    assert (len(index.rows(TRAIN)), len(index.rows(VAL))) == (16, 4)
    assert index.classes == ("a", "b")


def test_hidden_folders_are_no_classes(data: Path) -> None:
    """Folders that begin with a dot, such as .ipynb_checkpoints, are passed over."""
    _draw_tree(data, ["a", ".ipynb_checkpoints"], 2)
    assert open_data(data, val_fraction=0.5).index.classes == ("a",)


@pytest.mark.parametrize("link", ["class", "picture"])
def test_links_are_followed(data: Path, tmp_path: Path, link: str) -> None:
    """Class folders and pictures may be symbolic links."""
    _draw(tmp_path / "store/one.jpg", size=(7, 5))
    if link == "class":
        data.mkdir()
        (data / "a").symlink_to(tmp_path / "store")
    else:
        (data / "a").mkdir(parents=True)
        (data / "a/one.jpg").symlink_to(tmp_path / "store/one.jpg")
    index = open_data(data, val_fraction=1).index
    assert [index.relative_path(0), int(index.heights[0])] == [b"a/one.jpg", 5]


# Manifests


def _manifest(data: Path, text: str) -> Path:
    """Write a manifest beside pictures one.jpg to four.jpg."""
    for number, name in enumerate(("one", "two", "three", "four")):
        _draw(data / f"pictures/{name}.jpg", size=(30 + number, 20))
    path = data / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_manifest_with_a_split(data: Path) -> None:
    """Rows name path, label and split; other columns are passed over and paths start at the manifest's folder."""
    manifest = _manifest(
        data,
        "split,path,note,label\n"
        "train,pictures/one.jpg,x,owl\n"
        "train,pictures/two.jpg,,cat\n"
        "\n"
        "val,pictures/three.jpg,,owl\n"
        'val,"pictures/four.jpg","a, b",cat\n',
    )
    index = open_data(manifest).index
    assert index.classes == ("cat", "owl")
    assert index.root == data
    assert _samples(index, TRAIN) == [(str(data / "pictures/one.jpg"), 1), (str(data / "pictures/two.jpg"), 0)]
    assert _samples(index, VAL) == [(str(data / "pictures/four.jpg"), 0), (str(data / "pictures/three.jpg"), 1)]
    assert index.widths.tolist() == [30, 31, 33, 32]


def test_manifest_without_a_split(data: Path) -> None:
    """A manifest without splits takes a share of each class."""
    manifest = _manifest(
        data, "path,label\npictures/one.jpg,a\npictures/two.jpg,a\npictures/three.jpg,b\npictures/four.jpg,b\n"
    )
    index = open_data(manifest, val_fraction=0.5).index
    assert sorted(index.labels[index.rows(VAL)].tolist()) == [0, 1]
    assert sorted(index.labels[index.rows(TRAIN)].tolist()) == [0, 1]


def test_manifest_with_some_splits(data: Path) -> None:
    """Rows that name a split keep it; only the others are drawn from."""
    rows = ["one.jpg,a,train", "two.jpg,a,val", "three.jpg,a,", "four.jpg,a,"]
    manifest = _manifest(data, "\n".join(["path,label,split", *(f"pictures/{row}" for row in rows)]))
    split = _split_of(open_data(manifest, val_fraction=0.5).index)
    assert (split[b"pictures/one.jpg"], split[b"pictures/two.jpg"]) == (False, True)
    assert {split[b"pictures/three.jpg"], split[b"pictures/four.jpg"]} == {False, True}


def test_numeric_labels_are_sorted_by_value(data: Path) -> None:
    """If all labels are whole numbers 9 comes before 10; else they are sorted as words."""
    rows = "pictures/one.jpg,10\npictures/two.jpg,9\npictures/three.jpg,100\n"
    manifest = _manifest(data, f"path,label\n{rows}")
    assert open_data(manifest, val_fraction=1).index.classes == ("9", "10", "100")
    manifest = _manifest(data, f"path,label\n{rows}pictures/four.jpg,x\n")
    assert open_data(manifest, val_fraction=1).index.classes == ("10", "100", "9", "x")


def test_manifest_paths_may_be_absolute(data: Path, tmp_path: Path) -> None:
    """An absolute path stands for itself."""
    elsewhere = _draw(tmp_path / "elsewhere/a.png", size=(3, 4))
    manifest = _manifest(data, f"path,label,split\n{elsewhere},a,val\npictures/one.jpg,a,train\n")
    index = open_data(manifest).index
    assert [index.path(row) for row in range(2)] == [data / "pictures/one.jpg", elsewhere]


def test_paths_of_many_pictures_lead_to_their_files(data: Path, tmp_path: Path) -> None:
    """They are of one length, whatever the pictures' and copies' own are; absolute ones have no root before them."""
    elsewhere = _draw(tmp_path / "e/a.png", size=(3, 4))
    manifest = _manifest(data, f"path,label\n{elsewhere},a\npictures/one.jpg,a\npictures/two.jpg,b\n")
    index = open_data(manifest, val_fraction=1).index
    zeros = np.zeros(len(index), np.int64)
    rung = Rung(64, tmp_path / "a longer place for copies", zeros, zeros, zeros, (), zeros, zeros)
    index = with_rungs(index, [rung])
    rows, rungs = np.array([2, 0, 1, 1]), np.array([BASE, BASE, 0, BASE])
    found = [os.path.normpath(bytes(path)) for path in index.files(rows, rungs)]
    assert found == [index.file(row, rung) for row, rung in zip(rows.tolist(), rungs.tolist(), strict=True)]


def test_manifest_written_by_a_spreadsheet(data: Path) -> None:
    """A byte order mark and carriage returns do no harm."""
    manifest = _manifest(data, "")
    manifest.write_bytes(b"\xef\xbb\xbfpath,label,split\r\npictures/one.jpg,\xc3\xa4,val\r\n")
    index = open_data(manifest).index
    assert index.classes == ("ä",)
    assert index.path(0) == data / "pictures/one.jpg"


def test_manifest_names_a_missing_file(data: Path) -> None:
    """A file that is not there is left out, with the system's reason."""
    manifest = _manifest(data, "path,label,split\npictures/one.jpg,a,train\npictures/none.jpg,a,val\n")
    opened = open_data(manifest)
    assert len(opened.index) == 1
    assert [(item.path, item.reason) for item in opened.left_out] == [
        (data / "pictures/none.jpg", "No such file or directory")
    ]


def test_manifest_with_an_impossible_path(data: Path) -> None:
    """A path that no file can have, with a zero byte in it, is left out like a missing file."""
    manifest = _manifest(data, "path,label,split\npictures/one.jpg,a,train\npictures/t\0wo.jpg,a,val\n")
    opened = open_data(manifest)
    assert (len(opened.index), len(opened.left_out)) == (1, 1)
    assert opened.left_out[0].reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\npictures/one.jpg,a\n", r"lacks the column\(s\) path; its first line must be path,label"),
        ("pictures/one.jpg,a\n", r"lacks the column\(s\) path, label; its first line must be path,label"),
        ("", r"lacks the column\(s\) path, label"),
        ("path,label\n", r"has no rows"),
        ("path,label,split\npictures/one.jpg,a,train\npictures/two.jpg,a,dev\n",
         r", line 3: split must be train or one of val, valid, validation, test; found 'dev'"),
        ("path,label\npictures/one.jpg,a\n,b\n", r", line 3: path and label must not be empty"),
        ("path,label\npictures/one.jpg\n", r", line 2: path and label must not be empty"),
        ('path,label\n"pictures/one.jpg,a\n', r"cannot read .*: unexpected end of data"),
    ],
)  # fmt: skip
def test_bad_manifests(data: Path, text: str, message: str) -> None:
    """A manifest that cannot be used is refused with its path, the line and the form expected."""
    manifest = _manifest(data, text)
    with pytest.raises(DataError, match=message) as caught:
        open_data(manifest, val_fraction=0.5)
    assert str(manifest) in str(caught.value)


def test_manifest_in_another_encoding(data: Path) -> None:
    """A manifest that is not UTF-8 is refused with its path."""
    manifest = _manifest(data, "")
    manifest.write_bytes(b"path,label\npictures/one.jpg,\xe4\n")
    with pytest.raises(DataError, match=r"list\.csv, line 2: is not UTF-8"):
        open_data(manifest, val_fraction=0.5)


# Files


def test_files_that_are_no_pictures_are_left_out(data: Path) -> None:
    """Text, empty files, GIFs and system files are listed with their reasons, whatever their names say."""
    _draw_tree(data, ["a"], 2)
    (data / "a/notes.jpg").write_text("this is text\n")
    (data / "a/empty.jpg").touch()
    _draw(data / "a/animation.jpg", mode="P", picture_format="GIF")
    (data / "a/Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100))
    (data / "a/cut.jpg").write_bytes((data / "a/000.jpg").read_bytes()[:20])
    opened = open_data(data, val_fraction=0.5)
    reasons = _left_out(opened)
    assert reasons == {
        "Thumbs.db": NO_PICTURE,
        "animation.jpg": NO_PICTURE,
        "empty.jpg": "empty file",
        "notes.jpg": NO_PICTURE,
        "cut.jpg": NO_PICTURE,
    }
    assert {opened.index.path(row).name for row in range(len(opened.index))} == {"000.jpg", "001.jpg"}
    assert {item.path.parent for item in opened.left_out} == {data / "a"}


def test_data_without_a_readable_picture(data: Path) -> None:
    """If nothing can be read the error names the first file and why."""
    (data / "a").mkdir(parents=True)
    (data / "a/notes.jpg").write_text("this is text\n")
    with pytest.raises(DataError, match=rf"{data} has no readable picture; {data}/a/notes\.jpg: {NO_PICTURE}"):
        open_data(data, val_fraction=0.5)


@pytest.mark.parametrize(
    ("name", "mode", "picture_format"),
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
def test_formats(data: Path, name: str, mode: str, picture_format: str) -> None:
    """Every format that DALI reads is indexed by what the file holds, not by its name."""
    _draw(data / "a" / name, size=(33, 17), mode=mode, picture_format=picture_format)
    opened = open_data(data, val_fraction=1)
    assert opened.left_out == ()
    assert (opened.index.heights.tolist(), opened.index.widths.tolist()) == ([17], [33])


def test_pictures_of_many_megapixels(data: Path) -> None:
    """A picture above PIL's warning limit of 89 megapixels is indexed without a warning."""
    path = data / "a/huge.ppm"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"P6 10000 9500 255\n" + bytes(100))
    index = open_data(data, val_fraction=1).index
    assert (index.heights.tolist(), index.widths.tolist()) == ([9500], [10000])


@pytest.mark.parametrize(
    "name", [b"with spaces .jpg", "snö 雪 🦉.jpg".encode(), b"odd \xff\xfe\x80.jpg", b"quo\"te's,;\\.jpg", b"-rf.jpg"]
)
def test_odd_file_names(data: Path, name: bytes) -> None:
    """Any file name keeps its bytes, and the cache knows it again."""
    path = os.fsencode(data) + b"/a b/" + name
    _draw(_draw(data / "a b/x.jpg", size=(5, 6)).rename(os.fsdecode(path)).with_name("y.jpg"))
    index = open_data(data, val_fraction=1).index
    rows = {index.relative_path(row): index.path(row) for row in range(2)}
    assert set(rows) == {b"a b/" + name, b"a b/y.jpg"}
    assert os.fsencode(rows[b"a b/" + name]) == path
    assert rows[b"a b/" + name].exists()
    again = open_data(data, val_fraction=1)
    assert again.num_headers_read == 0
    assert again.index.fingerprint == index.fingerprint


@pytest.mark.parametrize("name", [b"with spaces", "snö 雪".encode(), b"odd \xff\xfe\x80"])
def test_odd_class_names(data: Path, name: bytes) -> None:
    """Any folder name may be a class."""
    folder = data / os.fsdecode(name)
    _draw_tree(folder.parent, [folder.name], 2)
    index = open_data(data, val_fraction=0.5).index
    assert index.classes == (os.fsdecode(name),)
    assert index.relative_path(0).startswith(name + b"/")


# Cache


def test_second_time_reads_no_header(data: Path, own_cache: Path) -> None:
    """Sizes come from the cache as long as nothing changes, and progress counts what is read."""
    assert cache_folder() == own_cache
    _draw_tree(data, ["a", "b"], 5)
    calls: list[tuple[int, int]] = []
    first = open_data(data, val_fraction=0.2, on_progress=lambda done, total: calls.append((done, total)))
    assert first.num_headers_read == 10
    assert calls[-1] == (10, 10)
    assert len(list(own_cache.rglob("*.npz"))) == 1
    calls.clear()
    second = open_data(data, val_fraction=0.2, on_progress=lambda done, total: calls.append((done, total)))
    assert second.num_headers_read == 0
    assert calls == []
    assert second.index.fingerprint == first.index.fingerprint
    assert second.index.heights.tolist() == first.index.heights.tolist()


def test_progress_goes_up_to_all_files(data: Path) -> None:
    """Progress is told chunk by chunk, ascending, and ends with all files done."""
    _draw_tree(data, ["a"], 150)
    calls: list[tuple[int, int]] = []
    open_data(data, val_fraction=0.2, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(64, 150), (128, 150), (150, 150)]


def test_a_changed_file_alone_is_read_again(data: Path) -> None:
    """A file of another length or time is measured anew, and none but it."""
    _draw_tree(data, ["a", "b"], 5)
    open_data(data, val_fraction=0.2)
    _draw(data / "a/002.jpg", size=(77, 66))
    opened = open_data(data, val_fraction=0.2)
    assert opened.num_headers_read == 1
    sizes = {opened.index.path(row): int(opened.index.widths[row]) for row in range(10)}
    assert sizes[data / "a/002.jpg"] == 77
    os.utime(data / "b/000.jpg", ns=(1, 1))
    assert open_data(data, val_fraction=0.2).num_headers_read == 1


def test_new_and_deleted_files(data: Path) -> None:
    """A new file is read alone; a deleted one is gone from the index and forgotten."""
    _draw_tree(data, ["a"], 4)
    open_data(data, val_fraction=0.5)
    _draw(data / "a/new.jpg")
    opened = open_data(data, val_fraction=0.5)
    assert (opened.num_headers_read, len(opened.index)) == (1, 5)
    (data / "a/000.jpg").unlink()
    opened = open_data(data, val_fraction=0.5)
    assert (opened.num_headers_read, len(opened.index)) == (0, 4)


def test_cache_does_not_remember_splits(data: Path) -> None:
    """Another --val-fraction reads no header and splits anew."""
    _draw_tree(data, ["a"], 10)
    open_data(data, val_fraction=0.5)
    opened = open_data(data, val_fraction=0.2)
    assert (opened.num_headers_read, len(opened.index.rows(VAL))) == (0, 2)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "folder"])
def test_a_damaged_cache_is_ignored(data: Path, own_cache: Path, damage: str) -> None:
    """A cache that cannot be read costs only the time to read all headers again."""
    _draw_tree(data, ["a"], 3)
    fingerprint = open_data(data, val_fraction=0.5).index.fingerprint
    (file,) = own_cache.rglob("*.npz")
    content = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes({"cut": content[: len(content) // 2], "text": b"no numpy file", "empty": b""}[damage])
    opened = open_data(data, val_fraction=0.5)
    assert opened.num_headers_read == 3
    assert opened.index.fingerprint == fingerprint
    if damage != "folder":
        assert open_data(data, val_fraction=0.5).num_headers_read == 0


def test_a_cache_that_lost_a_byte_is_ignored(data: Path, own_cache: Path) -> None:
    """Whichever byte of the cache is damaged, the sizes are the files' own."""
    _draw_tree(data, ["a"], 3)
    index = open_data(data, val_fraction=0.5).index
    (file,) = own_cache.rglob("*.npz")
    content = file.read_bytes()
    for position in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        file.write_bytes(bytes(damaged))
        assert open_data(data, val_fraction=0.5).index.fingerprint == index.fingerprint, f"byte {position}"


@pytest.mark.parametrize(("field", "value"), [(8, 1), (10, 99)])
def test_a_cache_of_another_form_is_ignored(data: Path, own_cache: Path, field: int, value: int) -> None:
    """An archive that says it is encrypted, or packed in an unknown way, is damaged like any other."""
    _draw_tree(data, ["a"], 3)
    open_data(data, val_fraction=0.5)
    (file,) = own_cache.rglob("*.npz")
    damaged = bytearray(file.read_bytes())
    damaged[damaged.index(b"PK\x01\x02") + field] = value
    file.write_bytes(bytes(damaged))
    assert open_data(data, val_fraction=0.5).num_headers_read == 3


def test_an_unwritable_cache_does_no_harm(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no cache can be written, headers are read each time."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("DALI_FIXRES_CACHE", str(tmp_path / "file/cache"))
    _draw_tree(data, ["a"], 3)
    assert [open_data(data, val_fraction=0.5).num_headers_read for _ in range(2)] == [3, 3]


# Fingerprint


def test_fingerprint_is_the_contents_not_the_places(data: Path, tmp_path: Path) -> None:
    """A copy in another folder, with other times, has the same fingerprint."""
    _draw_tree(data / "train", ["a", "b"], 2)
    _draw_tree(data / "val", ["a", "b"], 1)
    fingerprint = open_data(data).index.fingerprint
    assert len(fingerprint) == 64
    shutil.copytree(data, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    os.utime(tmp_path / "elsewhere/train/a/000.jpg", ns=(1, 1))
    assert open_data(tmp_path / "elsewhere").index.fingerprint == fingerprint


@pytest.mark.parametrize("change", ["size", "length", "label", "name", "split", "new", "class"])
def test_fingerprint_tells_changes(data: Path, change: str) -> None:
    """A picture of another size, length, label, name or split, a new picture, or a class renamed changes it."""
    _draw_tree(data / "train", ["a", "b"], 2)
    _draw_tree(data / "val", ["a", "b"], 1)
    before = open_data(data).index.fingerprint
    picture = data / "train/a/001.jpg"
    if change == "size":
        length = picture.stat().st_size
        _draw(picture, size=(12, 20))
        assert picture.stat().st_size == length
    elif change == "length":
        picture.write_bytes(picture.read_bytes() + b"\0")
    elif change == "label":
        picture.rename(data / "train/b/002.jpg")
    elif change == "name":
        picture.rename(picture.with_name("002.jpg"))
    elif change == "split":
        picture.rename(data / "val/a/001.jpg")
    elif change == "new":
        _draw(data / "train/a/new.jpg")
    else:
        for split in ("train", "val"):
            (data / split / "b").rename(data / split / "c")
    assert open_data(data).index.fingerprint != before


def test_fingerprint_of_relabelled_manifests_differs(data: Path) -> None:
    """The same files under other labels or splits are another data set."""
    texts = [
        "path,label,split\npictures/one.jpg,a,train\npictures/two.jpg,a,val\n",
        "path,label,split\npictures/one.jpg,b,train\npictures/two.jpg,b,val\n",
        "path,label,split\npictures/one.jpg,a,val\npictures/two.jpg,a,train\n",
        # These two differ in nothing but which picture is an a and which is a b.
        "path,label,split\npictures/one.jpg,a,train\npictures/two.jpg,b,train\npictures/three.jpg,a,val\n",
        "path,label,split\npictures/one.jpg,b,train\npictures/two.jpg,a,train\npictures/three.jpg,a,val\n",
    ]
    assert len({open_data(_manifest(data, text)).index.fingerprint for text in texts}) == 5


# Errors


def _error(data: Path, val_fraction: float | None = None) -> str:
    """Return the text of the DataError that opening gives."""
    with pytest.raises(DataError) as caught:
        open_data(data, val_fraction=val_fraction)
    assert type(caught.value) is DataError
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_such_folder(data: Path) -> None:
    """A folder that is not there is named, with what --data takes."""
    assert _error(data) == (
        f"no such folder or manifest: {data}; give a folder of pictures, a .csv, .jsonl, .tar or .parquet"
    )


def test_a_file_that_is_no_manifest(data: Path) -> None:
    """A single picture is no data set."""
    picture = _draw(data / "a.jpg")
    message = _error(picture)
    assert message.startswith(f"{picture} is of no known form; what can be read is a folder with train/ and val/")
    assert all(form in message for form in (".csv", ".jsonl", "metadata.csv", ".tar", ".parquet"))


def test_a_folder_without_classes(data: Path) -> None:
    """A folder of loose pictures is refused with the form expected."""
    _draw(data / "a.jpg")
    assert _error(data, 0.5).startswith(
        f"{data} has no class folders; expected {data}/<class>/*.jpg; what can be read is a folder with train/ and val/"
    )


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_classes(data: Path, split: str) -> None:
    """A train or val folder without class folders is named."""
    _draw_tree(data / "train", ["a"] if split == "val" else [], 1)
    _draw_tree(data / "val", ["a"] if split == "train" else [], 1)
    (data / split).mkdir(exist_ok=True)
    assert _error(data).startswith(f"{data / split} has no class folders; expected {data / split}/<class>/*.jpg")


def test_val_with_classes_that_train_lacks(data: Path) -> None:
    """Unknown classes of val are named, with the nearest that train has."""
    _draw_tree(data / "train", ["owl", "cat"], 1)
    _draw_tree(data / "val", ["owls", "cat", "dog"], 1)
    assert _error(data) == (
        f"{data}/val has 2 class folder(s) that {data}/train lacks: dog, owls; both must name the same classes"
    )
    shutil.rmtree(data / "val/dog")
    assert _error(data) == (
        f"{data}/val has 1 class folder(s) that {data}/train lacks: owls; did you mean 'owl'?; "
        "both must name the same classes"
    )


def test_an_empty_class_folder(data: Path) -> None:
    """An empty class folder is named, with the ways out."""
    _draw_tree(data, ["a"], 1)
    (data / "b/below").mkdir(parents=True)
    assert _error(data, 0.5) == f"class folder {data}/b is empty; put pictures into it or remove it"


def test_no_split_and_no_val_fraction(data: Path) -> None:
    """A single tree without --val-fraction is refused with both ways out."""
    _draw_tree(data, ["a"], 2)
    assert _error(data) == (
        f"{data} does not say which pictures to test on; expected {data}/train/<class>/*.jpg and "
        f"{data}/val/<class>/*.jpg, or give --val-fraction 0.1"
    )


def test_manifest_without_split_and_no_val_fraction(data: Path) -> None:
    """A manifest without splits and without --val-fraction is refused with both ways out."""
    manifest = _manifest(data, "path,label\npictures/one.jpg,a\n")
    assert _error(manifest) == (
        f"{manifest} does not say which pictures to test on; expected a split column, or give --val-fraction 0.1"
    )


def test_split_and_val_fraction(data: Path) -> None:
    """A data set with its own split takes no --val-fraction."""
    _draw_tree(data / "train", ["a"], 1)
    _draw_tree(data / "val", ["a"], 1)
    assert _error(data, 0.1) == f"{data} has its own split; leave --val-fraction out"


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_val_fraction_out_of_range(data: Path, fraction: float) -> None:
    """A --val-fraction that is no share is refused with the rule and the value."""
    _draw_tree(data, ["a"], 1)
    assert _error(data, fraction) == f"--val-fraction must be above 0 and at most 1; found {fraction}"


def test_a_manifest_tests_only_on_labels_it_trains_on(data: Path) -> None:
    """A label that only test rows have is named, with the nearest that is trained on."""
    manifest = _manifest(data, "path,label,split\npictures/one.jpg,apple,train\npictures/two.jpg,appel,val\n")
    message = _error(manifest)
    assert "appel" in message
    assert "did you mean 'apple'" in message


def test_test_pictures_alone_are_tested_on(data: Path) -> None:
    """A folder that has val/ and no train/ is all test pictures, of the classes below val/."""
    _draw_tree(data / "val", ["bus", "car"], 2)
    index = open_data(data).index
    assert index.classes == ("bus", "car")
    assert (index.num_train, len(index)) == (0, 4)


def test_the_last_readable_picture_is_trained_on(data: Path) -> None:
    """The share to test on is drawn from what can be read, and never takes the last picture of a class."""
    _draw(data / "bus" / "one.jpg")
    (data / "bus" / "two.jpg").write_text("no picture")
    opened = open_data(data, val_fraction=0.5)
    assert [item.path.name for item in opened.left_out] == ["two.jpg"]
    assert opened.index.num_train == 1
