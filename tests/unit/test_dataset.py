import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from dali_fixres.errors import DataError
from pipelines.dataset import ORIGINAL, TRAIN, VAL, Dataset, ResizedCopies, open_dataset
from pipelines.dataset.table import with_copies
from pipelines.storage.cache_folder import cache_folder

NO_IMAGE = "not a JPEG, PNG, BMP, TIFF, WebP, PNM or JPEG 2000 image"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder for images that does not exist yet."""
    return tmp_path / "data"


def _draw(path: Path, size: tuple[int, int] = (12, 8), mode: str = "RGB", image_format: str | None = None) -> Path:
    """Write an image of width by height pixels, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, format=image_format)
    return path


def _draw_tree(root: Path, classes: Iterable[str], count: int) -> None:
    """Write `count` images into each class folder below `root`."""
    for name in classes:
        for number in range(count):
            _draw(root / name / f"{number:03}.jpg", size=(10 + number, 20))


def _samples(dataset: Dataset, split: str) -> list[tuple[str, int]]:
    """Return path and label of each sample of a split, in index order."""
    return [(str(dataset.path(int(row))), int(dataset.labels[row])) for row in dataset.rows(split)]


def _split_of(dataset: Dataset) -> dict[bytes, bool]:
    """Return whether each path is tested on."""
    return {dataset.relative_path(row): row >= dataset.num_train for row in range(len(dataset))}


Progress = Callable[[int, int], None]


