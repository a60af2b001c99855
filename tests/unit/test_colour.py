import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional as tv

from pipelines.plan.colour import IMAGENET, Normalisation, jitter_and_normalise

Floats = NDArray[np.float64]

PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Leaves images in 0-1."""

MID_TONES = np.random.default_rng(0).uniform(70, 150, (500, 3))
"""Colours that no jitter of 0.3 takes out of 0-255, so that torchvision clips nothing."""


def _apply(colours: Floats, jitter: tuple[float, float, float], normalisation: Normalisation = PLAIN) -> Floats:
    """Apply the map of one jitter to colours in 0-255, (n, 3)."""
    (affine,) = jitter_and_normalise(np.array([jitter]), normalisation).astype(np.float64)
    mapped: Floats = colours @ affine[:, :3].T + affine[:, 3]
    return mapped


def _torchvision(adjust: str, colours: Floats, factor: float) -> Floats:
    """Adjust colours with torchvision on an image of floats in 0-1."""
    image = torch.from_numpy(colours.T[:, :, None] / 255)
    adjusted: torch.Tensor = getattr(tv, f"adjust_{adjust}")(image, factor)
    assert adjusted.min() > 0
    assert adjusted.max() < 1
    numbers: Floats = adjusted[:, :, 0].numpy().T
    return numbers


def test_identity_is_normalisation_alone() -> None:
    """Factors of 1 leave (x / 255 - mean) / std."""
    expected = (MID_TONES / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(_apply(MID_TONES, (1, 1, 1), IMAGENET), expected, atol=1e-6)


def test_imagenet_literals() -> None:
    """Black, white and the mean colour under ImageNet's normalisation."""
    colours = np.array([[0, 0, 0], [255, 255, 255], [0.485 * 255, 0.456 * 255, 0.406 * 255]])
    expected = np.array([[-2.117904, -2.035714, -1.804444], [2.248908, 2.428571, 2.64], [0, 0, 0]])
    np.testing.assert_allclose(_apply(colours, (1, 1, 1), IMAGENET), expected, atol=2e-6)


def test_form() -> None:
    """There is one 3 by 4 map of float32 per image, each from its own factors."""
    jitter = np.array([[1, 1, 1], [1.2, 0.9, 0.8], [0.7, 1.3, 1]])
    maps = jitter_and_normalise(jitter, IMAGENET)
    assert maps.shape == (3, 3, 4)
    assert maps.dtype == np.float32
    for row in range(3):
        np.testing.assert_array_equal(maps[row], jitter_and_normalise(jitter[row : row + 1], IMAGENET)[0])
    assert len({bytes(one) for one in maps}) == 3


@pytest.mark.parametrize("factor", [0.7, 0.95, 1.0, 1.3])
def test_brightness_is_torchvisions(factor: float) -> None:
    """Brightness scales colours as torchvision's adjust_brightness does."""
    expected = _torchvision("brightness", MID_TONES, factor)
    np.testing.assert_allclose(_apply(MID_TONES, (factor, 1, 1)), expected, atol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.7, 0.95, 1.3])
def test_saturation_is_torchvisions(factor: float) -> None:
    """Saturation mixes with the grey value as torchvision's adjust_saturation does (whose red weight is 0.2989)."""
    expected = _torchvision("saturation", MID_TONES, factor)
    np.testing.assert_allclose(_apply(MID_TONES, (1, 1, factor)), expected, atol=1e-4)


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_saturation_leaves_grey_values(factor: float) -> None:
    """Grey stays grey, and every colour keeps its grey value."""
    luma = np.array([0.299, 0.587, 0.114])
    greys = np.linspace(0, 255, 9)[:, None].repeat(3, axis=1)
    np.testing.assert_allclose(_apply(greys, (1, 1, factor)), greys / 255, atol=1e-6)
    np.testing.assert_allclose(_apply(MID_TONES, (1, 1, factor)) @ luma, MID_TONES @ luma / 255, atol=1e-6)


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_contrast_turns_about_the_grey_of_the_mean(factor: float) -> None:
    """Contrast scales the distance from 0.458971, the grey value of ImageNet's mean colour."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (factor * (MID_TONES / 255 - 0.458971) + 0.458971 - mean) / std
    np.testing.assert_allclose(_apply(MID_TONES, (1, factor, 1), IMAGENET), expected, atol=1e-5)


def test_contrast_is_torchvisions_for_an_image_of_that_grey() -> None:
    """For an image whose own mean grey is the normalisation's, contrast is torchvision's adjust_contrast."""
    grey = MID_TONES @ np.array([0.2989, 0.587, 0.114])
    level = float(grey.mean() / 255)
    normalisation = Normalisation(mean=(level, level, level), std=(1.0, 1.0, 1.0))
    expected = _torchvision("contrast", MID_TONES, 1.2) - level
    np.testing.assert_allclose(_apply(MID_TONES, (1, 1.2, 1), normalisation), expected, atol=1e-4)


def test_order_is_brightness_contrast_saturation_normalisation() -> None:
    """All at once is one after the other in this order, computed step by step; another order would differ."""
    brightness, contrast, saturation = 1.2, 0.75, 0.8
    luma = np.array([0.299, 0.587, 0.114])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    bright = brightness * MID_TONES / 255
    contrasted = contrast * bright + (1 - contrast) * 0.458971
    grey = (contrasted @ luma)[:, None]
    expected = (saturation * contrasted + (1 - saturation) * grey - mean) / std
    actual = _apply(MID_TONES, (brightness, contrast, saturation), IMAGENET)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    contrast_first = brightness * (contrast * MID_TONES / 255 + (1 - contrast) * 0.458971)
    grey_first = (contrast_first @ luma)[:, None]
    other_order = (saturation * contrast_first + (1 - saturation) * grey_first - mean) / std
    assert np.abs(actual - other_order).min() > 0.05
