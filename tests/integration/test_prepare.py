"""Prepared data: the copies, their index, what a kill leaves behind, and what is refused."""

import fcntl
import gc
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import webdataset
from nvidia.dali import fn
from nvidia.dali.pipeline import pipeline_def
from PIL import Image
from tars import tar_of_folders

from dali_fixres.commands.index import index as show_index
from dali_fixres.commands.prepare import prepare
from dali_fixres.commands.train import train
from dali_fixres.commands.verify import verify
from dali_fixres.config import Copies, IndexConfig, PrepareConfig, TrainConfig, VerifyConfig
from dali_fixres.errors import CheckpointError, ConfigError, DataError, RunError
from pipelines import Loader
from pipelines.dataset import ORIGINAL, open_dataset
from pipelines.plan import AUGMENTATIONS, EvalPlan, TrainPlan
from pipelines.prepare import CopySettings
from pipelines.prepare.divide import divide
from pipelines.prepare.write import done_before, write_part
from pipelines.resolution import Resolution, Schedule

SMALL = PrepareConfig(sizes="64,128", max_side=300, shard_size=15, workers=2)


@pytest.fixture(scope="module")
def prepared(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the images with copies of 64 and 128 px, in shards of 15."""
    target = tmp_path_factory.mktemp("prepared") / "set"
    prepare(images, target, SMALL)
    return target


def test_every_image_is_there_at_every_size(images: Path, prepared: Path) -> None:
    """Splits, classes and labels are the source's; copies have the resized copy's shorter side, full ones at most 300 px."""
    source, dataset = open_dataset(images), open_dataset(prepared)
    assert (len(dataset), dataset.num_train, dataset.classes) == (60, 40, source.classes)
    assert sorted(dataset.labels[:40].tolist()) == sorted(source.labels[:40].tolist())
    assert [copy.side_px for copy in dataset.copies] == [64, 128]
    for row in range(60):
        for number, side in ((ORIGINAL, None), (0, 64), (1, 128)):
            place: Any = dataset if number == ORIGINAL else dataset.copies[number]
            with Image.open(BytesIO(dataset.read(row, number).tobytes())) as image:
                assert (image.format, image.mode) == ("JPEG", "RGB")
                assert image.size == (place.widths[row], place.heights[row])
                assert min(image.size) == side if side else max(image.size) <= 300


def test_rows_are_in_the_order_of_the_source(images: Path, prepared: Path) -> None:
    """So a seed draws the same images, crop boxes and flips from both, where full copies have the images' sizes."""
    source, dataset = open_dataset(images), open_dataset(prepared)
    assert dataset.labels.tolist() == source.labels.tolist()
    for row in range(60):
        name = Path(source.relative_path(row).decode())
        assert dataset.relative_path(row).decode().endswith(f"/{name.parent.name}/{name.stem}.jpg")


def test_shards_are_webdataset_shards(prepared: Path) -> None:
    """Each sample is a jpg, its class's number and a json with its name; DALI's own reader takes shard and .idx."""
    shard = prepared / "64" / "train-000001.tar"
    with tarfile.open(shard) as archive:
        names = archive.getnames()
        assert [name.rpartition(".")[2] for name in names] == ["jpg", "cls", "json"] * 15
        facts = json.loads(archive.extractfile(names[2]).read())  # type: ignore[union-attr]
        number = int(archive.extractfile(names[1]).read())  # type: ignore[union-attr]
    assert facts["label"] == ("ant", "bee", "cat", "dog")[number]
    assert min(facts["height"], facts["width"]) == 64

    @pipeline_def
    def read() -> Any:
        reader: Any = fn.readers
        found = reader.webdataset(paths=str(shard), index_paths=str(shard.with_suffix(".idx")), ext=["jpg", "cls"])
        return tuple(found)

    pipeline: Any = read(batch_size=15, num_threads=1, device_id=None)
    pipeline.build()
    images, labels = pipeline.run()
    with tarfile.open(shard) as archive:
        for sample in range(15):
            expected = archive.extractfile(names[3 * sample]).read()  # type: ignore[union-attr]
            assert bytes(images.at(sample)) == expected
            assert bytes(labels.at(sample)) == archive.extractfile(names[3 * sample + 1]).read()  # type: ignore[union-attr]


def test_resized_copies_keep_colour_at_every_pixel(tmp_path: Path) -> None:
    """Colours that change from pixel to pixel of a copy are those of the image scaled down, not of pairs of it."""
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, np.arange(256) % 12 < 6] = (200, 60, 60)
    stripes[:, np.arange(256) % 12 >= 6] = (60, 60, 200)
    (tmp_path / "data" / "val" / "a").mkdir(parents=True)
    image = Image.fromarray(stripes)
    image.save(tmp_path / "data" / "val" / "a" / "x.png")
    prepare(tmp_path / "data", tmp_path / "set", PrepareConfig(sizes="64", max_side=256))
    scaled = np.asarray(image.resize((64, 64), Image.Resampling.LANCZOS), float)
    with Image.open(BytesIO(open_dataset(tmp_path / "set").read(0, 0).tobytes())) as image:
        assert np.abs(np.asarray(image, float) - scaled).mean() < 5


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_other_libraries_read_the_shards(prepared: Path, tmp_path: Path) -> None:
    """The webdataset library and Hugging Face's datasets give the images, numbers and facts that were written."""
    shards = [str(path) for path in sorted((prepared / "128").glob("train-*.tar"))]
    streamed = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("jpg", "cls", "json"))
    loaded = datasets.load_dataset("webdataset", data_files=shards, split="train", cache_dir=str(tmp_path))
    assert len(streamed) == len(loaded) == 40
    for (image, number, facts), sample in zip(streamed, loaded, strict=True):
        assert image.size == sample["jpg"].size == (facts["width"], facts["height"])
        assert sample["cls"] == number
        assert facts["label"] == sample["json"]["label"] == ("ant", "bee", "cat", "dog")[number]
    gc.collect()  # webdataset leaves files open, which is not the next test's fault


