"""Features that a classifier learns from."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from dali_fixres.errors import ModelError
from dali_fixres.evaluation.forward import ForwardPass
from dali_fixres.finetuning.feature_training import FeatureEpoch, _dropout_mask
from dali_fixres.finetuning.features import collect_features, measure_statistics
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Bar
from pipelines.batch import Batch
from pipelines.resolution import Resolution


class Scaled(nn.Module):
    """Pooled images, times a number, before a classifier."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.classifier = nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.classifier(images.mean((2, 3)) * self.factor)
        return logits


def batches() -> Iterator[Batch]:
    """Yield two batches of two images, all ones."""
    for first in (0, 2):
        yield Batch(torch.ones(2, 3, 8, 8), torch.tensor([0, 1]), np.arange(first, first + 2), Resolution(32))


def forward(network: nn.Module) -> ForwardPass:
    """Return two rounds that show nothing."""
    return ForwardPass(network, 2, Bar("", 2, Console(quiet=True), live=None))


def test_features_are_found_by_row() -> None:
    """Each image's features and label lie where its row of the data set says."""
    network = Scaled(0.5)
    bank = collect_features(network.classifier, [batches()], (4, 4), forward(network), 1.0)
    features, labels, here = bank.find(0, torch.tensor([3, 0]))
    assert here.tolist() == [True, True]
    assert features.tolist() == [[0.5] * 3] * 2
    assert labels.tolist() == [1, 0]


@pytest.mark.parametrize("factor", [1e6, float("nan")])
def test_features_that_half_precision_cannot_hold_are_refused(factor: float) -> None:
    """They would be trained on as infinities."""
    network = Scaled(factor)
    with pytest.raises(ModelError, match="do not fit half precision or are not finite; use --method sgd"):
        collect_features(network.classifier, [batches()], (4, 4), forward(network), 1.0)


def test_left_out_features_are_made_up_for() -> None:
    """About the share asked for is left out, others in another step, and the mean stays."""
    epoch = FeatureEpoch(0, 0, iter(()), dropout=0.25, seed_of=lambda step: step)
    first, second = _dropout_mask(epoch, 0, (500, 400)), _dropout_mask(epoch, 1, (500, 400))
    assert sorted(set(first.flatten().tolist())) == pytest.approx([0, 4 / 3])
    assert first.mean().item() == pytest.approx(1, abs=0.01)
    assert not torch.equal(first, second)
    assert torch.equal(first, _dropout_mask(epoch, 0, (500, 400)))


def test_statistics_are_those_of_all_positions() -> None:
    """A norm gets the mean and the unbiased variance over all images and positions, however they are batched."""
    images = torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    network = nn.Sequential(nn.BatchNorm2d(3))
    norm = network[0]
    assert isinstance(norm, nn.BatchNorm2d)
    parts = [
        Batch(images[rows], torch.zeros(len(rows), dtype=torch.int64), rows, Resolution(32))
        for rows in (np.array([0, 1, 2]), np.array([3, 4]))
    ]
    measure_statistics(norm, iter(parts), forward(network), World())
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, images.transpose(0, 1).flatten(1).var(1))
