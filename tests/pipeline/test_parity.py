"""The graph against PIL and torchvision, which share no code with DALI's resize."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
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
from pipelines.errors import ConfigError
from pipelines.loader import Resize
from pipelines.plan import AUGMENTATIONS, EvalPlan, TrainPlan, views_of
from pipelines.plan.augmentation import UNIFORMS_PER_SAMPLE, plan_batch
from pipelines.plan.batch_plan import BatchPlan
from pipelines.plan.colour import IMAGENET, Normalisation, jitter_and_normalise
from pipelines.plan.interpolation import INTERPOLATIONS, Interpolation, TrainInterpolation
from pipelines.plan.operations import NUM_SLOTS, Operation, Operations
from pipelines.resolution import DEFAULT_CROP_RATIO, Resolution, Schedule

PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def run(
    dataset: Dataset, plans: list[BatchPlan], normalisation: Normalisation = PLAIN, resize: Resize = "fused"
) -> list[NDArray[np.float32]]:
    """Return each plan's images on the 0-255 scale, (n, h, w, 3)."""
    with Loader(dataset, max_batch_size=max(map(len, plans)), normalisation=normalisation, resize=resize) as loader:
        return [255 * batch.images.permute(0, 2, 3, 1).numpy() for batch in loader.run(plans)]


@pytest.mark.parametrize("ratio", [DEFAULT_CROP_RATIO, 1.0])
@pytest.mark.parametrize("side", [96, 128, 224, 320])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_test_images_are_torchvisions(dataset: Dataset, interpolation: Interpolation, side: int, ratio: float) -> None:
    """Test images on a CPU are torchvision's on PIL, byte for byte, the border included."""
    resolution = Resolution(side, ratio)
    plan = EvalPlan(dataset, batch_size=20, augmentation=replace(AUGMENTATIONS["v1"], interpolation=interpolation))
    (images,) = run(dataset, list(plan.batches(resolution)))
    expected = [torchvision_test_image(dataset.path(row), resolution, interpolation) for row in plan.rows]
    np.testing.assert_allclose(images, np.stack(expected), atol=1e-4)


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="Pillow before 13 has one order for all images")
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_tall_images_are_torchvisions(tmp_path: Path, interpolation: Interpolation) -> None:
    """Pillow resizes tall images down their columns first, which rounds otherwise; so does the operator."""
    folder = tmp_path / "data" / "thing"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number, (height, width) in enumerate([(1200, 300), (700, 350), (600, 350), (350, 700), (1000, 120)]):
        pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    dataset = open_dataset(tmp_path / "data", val_fraction=1.0)
    plan = EvalPlan(dataset, batch_size=5, augmentation=replace(AUGMENTATIONS["v1"], interpolation=interpolation))
    for side in (96, 224):
        (images,) = run(dataset, list(plan.batches(Resolution(side))))
        expected = [torchvision_test_image(dataset.path(row), Resolution(side), interpolation) for row in plan.rows]
        np.testing.assert_allclose(images, np.stack(expected), atol=1e-4)


def test_boxes_outside_of_an_image_are_refused(dataset: Dataset) -> None:
    """A plan of somebody's own with such a box is refused with the image and the box."""
    (plan,) = EvalPlan(dataset, batch_size=20).batches(Resolution(64))
    plan.crop_boxes[3] += 1000
    with (
        Loader(dataset, max_batch_size=20) as loader,
        pytest.raises(ConfigError, match=r"must lie inside its image; .*\.jpg has \["),
    ):
        next(loader.run([plan]))


@pytest.mark.parametrize("side", [96, 128, 224, 320])
def test_dalis_operators_agree_away_from_the_border(dataset: Dataset, side: int) -> None:
    """Where nothing is compiled, test images differ by at most 1 of 255, and by at most 0.2 on average."""
    for resolution in (Resolution(side), Resolution(side, crop_ratio=1.0)):
        plan = EvalPlan(dataset, batch_size=20)
        (images,) = run(dataset, list(plan.batches(resolution)), resize="dali")
        expected = np.stack([torchvision_test_image(dataset.path(row), resolution) for row in plan.rows])
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
        np.testing.assert_allclose(ours, np.stack([*crops, *(crop[:, ::-1] for crop in crops)]), atol=1e-4)