def test_the_loader_reads_the_copies(prepared: Path) -> None:
    """Test images from copies look like those from the images themselves, and smaller files are read for them."""
    dataset = open_dataset(prepared)
    images_seen = []
    kinds: tuple[tuple[Copies, int], ...] = (("exact", 1), ("original", ORIGINAL))
    for copies, expected in kinds:
        (batch_plan,) = EvalPlan(dataset, batch_size=20, copies=copies).batches(Resolution(96))
        assert set(batch_plan.copy_ids.tolist()) == {expected}
        with Loader(dataset, max_batch_size=20) as loader:
            (batch,) = loader.run([batch_plan])
        images_seen.append(batch.images.clone())
    assert (images_seen[0] - images_seen[1]).abs().mean() < 0.15, "of one standard deviation"
    training = TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse("64"), batch_size=8)
    with Loader(dataset, max_batch_size=8) as loader:
        assert all(torch.isfinite(batch.images).all() for batch in loader.run(training.epoch(0)))


def digests(folder: Path) -> dict[str, str]:
    """Return what is in each tar and .idx file below a folder."""
    files = [path for path in folder.rglob("*") if path.suffix in {".tar", ".idx"}]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_source_gives_the_same_bytes(images: Path, prepared: Path, tmp_path: Path) -> None:
    """Made again, with another number of processes, every shard is the same."""
    prepare(images, tmp_path / "again", PrepareConfig(sizes="64,128", max_side=300, shard_size=15, workers=1))
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
    with pytest.raises(DataError, match="is not finished; run the same `dali-fixres prepare` again"):
        open_dataset(target)
    prepare(images, target, SMALL)
    assert digests(target) == expected
    assert kept.stat().st_mtime_ns == before
    assert len(open_dataset(target)) == 60


