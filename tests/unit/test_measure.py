"""Sizes are read from headers once, and then come from the cache."""

import os
from pathlib import Path

import pytest
from image_files import counted, draw, draw_tree, num_headers_read

from pipelines.dataset import VAL, open_dataset
from pipelines.storage.cache_folder import cache_folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder for images that does not exist yet."""
    return tmp_path / "data"


def test_the_cache_is_the_users_unless_another_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI_FIXRES_CACHE names it; without, it is this program's folder in the system's place for caches."""
    monkeypatch.setenv("DALI_FIXRES_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    monkeypatch.delenv("DALI_FIXRES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "dali-fixres"
    assert not cache_folder().exists()


def test_second_time_reads_no_header(data: Path, own_cache: Path) -> None:
    """Sizes come from the cache as long as nothing changes, and progress counts what is read."""
    assert cache_folder() == own_cache
    draw_tree(data, ["a", "b"], 5)
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
    """Progress is reported per chunk, ascending, and ends with all files."""
    draw_tree(data, ["a"], 150)
    calls: list[tuple[int, int]] = []
    open_dataset(data, val_fraction=0.2, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(64, 150), (128, 150), (150, 150)]


def test_a_changed_file_alone_is_read_again(data: Path) -> None:
    """A file of another length or time is measured again, and no other."""
    draw_tree(data, ["a", "b"], 5)
    open_dataset(data, val_fraction=0.2)
    draw(data / "a/002.jpg", size=(77, 66))
    opened, num_read_opened = counted(data, val_fraction=0.2)
    assert num_read_opened == 1
    sizes = {opened.path(row): int(opened.widths[row]) for row in range(10)}
    assert sizes[data / "a/002.jpg"] == 77
    os.utime(data / "b/000.jpg", ns=(1, 1))
    assert num_headers_read(data, val_fraction=0.2) == 1


def test_new_and_deleted_files(data: Path) -> None:
    """A new file is read alone; a deleted one is gone from the data set and the cache."""
    draw_tree(data, ["a"], 4)
    open_dataset(data, val_fraction=0.5)
    draw(data / "a/new.jpg")
    opened, num_read_opened = counted(data, val_fraction=0.5)
    assert (num_read_opened, len(opened)) == (1, 5)
    (data / "a/000.jpg").unlink()
    opened, num_read_opened = counted(data, val_fraction=0.5)
    assert (num_read_opened, len(opened)) == (0, 4)


def test_cache_does_not_remember_splits(data: Path) -> None:
    """Another --val-fraction reads no header and draws another split."""
    draw_tree(data, ["a"], 10)
    open_dataset(data, val_fraction=0.5)
    opened, num_read_opened = counted(data, val_fraction=0.2)
    assert (num_read_opened, len(opened.rows(VAL))) == (0, 2)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "folder"])
def test_a_damaged_cache_is_ignored(data: Path, own_cache: Path, damage: str) -> None:
    """A cache that cannot be read costs only the time to read all headers again."""
    draw_tree(data, ["a"], 3)
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
    draw_tree(data, ["a"], 3)
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
    draw_tree(data, ["a"], 3)
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
    draw_tree(data, ["a"], 3)
    assert [num_headers_read(data, val_fraction=0.5) for _ in range(2)] == [3, 3]
