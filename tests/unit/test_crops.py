from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as tv

from pipelines.plan.crops import (
    NUM_UNIFORMS,
    CropFunction,
    centre_crop,
    random_resized_crop,
    shifted_crop,
)
from pipelines.resolution import Resolution

Floats = NDArray[np.float64]

NUM_DRAWS = 20_000
NUM_REFERENCE_DRAWS = 6000
"""Fewer, as torchvision draws crop boxes one by one, 10,000 a second."""
KS_LIMIT = 1.95 * (1 / NUM_DRAWS + 1 / NUM_REFERENCE_DRAWS) ** 0.5
"""Two samples of these sizes from one distribution differ by more once in 1000 seeds; the seeds are fixed."""

ANY_RESOLUTION = Resolution(128)
SIDES = st.integers(1, 6000)
UNITS = st.floats(0, 1, exclude_max=True, width=32)


def _ours(height: int, width: int, num_draws: int = NUM_DRAWS) -> Floats:
    """Draw crop boxes of one image."""
    uniforms = np.random.default_rng(7).random((num_draws, NUM_UNIFORMS))
    sizes = (np.full(num_draws, height), np.full(num_draws, width))
    return random_resized_crop(*sizes, ANY_RESOLUTION, uniforms)


def _torchvisions(height: int, width: int, num_draws: int = NUM_REFERENCE_DRAWS) -> Floats:
    """Draw crop boxes of one image with torchvision, as (y0, x0, y1, x1)."""
    image = torch.empty(1, 1, 1).expand(3, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        drawn = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(num_draws)]
    y, x, h, w = np.array(drawn, dtype=np.float64).T
    return np.stack([y, x, y + h, x + w], axis=1)


def _statistics(crop_boxes: Floats, height: int, width: int) -> dict[str, Floats]:
    """Return what crop boxes are compared by: area share, aspect, and where the crop box lies within its slack."""
    y0, x0, y1, x1 = crop_boxes.T
    return {
        "area share": (y1 - y0) * (x1 - x0) / (height * width),
        "aspect": np.round((x1 - x0) / (y1 - y0), 9),
        "top": y0 / height,
        "left": x0 / width,
        "centre": (x0 + x1) / 2 / width,
    }


def _ks_distance(one: Floats, other: Floats) -> float:
    """Return the Kolmogorov-Smirnov statistic of two samples: the largest gap of their distribution functions."""
    values = np.union1d(one, other)
    gaps = np.searchsorted(np.sort(one), values, side="right") / len(one)
    gaps = gaps - np.searchsorted(np.sort(other), values, side="right") / len(other)
    return float(np.abs(gaps).max())


def test_the_ks_distance_separates_distributions() -> None:
    """The measure itself: below its limit for one distribution, above it for two that differ by 5 %."""
    rng = np.random.default_rng(0)
    one, same, other = rng.random(NUM_DRAWS), rng.random(NUM_DRAWS), 1.05 * rng.random(NUM_DRAWS)
    assert _ks_distance(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 1.0, 1.0])) == 0.25
    assert _ks_distance(one, same[:NUM_REFERENCE_DRAWS]) < KS_LIMIT < _ks_distance(one, other[:NUM_REFERENCE_DRAWS])


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (200, 520)])
def test_training_crop_boxes_are_distributed_as_torchvisions(height: int, width: int) -> None:
    """Area, aspect and place follow torchvision's RandomResizedCrop, also where many tries fail (200 by 520)."""
    ours = _statistics(_ours(height, width), height, width)
    reference = _statistics(_torchvisions(height, width), height, width)
    distances = {name: _ks_distance(ours[name], reference[name]) for name in ours}
    assert max(distances.values()) < KS_LIMIT, distances
    for name in ("area share", "aspect"):
        # Rounding to whole pixels moves a crop box's area and aspect by up to 2 %.
        assert ours[name].min() == pytest.approx(reference[name].min(), rel=0.02)
        assert ours[name].max() == pytest.approx(reference[name].max(), rel=0.02)