def test_killed_while_it_writes(images: Path, prepared: Path, tmp_path: Path) -> None:
    """Killed when the first part is done, and again when the second is: it is not finished, and ends all the same."""
    target = tmp_path / "set"
    command = [sys.executable, "-m", "dali_fixres", "prepare", str(images), str(target), "--sizes", "64,128"]
    command += ["--max-side", "300", "--shard-size", "15", "--workers", "1"]
    for num_done in (1, 2):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and len(list(target.glob(".done/*.json"))) < num_done:
                time.sleep(0.001)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        with pytest.raises(DataError, match="is not finished; run the same"):
            open_dataset(target)
    prepare(images, target, SMALL)
    assert digests(target) == digests(prepared)


def test_folders_instead_of_shards(images: Path, prepared: Path, tmp_path: Path) -> None:
    """--layout folder writes class folders that are data sets of their own, and gives the batches of shards."""
    target = tmp_path / "set"
    prepare(images, target, PrepareConfig(sizes="64,128", max_side=300, layout="folder"))
    assert len(open_dataset(target / "64")) == 60
    one, other = open_dataset(target), open_dataset(prepared)
    names = [{dataset.read(row, 0).tobytes() for row in range(60)} for dataset in (one, other)]
    assert names[0] == names[1]
    with Loader(one, max_batch_size=20) as loader:
        assert len(list(loader.run(EvalPlan(one, batch_size=20).batches(Resolution(64))))) == 1


def test_resized_copies_beside_images_that_stay(images: Path, tmp_path: Path) -> None:
    """--no-full writes resized copies alone; crops that need more are read from the source."""
    target = tmp_path / "set"
    prepare(images, target, PrepareConfig(sizes="64,128", full=False))
    assert not (target / "full").exists()
    source, dataset = open_dataset(images), open_dataset(target)
    assert all(dataset.read(row).tobytes() == source.read(row).tobytes() for row in range(60))
    (plan,) = EvalPlan(dataset, batch_size=20).batches(Resolution(160))
    assert set(plan.copy_ids.tolist()) == {ORIGINAL}
    with Loader(dataset, max_batch_size=20) as loader:
        (batch,) = loader.run([plan])
    (plan,) = EvalPlan(source, batch_size=20).batches(Resolution(160))
    with Loader(source, max_batch_size=20) as loader:
        (expected,) = loader.run([plan])
    assert torch.equal(batch.images, expected.images)


@pytest.mark.parametrize("form", ["table", "tar", "prepared"])
def test_resized_copies_beside_images_of_any_layout(images: Path, prepared: Path, tmp_path: Path, form: str) -> None:
    """--no-full finds the images of a table, of one shard and of a prepared set where they are."""
    source = prepared
    if form == "table":
        paths = sorted(path.relative_to(images) for path in images.rglob("*.jpg"))
        shutil.copytree(images, tmp_path / "data")
        source = tmp_path / "data" / "list.csv"
        source.write_text("path,label,split\n" + "".join(f"{p},{p.parts[1]},{p.parts[0]}\n" for p in paths))
    elif form == "tar":
        tar_of_folders(images, tmp_path / "shards", 1)
        source = tmp_path / "shards" / "train-0000.tar"
    prepare(source, tmp_path / "set", replace(SMALL, full=False, val_fraction=None if form != "tar" else 0.2))
    dataset = open_dataset(tmp_path / "set")
    expected = open_dataset(source, val_fraction=0.2 if form == "tar" else None)
    assert [dataset.read(row).tobytes() for row in range(len(dataset))] == [
        expected.read(row).tobytes() for row in range(len(expected))
    ]


