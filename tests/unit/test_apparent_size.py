from dataclasses import replace

import numpy as np
import pytest

from dali_fixres.evaluation.apparent_size import apparent_sizes, compare_sizes
from pipelines.plan.crops import NUM_UNIFORMS, Ints, centre_crop, random_resized_crop
from pipelines.resolution import Resolution

NO_UNIFORMS = np.zeros((1, NUM_UNIFORMS))


def shapes(height: int, width: int, count: int = 1) -> tuple[Ints, Ints]:
    """Return heights and widths of images of one shape."""
    return np.full(count, height), np.full(count, width)


def test_size_in_a_test_crop_by_hand() -> None:
    """A square of 512 px is resized to 256 px; of 256 x 400 the object of side 320 keeps its pixels."""
    (square,) = apparent_sizes(*shapes(512, 512), centre_crop, Resolution(224), NO_UNIFORMS)
    (landscape,) = apparent_sizes(*shapes(256, 400), centre_crop, Resolution(224), NO_UNIFORMS)
    assert square == pytest.approx(256.0)
    assert landscape == pytest.approx(320.0)


def test_size_in_a_training_crop_by_hand() -> None:
    """All areas 0.08 + 0.92 * 0.25 = 0.31 of the image and aspects 1: a crop box of 557 px of a square of 1000 px."""
    uniforms = np.zeros((1, NUM_UNIFORMS))
    uniforms[:, :10], uniforms[:, 10:20] = 0.25, 0.5
    (size,) = apparent_sizes(*shapes(1000, 1000), random_resized_crop, Resolution(128), uniforms)
    assert size == pytest.approx(128 * 1000 / 557)


def test_expectation_of_large_squares() -> None:
    """Without limits to the crop box, areas are uniform in 0.08-1 and E[1 / sigma] = 2 (1 - sqrt(0.08)) / 0.92 = 1.559.

    Aspects that do not fit a square are drawn again, so it is somewhat more than that here, and less than the largest.
    """
    rng = np.random.default_rng(0)
    sizes = apparent_sizes(
        *shapes(3000, 3000, 50_000), random_resized_crop, Resolution(100), rng.random((50_000, NUM_UNIFORMS))
    )
    assert 155.9 < sizes.mean() < 175
    assert sizes.min() >= 100 - 0.1
    assert sizes.max() <= 100 / np.sqrt(0.08) * 1.01


def test_matching_resolution() -> None:
    """At the resolution that matches, test crops have the mean size of training crops; it scales with training's."""
    heights, widths = shapes(375, 500, 5000)
    uniforms = np.random.default_rng(0).random((5000, NUM_UNIFORMS))
    first = compare_sizes(heights, widths, Resolution(128), (Resolution(160),), uniforms)
    there = Resolution(round(first.matching_px))
    again = compare_sizes(heights, widths, Resolution(128), (there,), uniforms)
    assert again.tested[there].mean() == pytest.approx(again.trained.mean(), rel=0.01)
    twice = compare_sizes(heights, widths, Resolution(256), (Resolution(160),), uniforms)
    assert twice.matching_px == pytest.approx(2 * first.matching_px, rel=0.01)
    assert list(first.tested) == [Resolution(160)]


@pytest.mark.parametrize(("matching_px", "multiple"), [(143.9, 128), (144.1, 160), (183.0, 192), (10.0, 32)])
def test_nearest_multiple_of_32(matching_px: float, multiple: int) -> None:
    """Networks that halve the image five times take these without remainder."""
    comparison = compare_sizes(*shapes(100, 100), Resolution(64), (Resolution(64),), NO_UNIFORMS)
    assert replace(comparison, matching_px=matching_px).matching_multiple_px == multiple
