"""Resized copies: what is in them, how they are stored, and that other readers take them."""

import gc
import json
import shutil
import subprocess
import sys
import tarfile
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
from preparing import SMALL, prepare_copies
from tars import tar_of_folders

from pipelines import Loader
from pipelines.dataset import ORIGINAL, open_dataset
from pipelines.errors import DataError
from pipelines.plan import AUGMENTATIONS, EvalPlan, TrainPlan
from pipelines.plan.copies import Copies
from pipelines.resolution import Resolution, Schedule


def test_every_image_is_there_at_every_size(images: Path, prepared: Path) -> None:
    """Splits, classes and labels are the source's; resized copies have their shorter side, full ones at most 300 px."""
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
    """Each sample is a jpg, its class's number and a json with its name; DALI's reader takes shard and .idx."""
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
    """Test images from copies are like those from the images themselves, and read from smaller files."""
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


def test_folders_instead_of_shards(images: Path, prepared: Path, tmp_path: Path) -> None:
    """--layout folder writes class folders that are data sets of their own, and gives the batches of shards."""
    target = tmp_path / "set"
    prepare_copies(images, target, replace(SMALL, layout="folder"), num_processes=1)
    assert len(open_dataset(target / "64")) == 60
    one, other = open_dataset(target), open_dataset(prepared)
    names = [{dataset.read(row, 0).tobytes() for row in range(60)} for dataset in (one, other)]
    assert names[0] == names[1]
    with Loader(one, max_batch_size=20) as loader:
        assert len(list(loader.run(EvalPlan(one, batch_size=20).batches(Resolution(64))))) == 1


def test_resized_copies_beside_images_that_stay(few_images: Path, tmp_path: Path) -> None:
    """--no-full writes resized copies alone; crops that need more are read from the source."""
    target = tmp_path / "set"
    prepare_copies(few_images, target, replace(SMALL, max_side=None), num_processes=1)
    assert not (target / "full").exists()
    source, dataset = open_dataset(few_images), open_dataset(target)
    assert all(dataset.read(row).tobytes() == source.read(row).tobytes() for row in range(16))
    (plan,) = EvalPlan(dataset, batch_size=20).batches(Resolution(160))
    assert set(plan.copy_ids.tolist()) == {ORIGINAL}
    with Loader(dataset, max_batch_size=20) as loader:
        (batch,) = loader.run([plan])
    (plan,) = EvalPlan(source, batch_size=20).batches(Resolution(160))
    with Loader(source, max_batch_size=20) as loader:
        (expected,) = loader.run([plan])
    assert torch.equal(batch.images, expected.images)


@pytest.mark.parametrize("layout", ["table", "tar", "prepared"])
def test_resized_copies_beside_images_of_any_layout(
    few_images: Path, prepared: Path, tmp_path: Path, layout: str
) -> None:
    """--no-full finds the images of a table, of one shard and of a prepared set where they are."""
    source = prepared
    if layout == "table":
        paths = sorted(path.relative_to(few_images) for path in few_images.rglob("*.jpg"))
        shutil.copytree(few_images, tmp_path / "data")
        source = tmp_path / "data" / "list.csv"
        source.write_text("path,label,split\n" + "".join(f"{p},{p.parts[1]},{p.parts[0]}\n" for p in paths))
    elif layout == "tar":
        tar_of_folders(few_images, tmp_path / "shards", 1)
        source = tmp_path / "shards" / "train-0000.tar"
    prepare_copies(
        source,
        tmp_path / "set",
        replace(SMALL, max_side=None),
        val_fraction=0.2 if layout == "tar" else None,
        num_processes=1,
    )
    dataset = open_dataset(tmp_path / "set")
    expected = open_dataset(source, val_fraction=0.2 if layout == "tar" else None)
    assert [dataset.read(row).tobytes() for row in range(len(dataset))] == [
        expected.read(row).tobytes() for row in range(len(expected))
    ]


def test_shards_are_a_source_too(few_images: Path, tmp_path: Path) -> None:
    """A WebDataset set is prepared like a folder."""
    tar_of_folders(few_images, tmp_path / "shards")
    prepare_copies(tmp_path / "shards", tmp_path / "set", SMALL, num_processes=1)
    dataset = open_dataset(tmp_path / "set")
    assert (len(dataset), dataset.num_train, dataset.classes) == (16, 8, ("0", "1", "2", "3"))