def test_images_that_cannot_be_found_any_more(images: Path, tmp_path: Path) -> None:
    """A folder that goes away while copies are made fails the part, which is not noted as done until it is back."""
    data = Path(shutil.copytree(images, tmp_path / "data"))
    settings = CopySettings((64,), max_side=300, quality=90, layout="shards", shard_size=15)
    (part, *_) = divide(open_dataset(data), tmp_path / "set", settings)
    (data / "train" / "bee").rename(tmp_path / "bee")
    with pytest.raises(RunError, match=r"cannot read .*bee/.*: No such file .* run the same command again"):
        write_part(part)
    assert done_before(part) is None
    (tmp_path / "bee").rename(data / "train" / "bee")
    written = write_part(part)
    assert (len(written.copies), written.unreadable) == (15, {})
    assert done_before(part) == written


def test_no_image_can_be_decoded(tmp_path: Path) -> None:
    """That is said in one line, with the first of them."""
    folder = tmp_path / "data" / "val" / "a"
    folder.mkdir(parents=True)
    Image.effect_noise((90, 90), 50).save(folder / "x.jpg")
    (folder / "x.jpg").write_bytes((folder / "x.jpg").read_bytes()[:900])
    with pytest.raises(DataError, match=r"none of the 1 images of .* can be decoded; the first is .*x.jpg: "):
        prepare(tmp_path / "data", tmp_path / "set", SMALL)


@pytest.mark.parametrize(
    ("content", "message"), [("[]", "has version None"), ('{"version": 2}', "has version 2"), ("{", "cannot read")]
)
def test_a_manifest_of_another_version(prepared: Path, tmp_path: Path, content: str, message: str) -> None:
    """It is named, and what to do."""
    target = Path(shutil.copytree(prepared, tmp_path / "set"))
    (target / "prepared.json").write_text(content)
    with pytest.raises(DataError, match=rf"{message}.*; prepare the data set again"):
        open_dataset(target)


def test_damaged_files_in_folders_are_made_again(images: Path, tmp_path: Path) -> None:
    """As with shards: a file with other bytes of the same length is made again."""
    target = tmp_path / "set"
    config = replace(SMALL, layout="folder")
    prepare(images, target, config)
    file = next((target / "64").rglob("*.jpg"))
    content = file.read_bytes()
    file.write_bytes(bytes(len(content)))
    prepare(images, target, config)
    assert file.read_bytes() == content


def test_one_prepare_at_a_time(images: Path, prepared: Path, tmp_path: Path) -> None:
    """A second one for the same folder is refused while the first writes, and touches nothing."""
    target = Path(shutil.copytree(prepared, tmp_path / "set"))
    with (target / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"set is being written by .*; wait for it, or name another folder"):
            prepare(images, target, SMALL)
    assert len(open_dataset(target)) == 60


def test_long_names_of_files(tmp_path: Path) -> None:
    """Deep folders do not make a name that no file system takes, and images stay apart."""
    for last in ("one", "two"):
        folder = tmp_path / "data" / "val" / "a" / ("x" * 150) / ("\u00e4" * 100)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (90, 90)).save(folder / f"{last}.jpg")
    prepare(tmp_path / "data", tmp_path / "set", replace(SMALL, layout="folder"))
    assert len(open_dataset(tmp_path / "set")) == 2


def test_shards_are_a_source_too(images: Path, tmp_path: Path) -> None:
    """A WebDataset set is prepared like a folder."""
    tar_of_folders(images, tmp_path / "shards")
    prepare(tmp_path / "shards", tmp_path / "set", SMALL)
    dataset = open_dataset(tmp_path / "set")
    assert (len(dataset), dataset.num_train, dataset.classes) == (60, 40, ("0", "1", "2", "3"))


def test_unreadable_images_are_listed(images: Path, tmp_path: Path) -> None:
    """Truncated images and other files are named in unreadable.txt and are in no copy."""
    data = Path(shutil.copytree(images, tmp_path / "data"))
    victim = data / "train" / "bee" / "04.jpg"
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    (data / "val" / "ant" / "01.jpg").write_text("no image")
    prepare(data, tmp_path / "set", SMALL)
    listed = (tmp_path / "set" / "unreadable.txt").read_text().splitlines()
    assert sorted(Path(line.partition(": ")[0]).name for line in listed) == ["01.jpg", "04.jpg"]
    dataset = open_dataset(tmp_path / "set")
    assert (len(dataset.rows("train")), len(dataset.rows("val"))) == (39, 19)