@pytest.mark.parametrize(("height", "width"), [(100, 900), (700, 80)])
def test_training_crop_boxes_fall_back_as_often_as_torchvisions(height: int, width: int) -> None:
    """At an extreme shape the share of fallbacks is torchvision's, and they are the same crop box."""
    fallback = _torchvision_fallback(height, width)
    ours, reference = _ours(height, width), _torchvisions(height, width)
    our_share = (ours == fallback).all(axis=1).mean()
    reference_share = (reference == fallback).all(axis=1).mean()
    # Neither rare nor the rule, so that the shares say something.
    assert 0.05 < reference_share < 0.95
    assert abs(our_share - reference_share) < KS_LIMIT
    ours_drawn = _statistics(ours, height, width)
    reference_drawn = _statistics(reference, height, width)
    distances = {name: _ks_distance(ours_drawn[name], reference_drawn[name]) for name in ours_drawn}
    assert max(distances.values()) < KS_LIMIT, distances


def _torchvision_fallback(height: int, width: int) -> list[int]:
    """Return torchvision's own fallback: what it does when asked for areas larger than the image."""
    y, x, h, w = RandomResizedCrop.get_params(torch.empty(1, height, width), [2.0, 2.0], [3 / 4, 4 / 3])
    return [y, x, y + h, x + w]


@pytest.mark.parametrize(
    ("height", "width"), [(100, 900), (900, 100), (101, 777), (777, 101), (10, 11), (1, 50), (50, 1), (1, 1), (3, 4000)]
)
def test_fallback_is_torchvisions(height: int, width: int) -> None:
    """If no try fits, the crop box is torchvision's centre crop of a limited aspect."""
    # The whole area at an aspect of 4:3 fits none of these images but the single pixel, which is its own fallback.
    uniforms = np.full((1, NUM_UNIFORMS), np.nextafter(1, 0))
    crop = random_resized_crop(np.array([height]), np.array([width]), ANY_RESOLUTION, uniforms)
    assert crop.tolist() == [_torchvision_fallback(height, width)]


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(100, 900, [0, 383, 100, 516]), (900, 100, [383, 0, 516, 100]), (100, 120, [0, 0, 100, 120])],
)
def test_fallback_literals(height: int, width: int, expected: list[int]) -> None:
    """The fallback by hand: 4:3 of the shorter side, centred, or the whole image."""
    uniforms = np.full((1, NUM_UNIFORMS), np.nextafter(1, 0))
    crop = random_resized_crop(np.array([height]), np.array([width]), ANY_RESOLUTION, uniforms)
    assert crop.tolist() == [expected]


def test_training_crop_box_by_hand() -> None:
    """Uniforms of one half take area 0.54 at aspect 1, in the middle of the slack."""
    uniforms = np.full((1, NUM_UNIFORMS), 0.5)
    crop = random_resized_crop(np.array([100]), np.array([200]), ANY_RESOLUTION, uniforms)
    # sqrt(0.54 * 20000) = 103.9 does not fit into 100 rows: the fallback, 133 columns.
    assert crop.tolist() == [[0, 33, 100, 166]]
    uniforms[0, 1] = 0.25  # the second try's area: 0.08 + 0.92 / 4 = 0.31, a side of 78.7
    crop = random_resized_crop(np.array([100]), np.array([200]), ANY_RESOLUTION, uniforms)
    assert crop.tolist() == [[11, 61, 90, 140]]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(SIDES, SIDES, st.lists(UNITS, min_size=NUM_UNIFORMS, max_size=NUM_UNIFORMS))
def test_training_crop_boxes_are_whole_pixels_inside_the_image(height: int, width: int, drawn: list[float]) -> None:
    """Whatever the image and the random numbers, a crop box has whole pixels, at least one, all in the image."""
    (crop,) = random_resized_crop(np.array([height]), np.array([width]), ANY_RESOLUTION, np.array([drawn]))
    y0, x0, y1, x1 = crop
    assert 0 <= y0 < y1 <= height
    assert 0 <= x0 < x1 <= width
    assert (crop == np.rint(crop)).all()


