"""Class folders, and the split that is drawn where they have none."""

import hashlib
import shutil
from pathlib import Path

import pytest
from image_files import draw, draw_tree, error_of, samples, split_of
from PIL import Image
from torchvision.datasets import ImageFolder

from pipelines.dataset import TRAIN, VAL, open_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder for images that does not exist yet."""
    return tmp_path / "data"


@pytest.mark.parametrize("val_name", ["val", "valid", "validation", "test"])
def test_train_and_val_are_torchvisions_image_folders(data: Path, val_name: str) -> None:
    """Each split has the images, the labels and the order of torchvision's ImageFolder, at any depth."""
    draw_tree(data / "train", ["owl", "Ant", "cat", "10", "9"], 3)
    draw(data / "train/cat/indoors/a.jpg")
    draw(data / "train/cat/indoors/deep/b.jpg")
    draw_tree(data / val_name, ["owl", "Ant", "cat", "10", "9"], 2)
    dataset = open_dataset(data)
    for split, folder in ((TRAIN, data / "train"), (VAL, data / val_name)):
        reference = ImageFolder(folder)
        assert dataset.classes == tuple(reference.classes) == ("10", "9", "Ant", "cat", "owl")
        assert samples(dataset, split) == reference.samples
    assert len(dataset) == 17 + 10
    assert dataset.root == data


def test_classes_that_begin_alike_keep_imagefolders_labels(data: Path) -> None:
    """Where one class's name begins another's, paths and labels are still ImageFolder's."""
    draw_tree(data, ["a", "a-b", "a b", "ab"], 2)
    dataset = open_dataset(data, val_fraction=1)
    reference = ImageFolder(data)
    assert dataset.classes == tuple(reference.classes)
    assert sorted(samples(dataset, VAL)) == sorted(reference.samples)


def test_val_may_lack_classes(data: Path) -> None:
    """Labels come from train, even where val shows only some of its classes."""
    draw_tree(data / "train", ["a", "b", "c"], 1)
    draw_tree(data / "val", ["c"], 1)
    dataset = open_dataset(data)
    assert dataset.classes == ("a", "b", "c")
    assert samples(dataset, VAL) == [(str(data / "val/c/000.jpg"), 2)]


def test_sizes_are_the_files(data: Path) -> None:
    """Height, width and file length of each row are those of its file, rows are sorted by split and path."""
    draw(data / "train/b/wide.png", size=(300, 20))
    draw(data / "train/a/tall.bmp", size=(21, 400))
    draw(data / "val/a/small.jpg", size=(1, 2))
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
    draw_tree(data, ["a", "b"], 20)
    dataset = open_dataset(data, val_fraction=fraction)
    labels = dataset.labels[dataset.rows(VAL)].tolist()
    assert [labels.count(0), labels.count(1)] == [expected, expected]
    assert len(dataset.rows(TRAIN)) == 40 - 2 * expected


@pytest.mark.parametrize(("fraction", "num_val"), [(0.5, 0), (0.99, 0), (1.0, 1)])
def test_a_class_of_one_image_is_trained_on(data: Path, fraction: float, num_val: int) -> None:
    """A class's only image is tested on only where all are."""
    draw_tree(data, ["a"], 1)
    assert len(open_dataset(data, val_fraction=fraction).rows(VAL)) == num_val


def test_val_fraction_draws_the_same_everywhere(data: Path, tmp_path: Path) -> None:
    """The draw is by a hash of the path below the root, lowest first: the same for a copy elsewhere."""
    draw_tree(data, ["a", "b"], 20)
    split = split_of(open_dataset(data, val_fraction=0.25))
    for name in ("a", "b"):
        paths = sorted(
            (f"{name}/{number:03}.jpg".encode() for number in range(20)),
            key=lambda path: hashlib.blake2b(path, digest_size=8).digest(),
        )
        assert {path for path, is_val in split.items() if is_val and path[:1] == name.encode()} == set(paths[:5])
    shutil.copytree(data, tmp_path / "elsewhere")
    assert split_of(open_dataset(tmp_path / "elsewhere", val_fraction=0.25)) == split


def test_new_files_of_one_class_do_not_move_others(data: Path) -> None:
    """Images that one class gains change no split of another class."""
    draw_tree(data, ["a", "b"], 20)
    before = split_of(open_dataset(data, val_fraction=0.25))
    for number in range(100, 140):
        draw(data / f"b/{number}.jpg")
    after = split_of(open_dataset(data, val_fraction=0.25))
    assert sum(after.values()) == 5 + 15
    assert {path: after[path] for path in before if path.startswith(b"a/")} == {
        path: is_val for path, is_val in before.items() if path.startswith(b"a/")
    }


def test_files_that_are_no_images_move_no_split(data: Path) -> None:
    """The share is of a class's images: a system file that appears beside them moves none of them."""
    draw_tree(data, ["a", "b", "c"], 10)
    before = split_of(open_dataset(data, val_fraction=0.3))
    for name in ("a", "b", "c"):
        for number in range(10):
            (data / name / f"Thumbs{number}.db").write_bytes(b"no image")
    after = open_dataset(data, val_fraction=0.3)
    assert len(after.left_out) == 30
    assert split_of(after) == before


def test_train_alone_takes_a_val_fraction(data: Path) -> None:
    """A folder with train/ but no val/ is split like a single tree."""
    draw_tree(data / "train", ["a", "b"], 10)
    dataset = open_dataset(data, val_fraction=0.2)
    assert (len(dataset.rows(TRAIN)), len(dataset.rows(VAL))) == (16, 4)
    assert dataset.classes == ("a", "b")


