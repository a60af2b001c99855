import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipelines.dataset import Dataset
from pipelines.dataset.snapshot import compare, load_snapshot, save_snapshot
from pipelines.dataset.table import make_dataset
from pipelines.errors import DataError

Image = tuple[bytes, str, bool, int]
"""Path, class, whether it is tested on, height."""

IMAGES: tuple[Image, ...] = (
    (b"train/ant/a.jpg", "ant", False, 100),
    (b"train/b\xe4r/\xff.jpg", "b\udce4r", False, 200),
    (b"train/cat/c.jpg", "cat", False, 300),
    (b"val/ant/d.jpg", "ant", True, 400),
)


def _dataset(images: Sequence[Image], classes: Sequence[str] = ("ant", "b\udce4r", "cat"), root: str = "/a") -> Dataset:
    """Lay out a data set of images that need not exist."""
    images = sorted(images, key=lambda image: (image[2], image[0]))
    heights = np.array([height for *_, height in images], dtype=np.int64)
    columns = {
        "labels": np.array([classes.index(name) for _, name, *_ in images], dtype=np.int64),
        "heights": heights,
        "widths": heights + 7,
        "num_bytes": heights * 11,
    }
    is_val = np.array([tested for *_, tested, _ in images], dtype=np.bool_)
    return make_dataset(Path(root), classes, [path for path, *_ in images], columns, is_val)


def _saved(path: Path) -> Path:
    save_snapshot(path, _dataset(IMAGES))
    return path


def test_round_trip(tmp_path: Path) -> None:
    """All that the fingerprint covers comes back, whatever bytes names have, below the root that is given."""
    dataset = load_snapshot(_saved(tmp_path / "data.npz"), Path("/elsewhere"))
    assert dataset.root == Path("/elsewhere")
    assert dataset.classes == ("ant", "b\udce4r", "cat")
    assert [dataset.relative_path(row) for row in range(4)] == [path for path, *_ in IMAGES]
    assert dataset.path(1) == Path(os.fsdecode(b"/elsewhere/train/b\xe4r/\xff.jpg"))
    assert (dataset.labels.tolist(), dataset.num_train) == ([0, 1, 2, 0], 3)
    assert dataset.heights.tolist() == [100, 200, 300, 400]
    assert dataset.widths.tolist() == [107, 207, 307, 407]
    assert dataset.num_bytes.tolist() == [1100, 2200, 3300, 4400]
    assert dataset.fingerprint == _dataset(IMAGES).fingerprint
    assert str(compare(dataset, _dataset(IMAGES))) == ""


def test_saving_replaces(tmp_path: Path) -> None:
    """A second snapshot takes the first one's place and leaves no other file."""
    save_snapshot(tmp_path / "data.npz", _dataset(IMAGES[1:]))
    _saved(tmp_path / "data.npz")
    assert len(load_snapshot(tmp_path / "data.npz", Path("/a"))) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


def test_a_missing_snapshot(tmp_path: Path) -> None:
    """A snapshot that is not there is named with the system's reason."""
    with pytest.raises(DataError, match=rf"^cannot read {tmp_path}/data.npz, which lists the data .*No such file"):
        load_snapshot(tmp_path / "data.npz", Path("/a"))


@pytest.mark.parametrize("content", [b"", b"PK", b"hello\n", b"\x93NUMPY\x01\x00", b"PK\x05\x06" + bytes(18)])
def test_files_that_are_no_snapshot(content: bytes, tmp_path: Path) -> None:
    """A file of another kind is refused in one line that names it."""
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^cannot read {path}, which lists the data of the run: "):
        load_snapshot(path, Path("/a"))


def test_another_archive(tmp_path: Path) -> None:
    """An archive that lacks a part is refused."""
    path = tmp_path / "data.npz"
    np.savez(path, paths=np.zeros(3, np.uint8))
    with pytest.raises(DataError, match=rf"^cannot read {path}, which lists the data of the run: "):
        load_snapshot(path, Path("/a"))


