"""The Fréchet distribution of pooled activations: fitted by L-moments, with quantiles in closed form.

It is the generalised extreme value distribution, as in FixRes (section on parametric adaptation):
``F(x) = exp(-(1 + shape (x - location) / scale) ** (-1 / shape))``, for a shape of 0 ``exp(-exp(-(x - location) /
scale))``. All functions here go through the reduced variate ``u = -log(-log F(x))``, which is finite wherever F is
neither 0 nor 1.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dali_fixres.errors import ModelError

__all__ = ["Frechet", "Pooled", "describe", "fit_frechet", "reduced"]

Floats = NDArray[np.float64]

GUMBEL = 1e-6
"""Shapes closer to 0 count as 0: the general formulas lose their precision there."""

MIN_VALUES = 100
"""A shape cannot be estimated from fewer values."""

EULER = 0.5772156649015329


@dataclass(frozen=True, slots=True)
class Frechet:
    """A Fréchet (generalised extreme value) distribution.

    Attributes:
        location: In the values' own unit.
        scale: Above 0, likewise.
        shape: Above 0 the upper tail is heavy and there is a lower bound; below 0 there is an upper bound.
    """

    location: float
    scale: float
    shape: float

    def __str__(self) -> str:
        return f"location {self.location:.4g}, scale {self.scale:.4g}, shape {self.shape:.4g}"

    def at(self, u: Floats) -> Floats:
        """Return the values whose reduced variate is `u`: quantiles, for `reduced` of their shares."""
        if self.shape == 0:
            return self.location + self.scale * u
        return self.location + self.scale * np.expm1(self.shape * u) / self.shape

    def pdf(self, values: Floats) -> Floats:
        """Return the density: 0 outside the support."""
        z = (values - self.location) / self.scale
        base = 1 + self.shape * z
        inside = base > 0
        u = z if self.shape == 0 else np.log(np.where(inside, base, 1.0)) / self.shape
        # F' = exp(-exp(-u)) exp(-u) du/dx, and du/dx = exp(-shape u) / scale.
        density = np.exp(-np.exp(-u) - u - self.shape * u) / self.scale
        return np.where(inside, density, 0.0)


def reduced(probabilities: Floats) -> Floats:
    """Return ``-log(-log p)``."""
    return -np.log(-np.log(probabilities))


def fit_frechet(values: Floats) -> Frechet:
    """Fit location, scale and shape by L-moments, without an optimiser.

    Hosking, Wallis and Wood, "Estimation of the generalized extreme-value distribution by the method of
    probability-weighted moments", Technometrics 27 (1985): their equations 14 and 15, where k is the shape here
    with its sign turned. They give the error of the approximation of k as below 9e-4 for shapes within 1/2.

    Args:
        values: Ascending, (n,).

    Raises:
        ModelError: If there are too few values, or they are all the same.
    """
    count = len(values)
    if count < MIN_VALUES:
        raise ModelError(f"a distribution cannot be fitted to {count} activations; give more --statistics-images")
    mean, spread, skewness = _l_moments(values)
    if not spread > 1e-12 * max(abs(mean), 1e-300):
        raise ModelError("the pooled activations are all the same, so no distribution can be fitted to them")
    c = 2 / (3 + skewness) - math.log(2) / math.log(3)
    k = 7.8590 * c + 2.9554 * c * c
    if abs(k) < GUMBEL:
        scale = spread / math.log(2)
        return Frechet(mean - EULER * scale, scale, 0.0)
    gamma = math.gamma(1 + k)
    scale = spread * k / (gamma * (1 - 2**-k))
    return Frechet(mean - scale * (1 - gamma) / k, scale, -k)


def _l_moments(values: Floats) -> tuple[float, float, float]:
    """Return the first two L-moments of ascending values and the L-skewness, which lies in (-1, 1)."""
    count = len(values)
    below = np.arange(count) / (count - 1)  # share of the others that lie below
    b0 = float(values.mean())
    b1 = float((below * values).mean())
    b2 = float((below * (np.arange(count) - 1) / (count - 2) * values).mean())
    spread = 2 * b1 - b0
    return b0, spread, (6 * b2 - 6 * b1 + b0) / spread if spread > 0 else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """Pooled activations of one kind of crop, and their distribution.

    Attributes:
        values: A sample, ascending, (n,).
        zeros: The share of exact zeros.
        fitted: Fitted to the values; to those above zero if activations are rectified.
    """

    values: Floats
    zeros: float
    fitted: Frechet


def describe(*samples: NDArray[np.float32]) -> tuple[bool, tuple[Pooled, ...]]:
    """Fit a distribution to each of several samples of one network's pooled activations.

    Args:
        samples: Of all channels together, (n,) each, in any order.

    Returns:
        Whether the activations are rectified, which means that none is below zero; and each sample with its fit. Zeros
        of rectified activations are counted and not fitted, as no distribution with a density has them.

    Raises:
        ModelError: As `fit_frechet`.
    """
    ordered = [np.sort(sample.astype(np.float64)) for sample in samples]
    rectified = all(bool((values >= 0).all()) for values in ordered)
    fits = [fit_frechet(values[values > 0] if rectified else values) for values in ordered]
    zeros = [float(np.mean(values == 0)) for values in ordered]
    return rectified, tuple(map(Pooled, ordered, zeros, fits))