@pytest.mark.parametrize("last", [0.0, np.nextafter(1, 0)])
def test_training_crop_boxes_reach_every_edge(last: float) -> None:
    """The largest random number puts the crop box at the far edges, the smallest at the near ones."""
    uniforms = np.full((1, NUM_UNIFORMS), 0.2)
    uniforms[0, -2:] = last
    ((y0, x0, y1, x1),) = random_resized_crop(np.array([300]), np.array([400]), ANY_RESOLUTION, uniforms)
    assert ((y0, x0) == (0, 0)) == (last == 0)
    assert ((y1, x1) == (300, 400)) == (last > 0)


def test_images_of_a_batch_do_not_mix() -> None:
    """Each row's crop box is the one that the image alone would get."""
    rng = np.random.default_rng(3)
    heights, widths = rng.integers(20, 900, 50), rng.integers(20, 900, 50)
    uniforms = rng.random((50, NUM_UNIFORMS))
    for function in (random_resized_crop, centre_crop, shifted_crop):
        together = function(heights, widths, ANY_RESOLUTION, uniforms)
        alone = [
            function(heights[row : row + 1], widths[row : row + 1], ANY_RESOLUTION, uniforms[row : row + 1])[0]
            for row in range(50)
        ]
        np.testing.assert_array_equal(together, np.stack(alone))


SIZES = [(375, 500), (500, 375), (500, 333), (333, 500), (256, 256), (224, 224), (100, 37), (37, 100), (480, 481),
         (257, 258), (1000, 999), (32, 32), (1, 1), (3, 1000), (2448, 3264), (7, 5)]  # fmt: skip


@pytest.mark.parametrize("crop_px", [32, 96, 128, 160, 224, 225, 320])
@pytest.mark.parametrize("crop_ratio", [0.875, 1.0, 0.5])
def test_test_crop_boxes_are_the_literal_formula(crop_px: int, crop_ratio: float) -> None:
    """A test crop box is resize and centre crop written as one crop box, with offsets rounded half to even."""
    resolution = Resolution(crop_px, crop_ratio)
    for height, width in SIZES:
        resize_px = resolution.resize_px
        resized_h, resized_w = height * resize_px // min(height, width), width * resize_px // min(height, width)
        y, x = round((resized_h - crop_px) / 2), round((resized_w - crop_px) / 2)
        expected = [y * height / resized_h, x * width / resized_w]
        expected += [(y + crop_px) * height / resized_h, (x + crop_px) * width / resized_w]
        (crop,) = _one(centre_crop, height, width, resolution)
        np.testing.assert_allclose(crop, expected, rtol=1e-14, err_msg=f"{height} by {width}")


def test_test_crop_box_literals() -> None:
    """Some crop boxes by hand, one of them with an offset of 58.5 that is rounded to the even 58."""
    assert _one(centre_crop, 256, 256, Resolution(224)).tolist() == [[16, 16, 240, 240]]
    assert _one(centre_crop, 512, 1024, Resolution(224)).tolist() == [[32, 288, 480, 736]]
    # 375 by 500 becomes 256 by 341; (341 - 224) / 2 = 58.5 is rounded to 58.
    expected = [[16 * 375 / 256, 58 * 500 / 341, 240 * 375 / 256, 282 * 500 / 341]]
    np.testing.assert_allclose(_one(centre_crop, 375, 500, Resolution(224)), expected, rtol=1e-14)


