import json
from pathlib import Path

import pytest

from dali_fixres.errors import DataError
from dali_fixres.evaluation.real import read_real

IMAGES = [b"val/n01/ILSVRC2012_val_00000003.JPEG", b"val/n02/ILSVRC2012_val_00000001.jpg"]


def _written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "real.json"
    path.write_text(json.dumps(content))
    return path


def test_sets_belong_to_official_numbers(tmp_path: Path) -> None:
    """The first list is that of ILSVRC2012_val_00000001, wherever it lies and however many images there are."""
    real = read_real(_written(tmp_path, [[4], [1, 2], []]), IMAGES, 5)
    assert real.of(IMAGES[1]) == {4}
    assert real.of(b"ILSVRC2012_val_00000002.JPEG") == {1, 2}
    assert real.of(IMAGES[0]) == frozenset()
    official = read_real(_written(tmp_path, [[0]] * 50_000), IMAGES, 5)
    assert official.of(b"ILSVRC2012_val_00050000.JPEG") == {0}


@pytest.mark.parametrize("length", [0, 2, 4, 49_999, 50_001])
def test_wrong_lengths(tmp_path: Path, length: int) -> None:
    """Another length than the images' numbers or ImageNet's ask for is refused with both numbers."""
    with pytest.raises(
        DataError, match=rf"real\.json has labels of {length} images, .* up to 3; expected 3, or the 50000"
    ):
        read_real(_written(tmp_path, [[0]] * length), IMAGES, 5)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"a": 1}, "not a list of lists"),
        ([1, 2, 3], "not a list of lists"),
        ([[0], [5], [1]], r"image 2 the labels \[5\]; expected class numbers below 5"),
        ([[0], [1], ["x"]], "image 3"),
        ([[0], [-1], [1]], "image 2"),
    ],
)
def test_other_files(tmp_path: Path, content: object, problem: str) -> None:
    """What is not such a list, or has labels that the network has no output for, is refused."""
    with pytest.raises(DataError, match=problem):
        read_real(_written(tmp_path, content), IMAGES, 5)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file and one that is not JSON have errors of their own."""
    with pytest.raises(DataError, match=r"cannot read --real .*none\.json: No such file"):
        read_real(tmp_path / "none.json", IMAGES, 5)
    (tmp_path / "real.json").write_text("[[1], ")
    with pytest.raises(DataError, match="is not JSON"):
        read_real(tmp_path / "real.json", IMAGES, 5)


@pytest.mark.parametrize(
    "name", [b"val/n01/00000001.JPEG", b"ILSVRC2012_val_00000000.JPEG", b"ILSVRC2012_val_00000001/a.jpg"]
)
def test_images_without_a_number(tmp_path: Path, name: bytes) -> None:
    """An image that has no official number is named."""
    with pytest.raises(DataError, match=rf"^{name.decode()} has no number of ImageNet's validation set"):
        read_real(_written(tmp_path, [[0]]), [name], 5)