def test_hidden_folders_are_no_classes(data: Path) -> None:
    """Folders that begin with a dot, such as .ipynb_checkpoints, are ignored."""
    draw_tree(data, ["a", ".ipynb_checkpoints"], 2)
    assert open_dataset(data, val_fraction=0.5).classes == ("a",)


@pytest.mark.parametrize("link", ["class", "image"])
def test_links_are_followed(data: Path, tmp_path: Path, link: str) -> None:
    """Class folders and images may be symbolic links."""
    draw(tmp_path / "store/one.jpg", size=(7, 5))
    if link == "class":
        data.mkdir()
        (data / "a").symlink_to(tmp_path / "store")
    else:
        (data / "a").mkdir(parents=True)
        (data / "a/one.jpg").symlink_to(tmp_path / "store/one.jpg")
    dataset = open_dataset(data, val_fraction=1)
    assert [dataset.relative_path(0), int(dataset.heights[0])] == [b"a/one.jpg", 5]


def test_no_such_folder(data: Path) -> None:
    """A folder that is not there is named, with what can be given."""
    assert error_of(data) == (
        f"no such folder or manifest: {data}; give a folder of images, a .csv, .jsonl, .tar or .parquet"
    )


def test_a_file_that_is_nowrite_manifest(data: Path) -> None:
    """A single image is no data set."""
    image = draw(data / "a.jpg")
    message = error_of(image)
    assert message.startswith(f"{image} is of no known form; what can be read is a folder with train/ and val/")
    assert all(form in message for form in (".csv", ".jsonl", "metadata.csv", ".tar", ".parquet"))


def test_a_folder_without_classes(data: Path) -> None:
    """A folder of loose images is refused with the layout expected."""
    draw(data / "a.jpg")
    assert error_of(data, 0.5).startswith(
        f"{data} has no class folders; expected {data}/<class>/*.jpg; what can be read is a folder with train/ and val/"
    )


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_classes(data: Path, split: str) -> None:
    """A train or val folder without class folders is named."""
    draw_tree(data / "train", ["a"] if split == "val" else [], 1)
    draw_tree(data / "val", ["a"] if split == "train" else [], 1)
    (data / split).mkdir(exist_ok=True)
    assert error_of(data).startswith(f"{data / split} has no class folders; expected {data / split}/<class>/*.jpg")


def test_val_with_classes_that_train_lacks(data: Path) -> None:
    """Unknown classes of val are named, with the nearest that train has."""
    draw_tree(data / "train", ["owl", "cat"], 1)
    draw_tree(data / "val", ["owls", "cat", "dog"], 1)
    assert error_of(data) == (
        f"{data}/val has 2 class folder(s) that {data}/train lacks: dog, owls; "
        "remove them, or add images of them to train"
    )
    shutil.rmtree(data / "val/dog")
    assert error_of(data) == (
        f"{data}/val has 1 class folder(s) that {data}/train lacks: owls; did you mean 'owl'?; "
        "remove them, or add images of them to train"
    )


def test_an_empty_class_folder(data: Path) -> None:
    """An empty class folder is named, with the ways out."""
    draw_tree(data, ["a"], 1)
    (data / "b/below").mkdir(parents=True)
    assert error_of(data, 0.5) == f"class folder {data}/b is empty; put images into it or remove it"


def test_no_split_and_no_val_fraction(data: Path) -> None:
    """A single tree without --val-fraction is refused with both ways out."""
    draw_tree(data, ["a"], 2)
    assert error_of(data) == (
        f"{data} does not say which images to test on; expected {data}/train/<class>/*.jpg and "
        f"{data}/val/<class>/*.jpg, or give `val_fraction=0.1`"
    )


def test_split_and_val_fraction(data: Path) -> None:
    """A data set with its own split takes no `val_fraction`."""
    draw_tree(data / "train", ["a"], 1)
    draw_tree(data / "val", ["a"], 1)
    assert error_of(data, 0.1) == f"{data} has its own split; leave `val_fraction` out"


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_val_fraction_out_of_range(data: Path, fraction: float) -> None:
    """A `val_fraction` that is not a share is refused with the rule and the value."""
    draw_tree(data, ["a"], 1)
    assert error_of(data, fraction) == f"`val_fraction` must be above 0 and at most 1; found {fraction}"


def test_test_images_alone_are_tested_on(data: Path) -> None:
    """A folder that has val/ and no train/ is all test images, of the classes below val/."""
    draw_tree(data / "val", ["bus", "car"], 2)
    dataset = open_dataset(data)
    assert dataset.classes == ("bus", "car")
    assert (dataset.num_train, len(dataset)) == (0, 4)


def test_the_last_readable_image_is_trained_on(data: Path) -> None:
    """The share to test on is drawn from what can be read, and never takes the last image of a class."""
    draw(data / "bus" / "one.jpg")
    (data / "bus" / "two.jpg").write_text("no image")
    opened = open_dataset(data, val_fraction=0.5)
    assert [item.path.name for item in opened.left_out] == ["two.jpg"]
    assert opened.num_train == 1


def test_tables_beside_class_folders_do_not_matter(data: Path) -> None:
    """A table in the folder of an unused split, as Kaggle's sample_submission.csv, or beside the classes is ignored."""
    for split in ("train", "val"):
        draw_tree(data / split, ["a", "b"], 2)
    draw(data / "test" / "1.jpg")
    for table in (data / "test" / "sample_submission.csv", data / "sizes.csv"):
        table.write_text("id,label\n1,0\n")
    dataset = open_dataset(data)
    assert dataset.classes == ("a", "b")
    assert [len(dataset.rows(split)) for split in (TRAIN, VAL)] == [4, 4]