def counted(
    data: Path, val_fraction: float | None = None, on_progress: Progress = lambda done, total: None
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


def _left_out(opened: Dataset) -> dict[str, str]:
    return {item.path.name: item.reason for item in opened.left_out}


# Forms of a data set


@pytest.mark.parametrize("val_name", ["val", "valid", "validation", "test"])
def test_train_and_val_are_torchvisions_image_folders(data: Path, val_name: str) -> None:
    """Each split has the images, the labels and the order of torchvision's ImageFolder, at any depth."""
    _draw_tree(data / "train", ["owl", "Ant", "cat", "10", "9"], 3)
    _draw(data / "train/cat/indoors/a.jpg")
    _draw(data / "train/cat/indoors/deep/b.jpg")
    _draw_tree(data / val_name, ["owl", "Ant", "cat", "10", "9"], 2)
    dataset = open_dataset(data)
    for split, folder in ((TRAIN, data / "train"), (VAL, data / val_name)):
        reference = ImageFolder(folder)
        assert dataset.classes == tuple(reference.classes) == ("10", "9", "Ant", "cat", "owl")
        assert _samples(dataset, split) == reference.samples
    assert len(dataset) == 17 + 10
    assert dataset.root == data


def test_classes_that_begin_alike_keep_imagefolders_labels(data: Path) -> None:
    """Where one class's name begins another's, paths and labels are still ImageFolder's."""
    _draw_tree(data, ["a", "a-b", "a b", "ab"], 2)
    dataset = open_dataset(data, val_fraction=1)
    reference = ImageFolder(data)
    assert dataset.classes == tuple(reference.classes)
    assert sorted(_samples(dataset, VAL)) == sorted(reference.samples)


def test_val_may_lack_classes(data: Path) -> None:
    """Labels come from train, even where val shows only some of its classes."""
    _draw_tree(data / "train", ["a", "b", "c"], 1)
    _draw_tree(data / "val", ["c"], 1)
    dataset = open_dataset(data)
    assert dataset.classes == ("a", "b", "c")
    assert _samples(dataset, VAL) == [(str(data / "val/c/000.jpg"), 2)]


def test_sizes_are_the_files(data: Path) -> None:
    """Height, width and file length of each row are those of its file, rows are sorted by split and path."""
    _draw(data / "train/b/wide.png", size=(300, 20))
    _draw(data / "train/a/tall.bmp", size=(21, 400))
    _draw(data / "val/a/small.jpg", size=(1, 2))
    dataset = open_dataset(data)
    assert [dataset.path(row).name for row in range(3)] == ["tall.bmp", "wide.png", "small.jpg"]
    assert [dataset.relative_path(row) for row in range(3)] == [b"train/a/tall.bmp", b"train/b/wide.png",
                                                              b"val/a/small.jpg"]  # fmt: skip
    assert dataset.heights.tolist() == [400, 20, 2]
    assert dataset.widths.tolist() == [21, 300, 1]
    assert dataset.num_bytes.tolist() == [dataset.path(row).stat().st_size for row in range(3)]
    assert (dataset.num_train, len(dataset)) == (2, 3)
    assert dataset.labels.tolist() == [0, 1, 0]


def test_exif_orientation_is_not_applied(data: Path) -> None:
    """Sizes are those of the stored image, whichever way a viewer would turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = data / "a/turned.jpg"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    dataset = open_dataset(data, val_fraction=1)
    assert (dataset.heights.tolist(), dataset.widths.tolist()) == ([30], [40])


@pytest.mark.parametrize(("fraction", "expected"), [(0.1, 2), (0.25, 5), (0.5, 10), (0.99, 19), (1.0, 20), (0.001, 1)])
def test_val_fraction_is_a_share_of_each_class(data: Path, fraction: float, expected: int) -> None:
    """Of 20 images of each class the share is tested on: at least one, and never the last but for a share of 1."""
    _draw_tree(data, ["a", "b"], 20)
    dataset = open_dataset(data, val_fraction=fraction)
    labels = dataset.labels[dataset.rows(VAL)].tolist()
    assert [labels.count(0), labels.count(1)] == [expected, expected]
    assert len(dataset.rows(TRAIN)) == 40 - 2 * expected


@pytest.mark.parametrize(("fraction", "num_val"), [(0.5, 0), (0.99, 0), (1.0, 1)])
def test_a_class_of_one_image_is_trained_on(data: Path, fraction: float, num_val: int) -> None:
    """A class's only image is tested on only where all are."""
    _draw_tree(data, ["a"], 1)
    assert len(open_dataset(data, val_fraction=fraction).rows(VAL)) == num_val


def test_val_fraction_draws_the_same_everywhere(data: Path, tmp_path: Path) -> None:
    """The draw is by a hash of the path below the root, lowest first: the same for a copy elsewhere."""
    _draw_tree(data, ["a", "b"], 20)
    split = _split_of(open_dataset(data, val_fraction=0.25))
    for name in ("a", "b"):
        paths = sorted(
            (f"{name}/{number:03}.jpg".encode() for number in range(20)),
            key=lambda path: hashlib.blake2b(path, digest_size=8).digest(),
        )
        assert {path for path, is_val in split.items() if is_val and path[:1] == name.encode()} == set(paths[:5])
    shutil.copytree(data, tmp_path / "elsewhere")
    assert _split_of(open_dataset(tmp_path / "elsewhere", val_fraction=0.25)) == split


def test_new_files_of_one_class_do_not_move_others(data: Path) -> None:
    """Images that one class gains change no split of another class."""
    _draw_tree(data, ["a", "b"], 20)
    before = _split_of(open_dataset(data, val_fraction=0.25))
    for number in range(100, 140):
        _draw(data / f"b/{number}.jpg")
    after = _split_of(open_dataset(data, val_fraction=0.25))
    assert sum(after.values()) == 5 + 15
    assert {path: after[path] for path in before if path.startswith(b"a/")} == {
        path: is_val for path, is_val in before.items() if path.startswith(b"a/")
    }


def test_files_that_are_no_images_move_no_split(data: Path) -> None:
    """The share is of a class's images: a system file that appears beside them moves none of them."""
    _draw_tree(data, ["a", "b", "c"], 10)
    before = _split_of(open_dataset(data, val_fraction=0.3))
    for name in ("a", "b", "c"):
        for number in range(10):
            (data / name / f"Thumbs{number}.db").write_bytes(b"no image")
    after = open_dataset(data, val_fraction=0.3)
    assert len(after.left_out) == 30
    assert _split_of(after) == before


def test_train_alone_takes_a_val_fraction(data: Path) -> None:
    """A folder with train/ but no val/ is split like a single tree."""
    _draw_tree(data / "train", ["a", "b"], 10)
    dataset = open_dataset(data, val_fraction=0.2)
    assert (len(dataset.rows(TRAIN)), len(dataset.rows(VAL))) == (16, 4)
    assert dataset.classes == ("a", "b")


def test_hidden_folders_are_no_classes(data: Path) -> None:
    """Folders that begin with a dot, such as .ipynb_checkpoints, are passed over."""
    _draw_tree(data, ["a", ".ipynb_checkpoints"], 2)
    assert open_dataset(data, val_fraction=0.5).classes == ("a",)


@pytest.mark.parametrize("link", ["class", "image"])
def test_links_are_followed(data: Path, tmp_path: Path, link: str) -> None:
    """Class folders and images may be symbolic links."""
    _draw(tmp_path / "store/one.jpg", size=(7, 5))
    if link == "class":
        data.mkdir()
        (data / "a").symlink_to(tmp_path / "store")
    else:
        (data / "a").mkdir(parents=True)
        (data / "a/one.jpg").symlink_to(tmp_path / "store/one.jpg")
    dataset = open_dataset(data, val_fraction=1)
    assert [dataset.relative_path(0), int(dataset.heights[0])] == [b"a/one.jpg", 5]


# Manifests


def _manifest(data: Path, text: str) -> Path:
    """Write a manifest beside images one.jpg to four.jpg."""
    for number, name in enumerate(("one", "two", "three", "four")):
        _draw(data / f"images/{name}.jpg", size=(30 + number, 20))
    path = data / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_manifest_with_a_split(data: Path) -> None:
    """Rows name path, label and split; other columns are passed over and paths start at the manifest's folder."""
    manifest = _manifest(
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
    assert _samples(dataset, TRAIN) == [(str(data / "images/one.jpg"), 1), (str(data / "images/two.jpg"), 0)]
    assert _samples(dataset, VAL) == [(str(data / "images/four.jpg"), 0), (str(data / "images/three.jpg"), 1)]
    assert dataset.widths.tolist() == [30, 31, 33, 32]


def test_manifest_without_a_split(data: Path) -> None:
    """A manifest without splits takes a share of each class."""
    manifest = _manifest(
        data, "path,label\nimages/one.jpg,a\nimages/two.jpg,a\nimages/three.jpg,b\nimages/four.jpg,b\n"
    )
    dataset = open_dataset(manifest, val_fraction=0.5)
    assert sorted(dataset.labels[dataset.rows(VAL)].tolist()) == [0, 1]
    assert sorted(dataset.labels[dataset.rows(TRAIN)].tolist()) == [0, 1]


def test_manifest_with_some_splits(data: Path) -> None:
    """Rows that name a split keep it; only the others are drawn from."""
    rows = ["one.jpg,a,train", "two.jpg,a,val", "three.jpg,a,", "four.jpg,a,"]
    manifest = _manifest(data, "\n".join(["path,label,split", *(f"images/{row}" for row in rows)]))
    split = _split_of(open_dataset(manifest, val_fraction=0.5))
    assert (split[b"images/one.jpg"], split[b"images/two.jpg"]) == (False, True)
    assert {split[b"images/three.jpg"], split[b"images/four.jpg"]} == {False, True}


def test_numeric_labels_are_sorted_by_value(data: Path) -> None:
    """If all labels are whole numbers 9 comes before 10; else they are sorted as words."""
    rows = "images/one.jpg,10\nimages/two.jpg,9\nimages/three.jpg,100\n"
    manifest = _manifest(data, f"path,label\n{rows}")
    assert open_dataset(manifest, val_fraction=1).classes == ("9", "10", "100")
    manifest = _manifest(data, f"path,label\n{rows}images/four.jpg,x\n")
    assert open_dataset(manifest, val_fraction=1).classes == ("10", "100", "9", "x")


def test_manifest_paths_may_be_absolute(data: Path, tmp_path: Path) -> None:
    """An absolute path stands for itself."""
    elsewhere = _draw(tmp_path / "elsewhere/a.png", size=(3, 4))
    manifest = _manifest(data, f"path,label,split\n{elsewhere},a,val\nimages/one.jpg,a,train\n")
    dataset = open_dataset(manifest)
    assert [dataset.path(row) for row in range(2)] == [data / "images/one.jpg", elsewhere]


def test_paths_of_many_images_lead_to_their_files(data: Path, tmp_path: Path) -> None:
    """They are of one length, whatever the images' and copies' own are; absolute ones have no root before them."""
    elsewhere = _draw(tmp_path / "e/a.png", size=(3, 4))
    manifest = _manifest(data, f"path,label\n{elsewhere},a\nimages/one.jpg,a\nimages/two.jpg,b\n")
    dataset = open_dataset(manifest, val_fraction=1)
    zeros = np.zeros(len(dataset), np.int64)
    copy = ResizedCopies(64, tmp_path / "a longer place for copies", zeros, zeros, zeros, (), zeros, zeros)
    dataset = with_copies(dataset, [copy])
    rows, copy_ids = np.array([2, 0, 1, 1]), np.array([ORIGINAL, ORIGINAL, 0, ORIGINAL])
    found = [os.path.normpath(bytes(path)) for path in dataset.files(rows, copy_ids)]
    assert found == [dataset.file(row, copy) for row, copy in zip(rows.tolist(), copy_ids.tolist(), strict=True)]


def test_manifest_written_by_a_spreadsheet(data: Path) -> None:
    """A byte order mark and carriage returns do no harm."""
    manifest = _manifest(data, "")
    manifest.write_bytes(b"\xef\xbb\xbfpath,label,split\r\nimages/one.jpg,\xc3\xa4,val\r\n")
    dataset = open_dataset(manifest)
    assert dataset.classes == ("ä",)
    assert dataset.path(0) == data / "images/one.jpg"


def test_manifest_names_a_missing_file(data: Path) -> None:
    """A file that is not there is left out, with the system's reason."""
    manifest = _manifest(data, "path,label,split\nimages/one.jpg,a,train\nimages/none.jpg,a,val\n")
    opened = open_dataset(manifest)
    assert len(opened) == 1
    assert [(item.path, item.reason) for item in opened.left_out] == [
        (data / "images/none.jpg", "No such file or directory")
    ]


def test_manifest_with_an_impossible_path(data: Path) -> None:
    """A path that no file can have, with a zero byte in it, is left out like a missing file."""
    manifest = _manifest(data, "path,label,split\nimages/one.jpg,a,train\nimages/t\0wo.jpg,a,val\n")
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
    """A manifest that cannot be used is refused with its path, the line and the form expected."""
    manifest = _manifest(data, text)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(manifest, val_fraction=0.5)
    assert str(manifest) in str(caught.value)


def test_manifest_in_another_encoding(data: Path) -> None:
    """A manifest that is not UTF-8 is refused with its path."""
    manifest = _manifest(data, "")
    manifest.write_bytes(b"path,label\nimages/one.jpg,\xe4\n")
    with pytest.raises(DataError, match=r"list\.csv, line 2: is not UTF-8"):
        open_dataset(manifest, val_fraction=0.5)


# Files


def test_files_that_are_no_images_are_left_out(data: Path) -> None:
    """Text, empty files, GIFs and system files are listed with their reasons, whatever their names say."""
    _draw_tree(data, ["a"], 2)
    (data / "a/notes.jpg").write_text("this is text\n")
    (data / "a/empty.jpg").touch()
    _draw(data / "a/animation.jpg", mode="P", image_format="GIF")
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
    """Every format that DALI reads is indexed by what the file holds, not by its name."""
    _draw(data / "a" / name, size=(33, 17), mode=mode, image_format=image_format)
    opened = open_dataset(data, val_fraction=1)
    assert opened.left_out == ()
    assert (opened.heights.tolist(), opened.widths.tolist()) == ([17], [33])


def test_images_of_many_megapixels(data: Path) -> None:
    """An image above PIL's warning limit of 89 megapixels is indexed without a warning."""
    path = data / "a/huge.ppm"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"P6 10000 9500 255\n" + bytes(100))
    dataset = open_dataset(data, val_fraction=1)
    assert (dataset.heights.tolist(), dataset.widths.tolist()) == ([9500], [10000])


@pytest.mark.parametrize(
    "name", [b"with spaces .jpg", "snö 雪 🦉.jpg".encode(), b"odd \xff\xfe\x80.jpg", b"quo\"te's,;\\.jpg", b"-rf.jpg"]
)
def test_odd_file_names(data: Path, name: bytes) -> None:
    """Any file name keeps its bytes, and the cache knows it again."""
    path = os.fsencode(data) + b"/a b/" + name
    _draw(_draw(data / "a b/x.jpg", size=(5, 6)).rename(os.fsdecode(path)).with_name("y.jpg"))
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
    _draw_tree(folder.parent, [folder.name], 2)
    dataset = open_dataset(data, val_fraction=0.5)
    assert dataset.classes == (os.fsdecode(name),)
    assert dataset.relative_path(0).startswith(name + b"/")


# Cache


def test_second_time_reads_no_header(data: Path, own_cache: Path) -> None:
    """Sizes come from the cache as long as nothing changes, and progress counts what is read."""
    assert cache_folder() == own_cache
    _draw_tree(data, ["a", "b"], 5)
    calls: list[tuple[int, int]] = []
    first, num_read_first = counted(data, val_fraction=0.2, on_progress=lambda done, total: calls.append((done, total)))
    assert num_read_first == 10
    assert calls[-1] == (10, 10)
    assert len(list(own_cache.rglob("*.npz"))) == 1
    calls.clear()
    second, num_read_second = counted(
        data, val_fraction=0.2, on_progress=lambda done, total: calls.append((done, total))
    )
    assert num_read_second == 0
    assert calls == []
    assert second.fingerprint == first.fingerprint
    assert second.heights.tolist() == first.heights.tolist()


def test_progress_goes_up_to_all_files(data: Path) -> None:
    """Progress is told chunk by chunk, ascending, and ends with all files done."""
    _draw_tree(data, ["a"], 150)
    calls: list[tuple[int, int]] = []
    open_dataset(data, val_fraction=0.2, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(64, 150), (128, 150), (150, 150)]


def test_a_changed_file_alone_is_read_again(data: Path) -> None:
    """A file of another length or time is measured anew, and none but it."""
    _draw_tree(data, ["a", "b"], 5)
    open_dataset(data, val_fraction=0.2)
    _draw(data / "a/002.jpg", size=(77, 66))
    opened, num_read_opened = counted(data, val_fraction=0.2)
    assert num_read_opened == 1
    sizes = {opened.path(row): int(opened.widths[row]) for row in range(10)}
    assert sizes[data / "a/002.jpg"] == 77
    os.utime(data / "b/000.jpg", ns=(1, 1))
    assert num_headers_read(data, val_fraction=0.2) == 1


def test_new_and_deleted_files(data: Path) -> None:
    """A new file is read alone; a deleted one is gone from the index and forgotten."""
    _draw_tree(data, ["a"], 4)
    open_dataset(data, val_fraction=0.5)
    _draw(data / "a/new.jpg")
    opened, num_read_opened = counted(data, val_fraction=0.5)
    assert (num_read_opened, len(opened)) == (1, 5)
    (data / "a/000.jpg").unlink()
    opened, num_read_opened = counted(data, val_fraction=0.5)
    assert (num_read_opened, len(opened)) == (0, 4)


def test_cache_does_not_remember_splits(data: Path) -> None:
    """Another --val-fraction reads no header and splits anew."""
    _draw_tree(data, ["a"], 10)
    open_dataset(data, val_fraction=0.5)
    opened, num_read_opened = counted(data, val_fraction=0.2)
    assert (num_read_opened, len(opened.rows(VAL))) == (0, 2)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "folder"])
