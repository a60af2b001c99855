"""The graph against PIL and torchvision, which share no code with DALI's resize."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawing import natural_image
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional

from bench.reference import torchvision_test_image
from pipelines import Loader
from pipelines.dali.choose_decoder import Decoder
from pipelines.dataset import Dataset, open_dataset
from pipelines.plan import AUGMENTATIONS, EvalPlan, TrainPlan, views_of
from pipelines.plan.augmentation import UNIFORMS_PER_SAMPLE, plan_batch
from pipelines.plan.batch_plan import BatchPlan
from pipelines.plan.colour import IMAGENET, Normalisation, jitter_and_normalise
from pipelines.resolution import Resolution, Schedule

PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def run(dataset: Dataset, plans: list[BatchPlan], normalisation: Normalisation = PLAIN) -> list[NDArray[np.float32]]:
    """Return each plan's images on the 0-255 scale, (n, h, w, 3)."""
    with Loader(dataset, max_batch_size=max(map(len, plans)), normalisation=normalisation) as loader:
        return [255 * batch.images.permute(0, 2, 3, 1).numpy() for batch in loader.run(plans)]


@pytest.mark.parametrize("side", [96, 128, 224, 320])
def test_test_images_agree_with_torchvision(dataset: Dataset, side: int) -> None:
    """Test images differ from torchvision's on PIL by at most 1 of 255, and by at most 0.2 on average."""
    resolution = Resolution(side)
    (images,) = run(dataset, list(EvalPlan(dataset, batch_size=20).batches(resolution)))
    rows = EvalPlan(dataset, batch_size=20).rows
    expected = np.stack([torchvision_test_image(dataset.path(row), resolution) for row in rows])
    difference = np.abs(images - expected)
    assert difference.mean() <= 0.2
    assert difference.max() <= 1.001


def test_full_crop_boxes_agree_away_from_the_border(dataset: Dataset) -> None:
    """With a crop ratio of 1 the crop box touches the border; two pixels inside, the bound of 1 holds again."""
    resolution = Resolution(128, crop_ratio=1.0)
    (images,) = run(dataset, list(EvalPlan(dataset, batch_size=20).batches(resolution)))
    rows = EvalPlan(dataset, batch_size=20).rows
    expected = np.stack([torchvision_test_image(dataset.path(row), resolution) for row in rows])
    difference = np.abs(images - expected)
    assert difference[:, 2:-2, 2:-2].max() <= 1.001
    assert difference.mean() <= 0.2


def test_ten_crops_agree_with_torchvision(dataset: Dataset) -> None:
    """The ten views are torchvision's five_crop of the resized image, and these mirrored."""
    resolution, rows = Resolution(96), EvalPlan(dataset, batch_size=20).rows[:6]
    views = [
        plan_batch(dataset, rows, view, resolution, np.zeros((6, UNIFORMS_PER_SAMPLE))) for view in views_of("ten-crop")
    ]
    images = np.stack(run(dataset, views), axis=1)
    for row, ours in zip(rows, images, strict=True):
        with Image.open(dataset.path(row)) as image:
            resized = functional.resize(image.convert("RGB"), [resolution.resize_px])
            crops = [np.asarray(crop).astype(np.float32) for crop in functional.five_crop(resized, [96])]
        difference = np.abs(ours - np.stack([*crops, *(crop[:, ::-1] for crop in crops)]))
        assert difference[:, 2:-2, 2:-2].max() <= 1.001  # corners touch the border, where filters end otherwise
        assert difference.mean() <= 0.3


@pytest.mark.parametrize("side", [64, 128, 256])
def test_training_crops_agree_with_pil(dataset: Dataset, side: int) -> None:
    """Training crops are PIL's resize of the same box of the whole image, mirrored where the plan says so."""
    plan = TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse(str(side)), batch_size=40).at(0, 0)
    assert 5 < plan.flip.sum() < 35
    plain = replace(plan, jitter=None)
    (images,) = run(dataset, [plain])
    for ours, row, box, flip in zip(images, plan.ids, plan.crop_boxes, plan.flip, strict=True):
        y0, x0, y1, x1 = box
        with Image.open(dataset.path(row)) as image:
            resized = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1))
        expected = np.asarray(resized).astype(np.float32)[:, :: -1 if flip else 1]
        difference = np.abs(ours - expected)
        assert difference[2:-2, 2:-2].max() <= 1.001
        assert difference.mean() <= 0.4


