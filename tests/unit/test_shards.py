import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tars import add_member, tar_of_folders

from pipelines.dataset import TRAIN, VAL, open_dataset
from pipelines.dataset.shards import read_shard
from pipelines.errors import DataError


def jpeg(height: int = 40, width: int = 60) -> bytes:
    """Return a grey JPEG."""
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 128, np.uint8)).save(file, "JPEG")
    return file.getvalue()


def write(path: Path, members: dict[str, bytes], **options: int) -> Path:
    """Write a tar file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            add_member(archive, name, content)
    return path


def test_shards_are_the_same_data_as_folders(images: Path, tmp_path: Path) -> None:
    """Row by row in the order of their names, shards have the images, labels, sizes and bytes of class folders."""
    tar_of_folders(images, tmp_path / "shards", num_shards=1)
    folders, shards = open_dataset(images), open_dataset(tmp_path / "shards")
    assert (len(shards), shards.num_train) == (60, 40)
    assert shards.classes == ("0", "1", "2", "3")
    np.testing.assert_array_equal(shards.labels, folders.labels)
    np.testing.assert_array_equal(shards.heights, folders.heights)
    np.testing.assert_array_equal(shards.widths, folders.widths)
    assert all(shards.read(row).tobytes() == folders.read(row).tobytes() for row in range(60))
    assert shards.path(0) == tmp_path / "shards" / "train-0000.tar" / "ant-00.jpg"


def test_splits_by_folder_and_by_name(tmp_path: Path) -> None:
    """A shard's folder, or else a word of its name, says its split; where the name says two, it is refused."""
    sample = {"a.jpg": jpeg(), "a.cls": b"3\n"}
    for name in ("train/x.tar", "validation/x.tar"):
        write(tmp_path / "folders" / name, sample)
    for name in ("train-000.tar", "val_000.tar"):
        write(tmp_path / "names" / name, sample)
    for folder in ("folders", "names"):
        dataset = open_dataset(tmp_path / folder)
        assert (len(dataset.rows(TRAIN)), len(dataset.rows(VAL)), dataset.classes) == (1, 1, ("3",))
    write(tmp_path / "both" / "cifar-test-train-0.tar", sample)
    with pytest.raises(DataError, match=r"cifar-test-train-0.tar says test and train; rename it"):
        open_dataset(tmp_path / "both")


def test_shards_win_over_other_folders_beside_them(tmp_path: Path) -> None:
    """Folders of caches and logs in train/ do not make class folders of shards."""
    for split in ("train", "val"):
        write(tmp_path / split / "0.tar", {"a.jpg": jpeg(), "a.cls": b"3"})
    (tmp_path / "train" / "logs").mkdir()
    assert len(open_dataset(tmp_path)) == 2


def test_shards_that_were_put_together(tmp_path: Path) -> None:
    """One archive behind another in a file would lose the second: it is refused."""
    one = write(tmp_path / "one.tar", {"a.jpg": jpeg(), "a.cls": b"3"}).read_bytes()
    (tmp_path / "two.tar").write_bytes(one + one)
    with pytest.raises(DataError, match="there is more behind the end at byte"):
        read_shard(tmp_path / "two.tar")


def test_shards_without_a_split_need_one(tmp_path: Path) -> None:
    """Shards of other names, or a single one, need --val-fraction."""
    members = {f"{number}.{kind}": jpeg() if kind == "jpg" else b"1" for number in range(4) for kind in ("jpg", "cls")}
    path = write(tmp_path / "set" / "imagenet-000.tar", members)
    with pytest.raises(DataError, match="does not say which images to test on"):
        open_dataset(path.parent)
    for data in (path, path.parent):
        dataset = open_dataset(data, val_fraction=0.5)
        assert (len(dataset.rows(TRAIN)), len(dataset.rows(VAL))) == (2, 2)


def test_training_shards_alone_can_be_divided(tmp_path: Path) -> None:
    """A set of train shards only is like a train/ folder only: `val_fraction` takes its test images from them."""
    samples = {name: content for n in range(10) for name, content in ((f"{n}.jpg", jpeg()), (f"{n}.cls", b"0"))}
    write(tmp_path / "train-0000.tar", samples)
    dataset = open_dataset(tmp_path, val_fraction=0.2)
    assert (dataset.num_train, len(dataset)) == (8, 10)
    with pytest.raises(DataError, match=r"does not say which images to test on; .* give `val_fraction=0.1`"):
        open_dataset(tmp_path)


def test_labels_of_json_members(tmp_path: Path) -> None:
    """A .json member may have the label as a number or as a name, under label or cls."""
    members: dict[str, bytes] = {}
    for key, content in (("a", {"label": 7}), ("b", {"cls": 10, "more": 1}), ("c", {"label": 9})):
        members |= {f"{key}.jpg": jpeg(), f"{key}.json": json.dumps(content).encode()}
    dataset = open_dataset(write(tmp_path / "x.tar", members), val_fraction=1.0)
    assert dataset.classes == ("7", "9", "10")
    assert dataset.labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names(tmp_path: Path, form: int) -> None:
    """Names of more than 100 bytes, and of other letters, are read in both formats of tar files."""
    key = "n0153/" + "x" * 120 + "\u00e4"
    path = write(tmp_path / "x.tar", {f"{key}.jpg": jpeg(), f"{key}.cls": b"1"}, format=form)
    (member,) = read_shard(path)
    assert member.name == f"{key}.jpg"
    assert path.read_bytes()[member.offset :][: member.num_bytes] == jpeg()