def test_odd_images_become_rgb(tmp_path: Path) -> None:
    """Grey, CMYK, transparent and palette images, and one turned by EXIF, are copied as the trainer sees them."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    for mode, suffix in (("L", "jpg"), ("CMYK", "jpg"), ("RGBA", "png"), ("P", "png")):
        folder = tmp_path / "data" / "val" / mode
        folder.mkdir(parents=True)
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels).convert(mode).save(folder / f"x.{suffix}", exif=exif)
    prepare(tmp_path / "data", tmp_path / "set", SMALL)
    dataset = open_dataset(tmp_path / "set")
    for row in range(4):
        with Image.open(BytesIO(dataset.read(row, 1).tobytes())) as image:
            assert (image.mode, image.size) == ("RGB", (192, 128))


def test_copies_are_of_their_images(tmp_path: Path) -> None:
    """Images of one grey each, some of 16 bits, some whose names collide: each row's copies have its own grey."""
    folder = tmp_path / "data" / "val" / "a"
    folder.mkdir(parents=True)
    for number, name in enumerate(("x-1.jpg", "x.jpg", "x.png", "y.jpg", "z16.png", "z.jpg")):
        pixels = np.full((300, 400), 20 + 40 * number, np.uint8)
        Image.fromarray(pixels * np.uint16(256) if "16" in name else pixels).save(folder / name)
    for layout in ("shards", "folder"):
        target = tmp_path / layout
        prepare(tmp_path / "data", target, replace(SMALL, layout=layout))
        dataset = open_dataset(target)
        source = open_dataset(tmp_path / "data")
        for row in range(6):
            with Image.open(source.path(row)) as image:
                grey = np.asarray(image).mean() / (256 if image.mode.startswith("I") else 1)
            for copy in (ORIGINAL, 0, 1):
                with Image.open(BytesIO(dataset.read(row, copy).tobytes())) as image:
                    assert np.asarray(image).mean() == pytest.approx(grey, abs=2)


def test_no_resized_copy_is_larger_than_the_full_copy(tmp_path: Path) -> None:
    """A resized copy of 128 px is left out where the full copy of a wide image is less high than that."""
    (tmp_path / "data" / "val" / "a").mkdir(parents=True)
    Image.new("RGB", (1000, 400)).save(tmp_path / "data" / "val" / "a" / "wide.jpg")
    prepare(tmp_path / "data", tmp_path / "set", SMALL)
    dataset = open_dataset(tmp_path / "set")
    assert (dataset.heights[0], dataset.widths[0]) == (120, 300)
    assert [int(copy.heights[0]) for copy in dataset.copies] == [64, 0]


def test_the_source_may_move(images: Path, prepared: Path, tmp_path: Path) -> None:
    """Where full copies hold everything, the same images at another place are the same source."""
    target = Path(shutil.copytree(prepared, tmp_path / "set"))
    before = digests(target)
    prepare(Path(shutil.copytree(images, tmp_path / "elsewhere")), target, SMALL)
    assert digests(target) == before


def test_classes_that_would_share_a_folder(tmp_path: Path) -> None:
    """Names that differ in what no folder may have go into shards only."""
    for name in ("a.b", "a_b"):
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        Image.new("RGB", (200, 150)).save(tmp_path / "data" / "val" / name / "1.jpg")
    with pytest.raises(ConfigError, match=r"the classes 'a\.b' and 'a_b' would share a folder; use --layout shards"):
        prepare(tmp_path / "data", tmp_path / "set", replace(SMALL, layout="folder"))
    prepare(tmp_path / "data", tmp_path / "set", SMALL)
    assert open_dataset(tmp_path / "set").classes == ("a.b", "a_b")