def test_a_cut_snapshot(tmp_path: Path) -> None:
    """A snapshot that was cut anywhere is refused."""
    path = _saved(tmp_path / "data.npz")
    content = path.read_bytes()
    for length in range(0, len(content), 50):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=rf"^cannot read {path}, "):
            load_snapshot(path, Path("/a"))


def test_a_damaged_snapshot(tmp_path: Path) -> None:
    """A snapshot with damaged bytes is read as it was, if they do not matter, or refused."""
    path = _saved(tmp_path / "data.npz")
    content, fingerprint = path.read_bytes(), _dataset(IMAGES).fingerprint
    num_refused = 0
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            assert load_snapshot(path, Path("/a")).fingerprint == fingerprint
        except DataError:
            num_refused += 1
    assert num_refused > 50


def test_differences_are_counted_and_named() -> None:
    """Classes and images that were added, removed or changed are counted and named."""
    new = _dataset(
        [(b"train/ant/a.jpg", "ant", False, 101), (b"train/ant/b.jpg", "ant", False, 1), *IMAGES[2:]],
        classes=("ant", "cat", "dog"),
    )
    difference = compare(_dataset(IMAGES), new)
    assert difference.classes_added == frozenset({"dog"})
    assert difference.classes_removed == frozenset({"b\udce4r"})
    assert difference.added == {b"train/ant/b.jpg"}
    assert difference.removed == {b"train/b\xe4r/\xff.jpg"}
    assert difference.changed == {b"train/ant/a.jpg"}
    assert str(difference) == (
        "1 class(es) added: dog; 1 class(es) removed: b\udce4r; 1 added: train/ant/b.jpg; "
        "1 removed: train/b\udce4r/\udcff.jpg; 1 changed: train/ant/a.jpg"
    )


def test_only_the_first_differences_are_named() -> None:
    """Of more than three images the first three by path are named."""
    more = [(b"train/ant/%02d.jpg" % number, "ant", False, 50) for number in reversed(range(12))]
    assert str(compare(_dataset(IMAGES), _dataset([*IMAGES, *more]))) == (
        "12 added: train/ant/00.jpg, train/ant/01.jpg, train/ant/02.jpg …"
    )
    assert str(compare(_dataset([*IMAGES, *more[9:]]), _dataset(IMAGES))) == (
        "3 removed: train/ant/00.jpg, train/ant/01.jpg, train/ant/02.jpg"
    )


@pytest.mark.parametrize(
    "image",
    [
        (b"train/ant/a.jpg", "ant", True, 100),
        (b"train/ant/a.jpg", "cat", False, 100),
        (b"train/ant/a.jpg", "ant", False, 99),
    ],
    ids=["split", "label", "size"],
)
def test_images_that_have_changed(image: Image) -> None:
    """An image has changed if it has another size or length, class, or is tested on instead of trained on."""
    assert str(compare(_dataset(IMAGES), _dataset([image, *IMAGES[1:]]))) == "1 changed: train/ant/a.jpg"


def test_an_image_keeps_its_class_if_labels_move() -> None:
    """A class that comes in between gives others another label, but does not change their images."""
    new = _dataset(IMAGES, classes=("ant", "apple", "b\udce4r", "cat"))
    difference = compare(_dataset(IMAGES), new)
    assert difference.classes_added == frozenset({"apple"})
    assert not difference.changed


def test_differences_within_some_images() -> None:
    """A difference lies within images if these have gone or changed, and nothing else has, nor been added."""
    old = _dataset(IMAGES)
    a, c = b"train/ant/a.jpg", b"train/cat/c.jpg"
    without = compare(old, _dataset([IMAGES[0], IMAGES[1], IMAGES[3]]))
    assert (without.within([a, c]), without.within([c]), without.within([a])) == (True, True, False)
    changed = compare(old, _dataset([(a, "ant", False, 7), *IMAGES[1:]]))
    assert (changed.within([a]), changed.within([])) == (True, False)
    assert not compare(_dataset(IMAGES[:-1]), old).within([IMAGES[-1][0]])
    assert not compare(old, _dataset(IMAGES, classes=("ant", "b\udce4r", "cat", "dog"))).within([a])
    assert compare(old, old).within([])