def pil_crops(dataset: Dataset, plan: BatchPlan) -> NDArray[np.float32]:
    """Return PIL's resize of a plan's boxes of whole images, mirrored where it says so, (n, side, side, 3)."""
    crops, side = [], plan.resolution.crop_px
    for number, row in enumerate(plan.ids):
        y0, x0, y1, x1 = plan.crop_boxes[number]
        filter_ = Image.Resampling[INTERPOLATIONS[plan.interpolation[number]].upper()]
        with Image.open(dataset.path(row)) as image:
            crop = np.asarray(image.convert("RGB").resize((side, side), filter_, box=(x0, y0, x1, y1)))
        crops.append(crop[:: -1 if plan.flip_vertical[number] else 1, :: -1 if plan.flip[number] else 1])
    return np.stack(crops).astype(np.float32)


@pytest.mark.parametrize("side", [64, 128, 256])
@pytest.mark.parametrize(
    ("interpolation", "most_mean", "most_beyond_1"),
    [("bilinear", 0.3, 0.0), ("bicubic", 0.3, 1e-3), ("random", 0.3, 1e-3)],
)
def test_training_crops_agree_with_pil(
    dataset: Dataset, side: int, interpolation: TrainInterpolation, most_mean: float, most_beyond_1: float
) -> None:
    """Training crops differ from PIL's by at most 1 of 255, the border included.

    Bicubic ones also by more, in 0.1 % of the values: PIL clips after each of its two passes, the operator once.
    """
    augmentation = replace(AUGMENTATIONS["train"], jitter=0.0, interpolation=interpolation, flip_vertical=0.5)
    plan = TrainPlan(dataset, augmentation, Schedule.parse(str(side)), batch_size=40).at(0, 0)
    assert 5 < plan.flip.sum() < 35
    assert 5 < plan.flip_vertical.sum() < 35
    (images,) = run(dataset, [plan])
    difference = np.abs(images - pil_crops(dataset, plan))
    assert difference.mean() <= most_mean
    assert (difference > 1.001).mean() <= most_beyond_1


def test_random_interpolation_is_drawn_for_each_image(dataset: Dataset) -> None:
    """About half of the images are resized bilinearly and the others bicubically, whatever the batch."""
    augmentation = replace(AUGMENTATIONS["train"], interpolation="random")
    plan = TrainPlan(dataset, augmentation, Schedule.parse("64"), batch_size=40)
    drawn = plan.at(0, 0).interpolation
    assert set(drawn) == {0, 1}
    assert 10 < drawn.sum() < 30
    half = replace(plan, batch_size=20)
    assert [*half.at(0, 0).interpolation, *half.at(0, 1).interpolation] == drawn.tolist()


def varied_plans(dataset: Dataset, side: int) -> list[BatchPlan]:
    """Return plans of tests and of trainings: filters, both mirrors, jitter, operations, boxes to erase."""
    tests = EvalPlan(dataset, batch_size=20).batches(Resolution(side))
    varied = replace(AUGMENTATIONS["train"], interpolation="random", flip_vertical=0.5)
    schedule = Schedule.parse(str(side))
    plain, jittered = (
        TrainPlan(dataset, augmentation, schedule, batch_size=20).at(0, 0)
        for augmentation in (replace(varied, jitter=0.0), varied)
    )
    erased = np.tile(np.array([[3, 5, 20, 40]], np.int32), (20, 1, 1))
    numbers = np.full((20, NUM_SLOTS), Operation.SOLARIZE, np.int32)
    operations = Operations(numbers, np.full((20, NUM_SLOTS), 255, np.float32))
    return [*tests, plain, jittered, replace(jittered, erased=erased), replace(jittered, operations=operations)]


@pytest.mark.parametrize("side", [128, 224, 320])
def test_dalis_operators_agree_with_the_compiled_one(dataset: Dataset, side: int) -> None:
    """The same plans give images that differ by at most 0.6 of 255 on average, of any image."""
    plans = varied_plans(dataset, side)
    for ours, dalis in zip(run(dataset, plans), run(dataset, plans, resize="dali"), strict=True):
        assert np.abs(ours - dalis).mean(axis=(1, 2, 3)).max() <= 0.6


@pytest.mark.parametrize("resize", ["fused", "dali"])
def test_images_in_bytes(dataset: Dataset, resize: Resize) -> None:
    """Without normalisation a loader gives bytes: those that a normalised image would be made of."""
    plans = list(EvalPlan(dataset, batch_size=20).batches(Resolution(64)))
    with Loader(dataset, max_batch_size=20, normalisation=None, resize=resize) as loader:
        (batch,) = loader.run(plans)
        assert batch.images.dtype == torch.uint8
        found = batch.images.permute(0, 2, 3, 1).numpy()
    (expected,) = run(dataset, plans, resize=resize)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("resize", ["fused", "dali"])