def test_targets_that_are_refused(images: Path, prepared: Path, tmp_path: Path) -> None:
    """Inside of the source, not empty, or begun with other settings: one line each, and nothing is touched."""
    with pytest.raises(ConfigError, match=r"lies inside of .*; name a place outside"):
        prepare(images, images / "small", SMALL)
    with pytest.raises(ConfigError, match="lies inside of"):
        prepare(images, images, SMALL)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        prepare(images, tmp_path / "letter.txt", SMALL)
    with pytest.raises(ConfigError, match="is not empty; name a new folder"):
        prepare(images, tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    before = digests(prepared)
    with pytest.raises(ConfigError, match=r"was begun with quality = 90"):
        prepare(images, prepared, PrepareConfig(sizes="64,128", max_side=300, shard_size=15, quality=80))
    assert digests(prepared) == before


def test_a_shard_that_is_cut_or_gone_is_named(prepared: Path, tmp_path: Path) -> None:
    """A prepared set whose shards are not what its index says is refused, with the way to mend it."""
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
    ("values", "message"),
    [
        ({"sizes": "256,160"}, "--sizes must be ascending"),
        ({"sizes": "160,160"}, "--sizes must be ascending"),
        ({"sizes": "16"}, "from 32 px"),
        ({"sizes": "160,big"}, "--sizes must be whole numbers"),
        ({"max_side": 384}, "--max-side must be above the largest of --sizes, 384"),
        ({"quality": 96}, "--quality must be from 1 to 95"),
        ({"full": False, "layout": "folder"}, "--no-full needs --layout shards"),
    ],
)
def test_settings_that_are_refused(values: dict[str, Any], message: str) -> None:
    """Each names the flag and the rule."""
    with pytest.raises(ConfigError, match=message):
        PrepareConfig(**values)


def test_verify_and_index_know_the_copies(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy that is broken inside of its shard is found and named; `index` says how many copies there are."""
    target = Path(shutil.copytree(prepared, tmp_path / "set"))
    copies = open_dataset(target).copies[1]
    row = 7
    with (copies.root / copies.shards[copies.shard_of[row]]).open("r+b") as file:
        file.seek(copies.offsets[row])
        file.write(bytes(200))
    monkeypatch.chdir(tmp_path)
    assert verify(target, VerifyConfig(json=tmp_path / "verify.json"))
    found = json.loads((tmp_path / "verify.json").read_text())
    assert found["num_files"] == 180
    assert len(found["unreadable"]) == 1
    assert "its copy of 128 px: not a JPEG" in found["unreadable"][0]
    capsys.readouterr()
    show_index(IndexConfig(data=target))
    assert "copies of 64 px: 60 images" in capsys.readouterr().out


def test_a_run_is_not_resumed_with_other_copies(images: Path, prepared: Path, tmp_path: Path) -> None:
    """The fingerprint of a data set covers its copies; what has changed is said."""
    other = tmp_path / "other"
    prepare(images, other, PrepareConfig(sizes="96,128", max_side=300, shard_size=15))
    common: dict[str, Any] = {"model": "timm/test_resnet", "train_res": "32", "batch_size": 8, "out": tmp_path / "run"}
    train(TrainConfig(data=prepared, epochs=1, **common))
    with pytest.raises(CheckpointError, match=r"has changed since .* \(its resized copies are others\)"):
        train(TrainConfig(data=other, epochs=2, resume=True, **common))


def test_a_prepared_set_keeps_its_split(prepared: Path) -> None:
    """--val-fraction on data that were split when they were prepared is refused, not passed over."""
    with pytest.raises(DataError, match="has its own split; leave --val-fraction out"):
        open_dataset(prepared, val_fraction=0.2)
    assert len(open_dataset(prepared, val_fraction=1.0)) == 60