def test_normalisation_takes_off_mean_and_std(dataset: Dataset) -> None:
    """The graph's output is (x / 255 - mean) / std, channel by channel."""
    plans = list(EvalPlan(dataset, batch_size=20).batches(Resolution(64)))
    (plain,) = run(dataset, plans)
    (normalised,) = run(dataset, plans, IMAGENET)
    expected = (plain / 255 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    np.testing.assert_allclose(normalised / 255, expected, atol=1e-5)


def test_jitter_is_the_planned_affine_map(dataset: Dataset) -> None:
    """A jittered batch is the plain one put through the colour maps of its plan."""
    plan = TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse("64"), batch_size=40).at(0, 0)
    assert plan.jitter is not None
    (plain,) = run(dataset, [replace(plan, jitter=None)])
    (jittered,) = run(dataset, [plan], IMAGENET)
    maps = jitter_and_normalise(plan.jitter, IMAGENET)
    expected = np.einsum("nij,nhwj->nhwi", maps[:, :, :3], plain) + maps[:, None, None, :, 3]
    np.testing.assert_allclose(jittered / 255, expected, atol=2e-4)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.png", "RGB"), ("b.png", "L"), ("c.bmp", "RGB"), ("d.tiff", "RGB"), ("e.ppm", "RGB"), ("f.jpg", "L"),
     ("g.jpg", "CMYK"), ("h.webp", "RGB")],
)  # fmt: skip
def test_formats_are_read_as_pil_reads_them(tmp_path: Path, name: str, mode: str) -> None:
    """Every supported format and colour mode gives PIL's RGB image."""
    folder = tmp_path / "data" / "thing"
    folder.mkdir(parents=True)
    image = natural_image(np.random.default_rng(3), 240, 300).convert(mode)
    image.save(folder / name, lossless=True)
    dataset = open_dataset(tmp_path / "data", val_fraction=1.0)
    resolution = Resolution(96)
    (images,) = run(dataset, list(EvalPlan(dataset, batch_size=1).batches(resolution)))
    expected = torchvision_test_image(dataset.path(0), resolution)
    assert np.abs(images[0] - expected).max() <= (3 if mode == "CMYK" else 1.001)


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    """An image marked as rotated is read as stored, as PIL and ImageFolder do."""
    folder = tmp_path / "data" / "thing"
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    natural_image(np.random.default_rng(5), 200, 320).save(folder / "a.jpg", exif=exif, quality=95)
    dataset = open_dataset(tmp_path / "data", val_fraction=1.0)
    (images,) = run(dataset, list(EvalPlan(dataset, batch_size=1).batches(Resolution(96))))
    assert np.abs(images[0] - torchvision_test_image(dataset.path(0), Resolution(96))).max() <= 1.001


@pytest.mark.gpu
@pytest.mark.parametrize(("decode", "most"), [("gpu", 1.0), ("cpu", 0.5)])
@pytest.mark.parametrize("side", [128, 224, 320])
def test_gpu_images_agree_with_cpu_images(dataset: Dataset, side: int, decode: Decoder, most: float) -> None:
    """The same plans on CPU and GPU give images that differ little on average, in float16 channels-last.

    Decoded by the GPU, by another decoder, they are within 1 of 255; decoded by CPU threads, within rounding.
    """
    training = TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse(str(side)), batch_size=20).epoch(0)
    plans = [*EvalPlan(dataset, batch_size=20).batches(Resolution(side)), *training]
    with Loader(dataset, max_batch_size=20, device="cuda", normalisation=PLAIN, decode=decode) as loader:
        for expected, batch in zip(run(dataset, plans), loader.run(plans), strict=True):
            assert batch.images.dtype == torch.float16
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
            found = 255 * batch.images.float().permute(0, 2, 3, 1).cpu().numpy()
            assert np.abs(found - expected).mean(axis=(1, 2, 3)).max() <= most