def test_a_damaged_cache_is_ignored(data: Path, own_cache: Path, damage: str) -> None:
    """A cache that cannot be read costs only the time to read all headers again."""
    _draw_tree(data, ["a"], 3)
    fingerprint = open_dataset(data, val_fraction=0.5).fingerprint
    (file,) = own_cache.rglob("*.npz")
    content = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes({"cut": content[: len(content) // 2], "text": b"no numpy file", "empty": b""}[damage])
    opened, num_read_opened = counted(data, val_fraction=0.5)
    assert num_read_opened == 3
    assert opened.fingerprint == fingerprint
    if damage != "folder":
        assert num_headers_read(data, val_fraction=0.5) == 0


def test_a_cache_that_lost_a_byte_is_ignored(data: Path, own_cache: Path) -> None:
    """Whichever byte of the cache is damaged, the sizes are the files' own."""
    _draw_tree(data, ["a"], 3)
    dataset = open_dataset(data, val_fraction=0.5)
    (file,) = own_cache.rglob("*.npz")
    content = file.read_bytes()
    for position in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        file.write_bytes(bytes(damaged))
        assert open_dataset(data, val_fraction=0.5).fingerprint == dataset.fingerprint, f"byte {position}"


@pytest.mark.parametrize(("field", "value"), [(8, 1), (10, 99)])
def test_a_cache_of_another_form_is_ignored(data: Path, own_cache: Path, field: int, value: int) -> None:
    """An archive that says it is encrypted, or packed in an unknown way, is damaged like any other."""
    _draw_tree(data, ["a"], 3)
    open_dataset(data, val_fraction=0.5)
    (file,) = own_cache.rglob("*.npz")
    damaged = bytearray(file.read_bytes())
    damaged[damaged.index(b"PK\x01\x02") + field] = value
    file.write_bytes(bytes(damaged))
    assert num_headers_read(data, val_fraction=0.5) == 3


def test_an_unwritable_cache_does_no_harm(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no cache can be written, headers are read each time."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("DALI_FIXRES_CACHE", str(tmp_path / "file/cache"))
    _draw_tree(data, ["a"], 3)
    assert [num_headers_read(data, val_fraction=0.5) for _ in range(2)] == [3, 3]


# Fingerprint


def test_fingerprint_is_the_contents_not_the_places(data: Path, tmp_path: Path) -> None:
    """A copy in another folder, with other times, has the same fingerprint."""
    _draw_tree(data / "train", ["a", "b"], 2)
    _draw_tree(data / "val", ["a", "b"], 1)
    fingerprint = open_dataset(data).fingerprint
    assert len(fingerprint) == 64
    shutil.copytree(data, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    os.utime(tmp_path / "elsewhere/train/a/000.jpg", ns=(1, 1))
    assert open_dataset(tmp_path / "elsewhere").fingerprint == fingerprint


@pytest.mark.parametrize("change", ["size", "length", "label", "name", "split", "new", "class"])
def test_fingerprint_tells_changes(data: Path, change: str) -> None:
    """An image of another size, length, label, name or split, a new image, or a class renamed changes it."""
    _draw_tree(data / "train", ["a", "b"], 2)
    _draw_tree(data / "val", ["a", "b"], 1)
    before = open_dataset(data).fingerprint
    image = data / "train/a/001.jpg"
    if change == "size":
        length = image.stat().st_size
        _draw(image, size=(12, 20))
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
        _draw(data / "train/a/new.jpg")
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
    assert len({open_dataset(_manifest(data, text)).fingerprint for text in texts}) == 5


# Errors


def _error(data: Path, val_fraction: float | None = None) -> str:
    """Return the text of the DataError that opening gives."""
    with pytest.raises(DataError) as caught:
        open_dataset(data, val_fraction=val_fraction)
    assert type(caught.value) is DataError
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_such_folder(data: Path) -> None:
    """A folder that is not there is named, with what --data takes."""
    assert _error(data) == (
        f"no such folder or manifest: {data}; give a folder of images, a .csv, .jsonl, .tar or .parquet"
    )


def test_a_file_that_is_no_manifest(data: Path) -> None:
    """A single image is no data set."""
    image = _draw(data / "a.jpg")
    message = _error(image)
    assert message.startswith(f"{image} is of no known form; what can be read is a folder with train/ and val/")
    assert all(form in message for form in (".csv", ".jsonl", "metadata.csv", ".tar", ".parquet"))


def test_a_folder_without_classes(data: Path) -> None:
    """A folder of loose images is refused with the form expected."""
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
    assert _error(data, 0.5) == f"class folder {data}/b is empty; put images into it or remove it"


def test_no_split_and_no_val_fraction(data: Path) -> None:
    """A single tree without --val-fraction is refused with both ways out."""
    _draw_tree(data, ["a"], 2)
    assert _error(data) == (
        f"{data} does not say which images to test on; expected {data}/train/<class>/*.jpg and "
        f"{data}/val/<class>/*.jpg, or give --val-fraction 0.1"
    )


def test_manifest_without_split_and_no_val_fraction(data: Path) -> None:
    """A manifest without splits and without --val-fraction is refused with both ways out."""
    manifest = _manifest(data, "path,label\nimages/one.jpg,a\n")
    assert _error(manifest) == (
        f"{manifest} does not say which images to test on; expected a split column, or give --val-fraction 0.1"
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
    manifest = _manifest(data, "path,label,split\nimages/one.jpg,apple,train\nimages/two.jpg,appel,val\n")
    message = _error(manifest)
    assert "appel" in message
    assert "did you mean 'apple'" in message


def test_test_images_alone_are_tested_on(data: Path) -> None:
    """A folder that has val/ and no train/ is all test images, of the classes below val/."""
    _draw_tree(data / "val", ["bus", "car"], 2)
    dataset = open_dataset(data)
    assert dataset.classes == ("bus", "car")
    assert (dataset.num_train, len(dataset)) == (0, 4)


def test_the_last_readable_image_is_trained_on(data: Path) -> None:
    """The share to test on is drawn from what can be read, and never takes the last image of a class."""
    _draw(data / "bus" / "one.jpg")
    (data / "bus" / "two.jpg").write_text("no image")
    opened = open_dataset(data, val_fraction=0.5)
    assert [item.path.name for item in opened.left_out] == ["two.jpg"]
    assert opened.num_train == 1
