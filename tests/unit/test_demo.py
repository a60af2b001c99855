"""The demo set: its layout, that it depends on its seed alone, and that it appears whole or not at all."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from dali_fixres.demo import ensure_demo_data
from dali_fixres.demo.draw import CLASS_NAMES, NUM_CLASSES, draw_image


class Made(NamedTuple):
    """A finished set of 20 + 10 images of seed 3, and the progress that was reported."""

    folder: Path
    progress: list[tuple[int, int]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Make one set for all tests of this file, in two workers."""
    made = Made(tmp_path_factory.mktemp("demo") / "set", [])
    ensure_demo_data(
        made.folder,
        seed=3,
        num_train=20,
        num_val=10,
        workers=2,
        on_progress=lambda *call: made.progress.append(call),
    )
    return made


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of each file, by its path in the folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_layout_and_counts(made: Made) -> None:
    """Each class folder of each split holds its equal share, and the readme names version and seed."""
    splits = {"train": [2] * 10, "val": [1] * 10}
    assert sorted(path.name for path in made.folder.iterdir()) == ["README.txt", *splits]
    for split, shares in splits.items():
        assert sorted(path.name for path in (made.folder / split).iterdir()) == sorted(CLASS_NAMES)
        assert [len(list((made.folder / split / name).glob("*.jpg"))) for name in CLASS_NAMES] == shares
    readme = (made.folder / "README.txt").read_text()
    assert "Synthetic" in readme
    assert "version: 1\nseed: 3\n" in readme


def test_progress_counts_up_to_all_images(made: Made) -> None:
    """Progress reports image counts that go up and end with all of them."""
    assert made.progress in ([(16, 30), (30, 30)], [(14, 30), (30, 30)])  # either worker may be first


def test_images_are_jpegs_of_natural_sizes(made: Made) -> None:
    """Every file decodes as an RGB JPEG with a shorter side of 260 to 420, and sizes vary."""
    sizes = set()
    for path in made.folder.rglob("*.jpg"):
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert 260 <= min(image.size) <= 420
            sizes.add(image.size)
    assert len(sizes) > 3


def test_default_folder_and_same_bytes_for_any_workers(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set goes to the cache under a name that says its content, and one worker draws it as two do."""
    monkeypatch.setenv("DALI_FIXRES_CACHE", str(tmp_path))
    folder = ensure_demo_data(seed=3, num_train=20, num_val=10, workers=1)
    assert folder == tmp_path / "demo-v1-seed3-train20-val10"
    assert digests(folder) == digests(made.folder)


def test_seed_split_and_number_each_change_the_image() -> None:
    """An image is the same for the same seed, split and number, and another if any of them is another."""
    images = [draw_image(*key).tobytes() for key in ((3, "train", 1), (4, "train", 1), (3, "val", 1))]
    assert len({*images, draw_image(3, "train", 11).tobytes()}) == 4
    assert draw_image(3, "train", 1).tobytes() == images[0]


def test_second_call_writes_nothing(made: Made) -> None:
    """A finished set is returned without writing to it and without progress."""
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")}
    calls: list[tuple[int, int]] = []
    ensure_demo_data(made.folder, seed=3, num_train=20, num_val=10, on_progress=lambda *call: calls.append(call))
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")} == before
    assert calls == []


def test_set_made_by_an_earlier_version_is_used(tmp_path: Path) -> None:
    """A README.txt in other words, as 0.1 wrote it, names the same set; other numbers do not."""
    readme = "Synthetic demo pictures.\nversion: 1\nseed: 3\ntrain pictures: 20\nval pictures: 10\nDelete it: fine.\n"
    (tmp_path / "README.txt").write_text(readme)
    assert ensure_demo_data(tmp_path, seed=3, num_train=20, num_val=10) == tmp_path
    with pytest.raises(FileExistsError, match="is not this demo set"):
        ensure_demo_data(tmp_path, seed=4, num_train=20, num_val=10)


def test_two_processes_make_one_whole_set(made: Made, tmp_path: Path) -> None:
    """Two processes that make the set at once both succeed and leave one whole folder, nothing beside it."""
    code = (
        "import pathlib, sys; from dali_fixres.demo import ensure_demo_data as ensure; "
        "ensure(pathlib.Path(sys.argv[1]), seed=3, num_train=20, num_val=10, workers=1)"
    )
    folder = tmp_path / "cache" / "set"
    runs = [subprocess.Popen([sys.executable, "-c", code, str(folder)]) for _ in range(2)]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert list(folder.parent.iterdir()) == [folder]
    assert digests(folder) == digests(made.folder)


def test_making_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    """A make that is stopped half-way leaves neither the folder nor a temporary one."""

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_demo_data(tmp_path / "set", num_train=20, num_val=10, workers=1, on_progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_names_path_and_next_step(tmp_path: Path) -> None:
    """A place that cannot be written is an OSError that names it and the way out."""
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"cannot write the demo images to .*file/set.*set DALI_FIXRES_CACHE"):
        ensure_demo_data(tmp_path / "file" / "set", num_train=20, num_val=10)


def test_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    """A folder that holds anything else is not touched."""
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not this demo set; name another folder"):
        ensure_demo_data(tmp_path, num_train=20, num_val=10)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("seed", "num_val"), [(-1, 10), (0, NUM_CLASSES - 1)])
def test_values_out_of_range(tmp_path: Path, seed: int, num_val: int) -> None:
    """A negative seed, or fewer images than classes, is refused before anything is made."""
    with pytest.raises(ValueError, match="; found "):
        ensure_demo_data(tmp_path / "set", seed=seed, num_train=20, num_val=num_val)
    assert list(tmp_path.iterdir()) == []
