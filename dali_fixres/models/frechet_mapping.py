"""FixRes' adaptation without training: a mapping of pooled activations, inserted before the classifier."""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from dali_fixres.errors import ModelError
from dali_fixres.models.frechet_distribution import Frechet, reduced

__all__ = ["FrechetMapping", "insert_mapping"]

MAPPING, CLASSIFIER = "frechet", "classifier"
"""Names of the two layers that replace the classifier."""

TRUSTED = 1e-4
"""The fitted distributions are used between this quantile and its counterpart at the upper end."""


class FrechetMapping(nn.Module):
    """Maps activations at the test resolution to the distribution of training: ``x -> F_train^-1(F_test(x))``.

    * Between the 1e-4 and 1 - 1e-4 quantiles of F_test the mapping is this closed form. Outside, where the fit is
      unreliable and the closed form may be infinite, the slope is one. So it is finite and increases everywhere.
    * Rectified activations (after a ReLU) stay rectified: zeros stay zero, and negative results become zero. The
      distributions are those of the activations above zero.

    The parameters are buffers, so they are saved with the network. A new mapping changes nothing.
    """

    trained: torch.Tensor
    tested: torch.Tensor
    rectified: torch.Tensor
    ends: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("trained", torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
        self.register_buffer("tested", torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
        self.register_buffer("rectified", torch.tensor(False))
        ends = reduced(np.array([TRUSTED, 1 - TRUSTED])).tolist()
        self.register_buffer("ends", torch.tensor(ends), persistent=False)

    def fill(self, trained: Frechet, tested: Frechet, *, rectified: bool) -> None:
        """Set the distributions in training and in testing, and whether activations are rectified."""
        for buffer, fitted in ((self.trained, trained), (self.tested, tested)):
            buffer.copy_(torch.tensor([fitted.location, fitted.scale, fitted.shape], dtype=torch.float64))
        self.rectified.fill_(rectified)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map activations of any shape, in float32; the dtype of the result is that of the input."""
        location, scale, shape = self.tested.float()
        low, high = location + scale * _grown(self.ends, shape)
        inside = features.float().clamp(low, high)
        z = (inside - location) / scale
        u = torch.where(shape == 0, z, torch.log1p(shape * z) / torch.where(shape == 0, 1.0, shape))
        location, scale, shape = self.trained.float()
        mapped = location + scale * _grown(u, shape) + (features.float() - inside)
        mapped = torch.where(self.rectified, torch.where(features <= 0, 0.0, mapped.clamp(min=0)), mapped)
        return mapped.to(features.dtype)


def _grown(u: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """Return ``(exp(shape u) - 1) / shape``, or its limit `u` for a shape of 0."""
    return torch.where(shape == 0, u, torch.expm1(shape * u) / torch.where(shape == 0, 1.0, shape))


def insert_mapping(network: nn.Module, classifier_name: str) -> FrechetMapping:
    """Insert a mapping, which changes nothing yet, before a network's classifier, and return it.

    The classifier ``fc`` becomes a sequence of ``fc.frechet`` and ``fc.classifier``.

    Raises:
        ModelError: If there is no such layer.
    """
    parent_name, _, name = classifier_name.rpartition(".")
    try:
        parent, classifier = network.get_submodule(parent_name), network.get_submodule(classifier_name)
    except AttributeError as error:
        raise ModelError(
            f"{type(network).__name__} has no layer {classifier_name!r} to put a Fréchet mapping before"
        ) from error
    mapping = FrechetMapping().to(next(network.parameters()).device)
    setattr(parent, name, nn.Sequential(OrderedDict([(MAPPING, mapping), (CLASSIFIER, classifier)])))
    return mapping