def test_dots_end_the_key(tmp_path: Path) -> None:
    """As the webdataset library has it, a key ends at the first dot of the file's name, not of its folder's."""
    path = write(tmp_path / "x.tar", {"a.b/k.jpg": jpeg(), "a.b/k.cls": b"2", "a.b/k.seg.png": b"no image of ours"})
    (member,) = read_shard(path)
    assert (member.name, member.label) == ("a.b/k.jpg", "2")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": b"x"}, r"a.jpg has no label; expected a.cls or a.json with a label"),
        ({"a.jpg": b"x", "a.cls": b"dog"}, r"a.cls is not a number; a .cls file holds the class's number"),
        ({"a.jpg": b"x", "a.png": b"x", "a.cls": b"1"}, r"two images named 'a'"),
        ({"a.txt": b"x"}, r"hold no images; expected samples of .jpg and .cls"),
    ],
)
def test_shards_that_cannot_be_used(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    """The error says what is wrong with a shard, and names the member."""
    path = write(tmp_path / "x.tar", members)
    with pytest.raises(DataError, match=message):
        open_dataset(path, val_fraction=1.0)


def test_a_shard_cut_in_the_middle(images: Path, tmp_path: Path) -> None:
    """A shard that ends within a member is refused with its name."""
    tar_of_folders(images, tmp_path)
    shard = tmp_path / "train-0001.tar"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size * 2 // 3])
    with pytest.raises(DataError, match=rf"cannot read shard {shard}: unexpected end of data; make or fetch it again"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("kept", [1024, 1500, 1536])
def test_a_shard_cut_between_members(tmp_path: Path, kept: int) -> None:
    """One that ends before, within or behind a later member's header would be silently short: it is refused."""
    members = {"a.cls": b"1", "a.jpg": b"x", "b.cls": b"1", "b.jpg": b"x"}
    path = write(tmp_path / "x.tar", members)
    path.write_bytes(path.read_bytes()[: 1024 + kept])
    with pytest.raises(DataError, match=rf"cannot read shard {path}: .*(unexpected end of data|end a tar file)"):
        read_shard(path)


def test_a_label_without_an_image(tmp_path: Path) -> None:
    """A sample whose image is of a kind that cannot be read is named, not left out."""
    path = write(tmp_path / "x.tar", {"a.jpg": jpeg(), "a.cls": b"1", "b.avif": b"x", "b.cls": b"1"})
    with pytest.raises(DataError, match=r"'b' has a label and no image; a sample's image is one of \.jpg"):
        read_shard(path)


def test_a_json_before_its_cls(tmp_path: Path) -> None:
    """The order of a sample's members does not matter: the name in the .json wins over the number."""
    path = write(tmp_path / "x.tar", {"a.json": b'{"label": "ant"}', "a.cls": b"1", "a.jpg": jpeg()})
    assert [member.label for member in read_shard(path)] == ["ant"]


def test_names_that_say_the_split(images: Path, tmp_path: Path) -> None:
    """The word may stand anywhere in a shard's name, as in those of the hub."""
    tar_of_folders(images, tmp_path)
    for path in sorted(tmp_path.iterdir()):
        path.rename(tmp_path / f"imagenet1k-{path.name}")
    dataset = open_dataset(tmp_path)
    assert (dataset.num_train, len(dataset)) == (40, 60)


def test_an_archive_beside_class_folders(images: Path, tmp_path: Path) -> None:
    """Class folders are read, not the .tar file they were unpacked from."""
    data = Path(shutil.copytree(images, tmp_path / "data"))
    write(data / "train.tar", {"ant/a.jpg": jpeg()})
    assert len(open_dataset(data)) == 60


def test_a_shard_is_scanned_once(tmp_path: Path) -> None:
    """A shard is remembered while its length and time are the same, and scanned again when they are not."""
    path = write(tmp_path / "x.tar", {"a.jpg": jpeg(), "a.cls": b"1"})
    first = read_shard(path)
    assert read_shard(path) == first
    write(path, {"b.jpg": jpeg(50, 50), "b.cls": b"2"})
    assert [member.name for member in read_shard(path)] == ["b.jpg"]


def test_an_idx_that_does_not_match(tmp_path: Path) -> None:
    """An .idx file of another shard would make DALI's own reader read garbage: it is named. A right one is fine."""
    path = write(tmp_path / "x.tar", {"a.jpg": jpeg(), "a.cls": b"1"})
    (member,) = read_shard(path)
    offsets = path.with_suffix(".idx")
    offsets.write_text(f"v1.2 1\njpg {member.offset} {member.num_bytes} a.jpg cls 2048 1 a.cls\n")
    assert read_shard(path) == [member]
    for text in ("v1.2 1\njpg 1024 99 a.jpg cls 2048 1 a.cls\n", "v1.1 1\njpg 512 99\n", "v1.2 0\n"):
        offsets.write_text(text)
        with pytest.raises(DataError, match=rf"{offsets} does not match its shard: it does not have a.jpg at byte 512"):
            read_shard(path)
    offsets.write_text("an index of another tool")
    assert read_shard(path) == [member]


def test_a_compressed_shard(tmp_path: Path) -> None:
    """The error names the compression, and why the shard has to be unpacked."""
    (tmp_path / "a.tar").write_bytes(
        gzip.compress(write(tmp_path / "b.tar", {"a.jpg": jpeg(), "a.cls": b"3"}).read_bytes())
    )
    with pytest.raises(DataError, match=r"a.tar is compressed with gzip; unpack it"):
        read_shard(tmp_path / "a.tar")