def test_erased_boxes_have_the_mean_colour(dataset: Dataset, resize: Resize) -> None:
    """Planned boxes of the crop are 0 after normalisation, and nothing else changes."""
    (plan,) = EvalPlan(dataset, batch_size=20).batches(Resolution(64))
    boxes = np.tile(np.array([[3, 5, 20, 40], [30, 0, 64, 10]], np.int32), (20, 1, 1))
    boxes[0] = 0
    (plain,), (erased,) = (run(dataset, [one], IMAGENET, resize) for one in (plan, replace(plan, erased=boxes)))
    for y0, x0, y1, x1 in boxes[1]:
        plain[1:, y0:y1, x0:x1] = 0
    np.testing.assert_array_equal(erased, plain)


@pytest.mark.parametrize("resize", ["fused", "dali"])
def test_operations_are_done_to_bytes_before_the_colours(dataset: Dataset, resize: Resize) -> None:
    """Each image gets the operations of its own slots, with their magnitudes; then it is jittered and erased."""
    plan = TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse("64"), batch_size=40).at(0, 0)
    numbers, magnitudes = np.zeros((40, NUM_SLOTS), np.int32), np.zeros((40, NUM_SLOTS), np.float32)
    numbers[:20, 0], magnitudes[:20, 0] = Operation.SOLARIZE, np.arange(20) * 10
    numbers[10:30, 1], magnitudes[10:30, 1] = Operation.SOLARIZE, 128
    erased = np.tile(np.array([[3, 5, 20, 40]], np.int32), (40, 1, 1))
    planned = replace(plan, operations=Operations(numbers, magnitudes), erased=erased)
    (found,) = run(dataset, [planned], IMAGENET, resize)
    with Loader(dataset, max_batch_size=40, normalisation=None, resize=resize) as loader:
        (batch,) = loader.run([plan])
        expected = batch.images.permute(0, 2, 3, 1).numpy().astype(np.float32)
    for slot in range(NUM_SLOTS):
        above = (numbers[:, slot] == Operation.SOLARIZE)[:, None, None, None]
        above = above & (expected >= magnitudes[:, slot, None, None, None])
        expected = np.where(above, 255 - expected, expected)
    assert plan.jitter is not None
    maps = jitter_and_normalise(plan.jitter, IMAGENET)
    expected = np.einsum("nij,nhwj->nhwi", maps[:, :, :3], expected) + maps[:, None, None, :, 3]
    expected[:, 3:20, 5:40] = 0
    np.testing.assert_allclose(found / 255, expected, atol=2e-4)


def test_images_do_not_depend_on_threads(dataset: Dataset) -> None:
    """Any number of threads makes the same images, bit for bit, run after run."""
    plan = TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse("96"), batch_size=40).at(0, 0)
    found = []
    for threads in (1, 3, 3):
        with Loader(dataset, max_batch_size=40, num_threads=threads) as loader:
            (batch,) = loader.run([plan])
            found.append(batch.images.clone())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


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
    assert np.abs(images[0] - expected).max() <= (3 if mode == "CMYK" else 1e-4)


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    """An image marked as rotated is read as stored, as PIL and ImageFolder do."""
    folder = tmp_path / "data" / "thing"
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    natural_image(np.random.default_rng(5), 200, 320).save(folder / "a.jpg", exif=exif, quality=95)
    dataset = open_dataset(tmp_path / "data", val_fraction=1.0)
    (images,) = run(dataset, list(EvalPlan(dataset, batch_size=1).batches(Resolution(96))))
    assert np.abs(images[0] - torchvision_test_image(dataset.path(0), Resolution(96))).max() <= 1e-4


@pytest.mark.gpu
@pytest.mark.parametrize(("decode", "most"), [("gpu", 1.2), ("cpu", 0.7)])
@pytest.mark.parametrize("side", [128, 224, 320])
def test_gpu_images_agree_with_cpu_images(dataset: Dataset, side: int, decode: Decoder, most: float) -> None:
    """The same plans on CPU and GPU give images that differ little on average, in float16 channels-last.

    Decoded by the GPU, by another decoder, they are within 1.2 of 255; decoded by CPU threads, within 0.7.
    """
    plans = varied_plans(dataset, side)
    with Loader(dataset, max_batch_size=20, device="cuda", normalisation=PLAIN, decode=decode) as loader:
        for expected, batch in zip(run(dataset, plans), loader.run(plans), strict=True):
            assert batch.images.dtype == torch.float16
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
            found = 255 * batch.images.float().permute(0, 2, 3, 1).cpu().numpy()
            assert np.abs(found - expected).mean(axis=(1, 2, 3)).max() <= most
