"""What the training loop does around the network's own calls."""

import copy

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from dali_fixres.checkpoints import EpochStatistics
from dali_fixres.errors import TrainingDivergedError
from dali_fixres.runtime.progress import Bar
from dali_fixres.training import LearningRate, TrainingSetup, build_optimizer, step, train_step
from dali_fixres.training.statistics import EpochMeter
from pipelines import Batch, Resolution


def meter() -> EpochMeter:
    """Return a meter of a new epoch, which shows nothing."""
    return EpochMeter(Bar("", 1, Console(quiet=True), live=None), EpochStatistics())


def test_meter_sums_losses_over_images() -> None:
    """Each batch counts by its images, also where their numbers differ."""
    epoch = meter()
    epoch.add(torch.tensor(2.0), 3, 1)
    epoch.add(torch.tensor(0.5), 4, 2)
    statistics = epoch.statistics()
    assert (statistics.loss_sum, statistics.num_images) == (8.0, 7)


def test_a_fetch_in_between_changes_no_sum() -> None:
    """Losses that were fetched are not counted again, and those after them are added."""
    fetched, unfetched = meter(), meter()
    for number, loss in enumerate((0.1, 0.7, 0.3), start=1):
        for epoch in (fetched, unfetched):
            epoch.add(torch.tensor(loss), 3, number)
        fetched.statistics()
    assert fetched.statistics().loss_sum == unfetched.statistics().loss_sum > 0


def test_first_step_with_a_loss_that_is_not_finite_is_named() -> None:
    """The message names the first of several bad steps, although it is fetched only later."""
    epoch = meter()
    for number, loss in enumerate((1.0, 2.0, float("nan"), 1.0, float("inf")), start=11):
        epoch.add(torch.tensor(loss), 4, number)
    with pytest.raises(TrainingDivergedError, match="at step 13;"):
        epoch.statistics()


def test_a_step_is_seeded_as_torch_would() -> None:
    """What a network draws after seeding a step is what it draws after ``torch.manual_seed``."""
    torch.manual_seed(2**63 + 5)
    expected = torch.rand(4)
    step._seed(2**63 + 5, torch.device("cpu"))
    assert torch.equal(torch.rand(4), expected)


def test_a_step_is_sgd_at_the_rate_of_its_number() -> None:
    """Step n takes the n-th learning rate, with label smoothing and a limited gradient, as written out by hand."""
    torch.manual_seed(0)
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    expected = copy.deepcopy(network)
    rates = LearningRate(((0, 0.4),), num_steps=10, warmup_steps=4, decay="cosine")
    optimizer = build_optimizer(network, momentum=0.0, weight_decay=0.0)
    setup = TrainingSetup(network, network, optimizer, rates, int, network.train, label_smoothing=0.1, clip_grad=0.5)
    loss = train_step(setup, Batch(images, labels, np.arange(4), Resolution(32)), 1)
    by_hand = nn.CrossEntropyLoss(label_smoothing=0.1)(expected(images), labels)
    by_hand.backward()
    nn.utils.clip_grad_norm_(expected.parameters(), 0.5)
    assert loss.item() == by_hand.item()
    for ours, parameter in zip(network.parameters(), expected.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(ours.detach(), parameter.detach() - 0.2 * parameter.grad)