def test_resized_copies_keep_colour_at_every_pixel(tmp_path: Path) -> None:
    """Colours that change from pixel to pixel of a copy are those of the image scaled down, not of pairs of it."""
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, np.arange(256) % 12 < 6] = (200, 60, 60)
    stripes[:, np.arange(256) % 12 >= 6] = (60, 60, 200)
    (tmp_path / "data" / "val" / "a").mkdir(parents=True)
    image = Image.fromarray(stripes)
    image.save(tmp_path / "data" / "val" / "a" / "x.png")
    prepare_copies(tmp_path / "data", tmp_path / "set", replace(SMALL, sides=(64,), max_side=256))
    scaled = np.asarray(image.resize((64, 64), Image.Resampling.LANCZOS), float)
    with Image.open(BytesIO(open_dataset(tmp_path / "set").read(0, 0).tobytes())) as image:
        assert np.abs(np.asarray(image, float) - scaled).mean() < 5


def test_odd_images_become_rgb(tmp_path: Path) -> None:
    """Grey, CMYK, transparent and palette images, and one turned by EXIF, are copied as they are trained on."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    for mode, suffix in (("L", "jpg"), ("CMYK", "jpg"), ("RGBA", "png"), ("P", "png")):
        folder = tmp_path / "data" / "val" / mode
        folder.mkdir(parents=True)
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels).convert(mode).save(folder / f"x.{suffix}", exif=exif)
    prepare_copies(tmp_path / "data", tmp_path / "set", SMALL, num_processes=1)
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
        prepare_copies(tmp_path / "data", target, replace(SMALL, layout=layout), num_processes=1)
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
    prepare_copies(tmp_path / "data", tmp_path / "set", SMALL, num_processes=1)
    dataset = open_dataset(tmp_path / "set")
    assert (dataset.heights[0], dataset.widths[0]) == (120, 300)
    assert [int(copy.heights[0]) for copy in dataset.copies] == [64, 0]


def test_long_names_of_files(tmp_path: Path) -> None:
    """Deep folders do not make a name that no file system takes, and images stay apart."""
    for last in ("one", "two"):
        folder = tmp_path / "data" / "val" / "a" / ("x" * 150) / ("\u00e4" * 100)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (90, 90)).save(folder / f"{last}.jpg")
    prepare_copies(tmp_path / "data", tmp_path / "set", replace(SMALL, layout="folder"), num_processes=1)
    assert len(open_dataset(tmp_path / "set")) == 2


def test_unreadable_images_are_listed(few_images: Path, tmp_path: Path) -> None:
    """Truncated images and other files are named in unreadable.txt and are in no copy."""
    data = Path(shutil.copytree(few_images, tmp_path / "data"))
    victim = data / "train" / "bee" / "00.jpg"
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    (data / "val" / "ant" / "01.jpg").write_text("no image")
    prepare_copies(data, tmp_path / "set", SMALL, num_processes=1)
    listed = (tmp_path / "set" / "unreadable.txt").read_text().splitlines()
    assert sorted(Path(line.partition(": ")[0]).name for line in listed) == ["00.jpg", "01.jpg"]
    dataset = open_dataset(tmp_path / "set")
    assert (len(dataset.rows("train")), len(dataset.rows("val"))) == (7, 7)


def test_no_image_can_be_decoded(tmp_path: Path) -> None:
    """One line names the first of them."""
    folder = tmp_path / "data" / "val" / "a"
    folder.mkdir(parents=True)
    Image.effect_noise((90, 90), 50).save(folder / "x.jpg")
    (folder / "x.jpg").write_bytes((folder / "x.jpg").read_bytes()[:900])
    with pytest.raises(DataError, match=r"none of the 1 images of .* can be decoded; the first is .*x.jpg: "):
        prepare_copies(tmp_path / "data", tmp_path / "set", SMALL, num_processes=1)


def test_a_prepared_set_keeps_its_split(prepared: Path) -> None:
    """`val_fraction` on data that were split when they were prepared is refused, not ignored."""
    with pytest.raises(DataError, match="has its own split; leave `val_fraction` out"):
        open_dataset(prepared, val_fraction=0.2)
    assert len(open_dataset(prepared, val_fraction=1.0)) == 60


def test_processes_that_encode_load_neither_torch_nor_dali() -> None:
    """They start in a fraction of a second, and take little memory."""
    code = "import sys, pipelines.prepare; print({'torch', 'nvidia', 'dali_fixres'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