def test_test_crop_boxes_cut_what_torchvision_cuts() -> None:
    """The crop box scaled to torchvision's resized image is exactly the crop that torchvision's center_crop takes."""
    for (height, width), crop_px in product([(37, 100), (100, 37), (61, 64), (75, 100), (90, 60), (53, 53)], (32, 57)):
        resolution = Resolution(crop_px)
        # Numbered pixels, so that the crop's first pixel says where it begins.
        resized = tv.resize(torch.zeros(1, height, width), [resolution.resize_px], antialias=True)
        resized_h, resized_w = resized.shape[1:]
        numbered = torch.arange(resized_h * resized_w, dtype=torch.float64).reshape(1, resized_h, resized_w)
        y, x = divmod(int(tv.center_crop(numbered, [crop_px]).flatten()[0]), resized_w)
        (crop,) = _one(centre_crop, height, width, resolution)
        scale = np.array([resized_h / height, resized_w / width] * 2)
        np.testing.assert_allclose(crop * scale, [y, x, y + crop_px, x + crop_px], rtol=1e-12)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(SIDES, SIDES, st.integers(32, 1024), st.floats(0.3, 1.0), UNITS)
def test_test_crop_boxes_stay_inside_the_image(
    height: int, width: int, crop_px: int, crop_ratio: float, drawn: float
) -> None:
    """Centred and shifted test crop boxes lie in the image, to a rounding error, and keep the crop's scale."""
    resolution = Resolution(crop_px, crop_ratio)
    for function in (centre_crop, shifted_crop):
        (crop,) = _one(function, height, width, resolution, drawn)
        y0, x0, y1, x1 = crop
        assert -1e-9 <= y0 < y1 <= height * (1 + 1e-12)
        assert -1e-9 <= x0 < x1 <= width * (1 + 1e-12)
        shorter = min(y1 - y0, x1 - x0) / min(height, width)
        assert shorter == pytest.approx(crop_px / resolution.resize_px, rel=0.05)


def test_test_crop_boxes_use_no_random_numbers() -> None:
    """The centre crop box is the same for all random numbers."""
    first = _one(centre_crop, 375, 500, ANY_RESOLUTION, 0.0)
    np.testing.assert_array_equal(first, _one(centre_crop, 375, 500, ANY_RESOLUTION, 0.99))


@pytest.mark.parametrize(("height", "width", "slack"), [(375, 500, 117), (500, 375, 32), (256, 256, 32)])
def test_shifted_crop_boxes_move_sideways_only(height: int, width: int, slack: int) -> None:
    """The rows are the centre crop's; the column offset is uniform over the whole numbers from 0 to the slack."""
    resolution = Resolution(224)
    centre_y0, _, centre_y1, _ = _one(centre_crop, height, width, resolution)[0]
    uniforms = np.random.default_rng(5).random((NUM_DRAWS, NUM_UNIFORMS))
    crop_boxes = shifted_crop(np.full(NUM_DRAWS, height), np.full(NUM_DRAWS, width), resolution, uniforms)
    assert set(crop_boxes[:, 0]) == {centre_y0}
    assert set(crop_boxes[:, 2]) == {centre_y1}
    resized_w = width * 256 // min(height, width)
    offsets = crop_boxes[:, 1] * resized_w / width
    whole = np.rint(offsets).astype(np.int64)
    np.testing.assert_allclose(offsets, whole, atol=1e-9)
    counts = np.bincount(whole, minlength=slack + 1)
    assert len(counts) == slack + 1
    expected = NUM_DRAWS / (slack + 1)
    # Five standard deviations of a count; the seed is fixed.
    assert np.abs(counts - expected).max() < 5 * expected**0.5
    np.testing.assert_allclose((crop_boxes[:, 3] - crop_boxes[:, 1]) * resized_w / width, 224, rtol=1e-12)


def test_shifted_crop_box_literals() -> None:
    """The smallest random number puts the crop at the left edge, the largest at the right one."""
    left = _one(shifted_crop, 512, 1024, Resolution(224), 0.0)
    right = _one(shifted_crop, 512, 1024, Resolution(224), float(np.nextafter(1, 0)))
    assert left.tolist() == [[32, 0, 480, 448]]
    assert right.tolist() == [[32, 576, 480, 1024]]


def _one(function: CropFunction, height: int, width: int, resolution: Resolution, drawn: float = 0.5) -> Floats:
    """Return the crop box of one image, all of whose random numbers are the same."""
    return function(np.array([height]), np.array([width]), resolution, np.full((1, NUM_UNIFORMS), drawn))
