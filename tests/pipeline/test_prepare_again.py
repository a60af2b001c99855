"""Preparing what has been prepared: finished parts are kept, damaged ones written again, other targets refused."""

import fcntl
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from preparing import SMALL, digests, prepare_copies

from pipelines.dataset import open_dataset
from pipelines.errors import ConfigError, DataError, RunError
from pipelines.prepare.divide import divide
from pipelines.prepare.write import done_before, write_part


def test_the_same_source_gives_the_same_bytes(images: Path, prepared: Path, tmp_path: Path) -> None:
    """Made again, with another number of processes, every shard is the same."""
    prepare_copies(images, tmp_path / "again", SMALL, num_processes=1)
    assert digests(tmp_path / "again") == digests(prepared)


def test_what_was_finished_is_kept(images: Path, prepared: Path, tmp_path: Path) -> None:
    """After a kill whole shards stay; one that is damaged or half there is made again, and then all is the same."""
    target = Path(shutil.copytree(prepared, tmp_path / "set"))
    expected = digests(target)
    (target / "index.npz").unlink()
    damaged, kept = target / "64" / "train-000000.tar", target / "128" / "val-000000.tar"
    with damaged.open("r+b") as file:
        file.truncate(5000)
    (target / ".done" / "train-000002.json").unlink()
    (target / "128" / "train-000001.idx").write_text("v1.2 0\n")
    (target / "64" / ".train-000002.tar.partial").write_bytes(b"half")
    before = kept.stat().st_mtime_ns
    with pytest.raises(DataError, match="is not finished; prepare it again with the same settings"):
        open_dataset(target)
    prepare_copies(images, target, SMALL)
    assert digests(target) == expected
    assert kept.stat().st_mtime_ns == before
    assert len(open_dataset(target)) == 60


def test_damaged_files_in_folders_are_made_again(few_images: Path, tmp_path: Path) -> None:
    """As with shards: a file with other bytes of the same length is made again."""
    target = tmp_path / "set"
    settings = replace(SMALL, layout="folder")
    prepare_copies(few_images, target, settings, num_processes=1)
    file = next((target / "64").rglob("*.jpg"))
    content = file.read_bytes()
    file.write_bytes(bytes(len(content)))
    prepare_copies(few_images, target, settings, num_processes=1)
    assert file.read_bytes() == content


def test_images_that_cannot_be_found_any_more(images: Path, tmp_path: Path) -> None:
    """A folder that goes away while copies are made fails the part, which is not noted as done until it is back."""
    data = Path(shutil.copytree(images, tmp_path / "data"))
    settings = replace(SMALL, sides=(64,))
    (part, *_) = divide(open_dataset(data), tmp_path / "set", settings)
    (data / "train" / "bee").rename(tmp_path / "bee")
    with pytest.raises(RunError, match=r"cannot read .*bee/.*: No such file .* prepare the data set again"):
        write_part(part)
    assert done_before(part) is None
    (tmp_path / "bee").rename(data / "train" / "bee")
    written = write_part(part)
    assert (len(written.copies), written.unreadable) == (15, {})
    assert done_before(part) == written


def test_the_source_may_move(images: Path, prepared: Path, tmp_path: Path) -> None:
    """Where full copies hold everything, the same images at another place are the same source."""
    target = Path(shutil.copytree(prepared, tmp_path / "set"))
    before = digests(target)
    prepare_copies(Path(shutil.copytree(images, tmp_path / "elsewhere")), target, SMALL)
    assert digests(target) == before


def test_one_prepare_at_a_time(images: Path, prepared: Path, tmp_path: Path) -> None:
    """A second one for the same folder is refused while the first writes, and touches nothing."""
    target = Path(shutil.copytree(prepared, tmp_path / "set"))
    with (target / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"set is being written by .*; wait for it, or name another folder"):
            prepare_copies(images, target, SMALL)
    assert len(open_dataset(target)) == 60


def test_targets_that_are_refused(images: Path, prepared: Path, tmp_path: Path) -> None:
    """Inside of the source, not empty, or begun with other settings: one line each, and nothing is touched."""
    with pytest.raises(ConfigError, match=r"lies inside of .*; name a place outside"):
        prepare_copies(images, images / "small", SMALL)
    with pytest.raises(ConfigError, match="lies inside of"):
        prepare_copies(images, images, SMALL)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        prepare_copies(images, tmp_path / "letter.txt", SMALL)
    with pytest.raises(ConfigError, match="is not empty; name a new folder"):
        prepare_copies(images, tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    before = digests(prepared)
    with pytest.raises(ConfigError, match=r"was begun with quality = 90"):
        prepare_copies(images, prepared, replace(SMALL, quality=80))
    assert digests(prepared) == before


def test_classes_that_would_share_a_folder(tmp_path: Path) -> None:
    """Names that differ in what no folder may have go into shards only."""
    for name in ("a.b", "a_b"):
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        Image.new("RGB", (200, 150)).save(tmp_path / "data" / "val" / name / "1.jpg")
    with pytest.raises(ConfigError, match=r"the classes 'a\.b' and 'a_b' would share a folder; use `layout=shards`"):
        prepare_copies(tmp_path / "data", tmp_path / "set", replace(SMALL, layout="folder"), num_processes=1)
    prepare_copies(tmp_path / "data", tmp_path / "set", SMALL, num_processes=1)
    assert open_dataset(tmp_path / "set").classes == ("a.b", "a_b")


def test_a_shard_that_is_cut_or_gone_is_named(prepared: Path, tmp_path: Path) -> None:
    """A prepared set whose shards are not what its index says is refused, with the next step."""
    target = Path(shutil.copytree(prepared, tmp_path / "set"))
    shard = target / "128" / "train-000001.tar"
    with shard.open("r+b") as file:
        file.truncate(3000)
    with pytest.raises(DataError, match=rf"shard {shard} ends at byte 3000, before its last image; remove .*index.npz"):
        open_dataset(target)
    shard.unlink()
    with pytest.raises(DataError, match=rf"shard {shard} is missing"):
        open_dataset(target)


@pytest.mark.parametrize(
    ("content", "message"), [("[]", "has version None"), ('{"version": 2}', "has version 2"), ("{", "cannot read")]
)
def test_a_manifest_of_another_version(prepared: Path, tmp_path: Path, content: str, message: str) -> None:
    """It is named, and what to do."""
    target = Path(shutil.copytree(prepared, tmp_path / "set"))
    (target / "prepared.json").write_text(content)
    with pytest.raises(DataError, match=rf"{message}.*; prepare the data set again"):
        open_dataset(target)
