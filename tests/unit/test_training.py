"""What the training loop does around the network's own calls."""

import pytest
import torch
from rich.console import Console

from dali_fixres import training
from dali_fixres.errors import TrainingDivergedError
from dali_fixres.metrics import Tally
from dali_fixres.report.progress import Bar
from dali_fixres.training import Meter


def meter() -> Meter:
    """Return a meter of a new epoch, which shows nothing."""
    return Meter(Bar("", 1, Console(quiet=True), live=None), Tally())


def test_meter_sums_losses_over_pictures() -> None:
    """Each batch counts by its pictures, also where their numbers differ."""
    epoch = meter()
    epoch.add(torch.tensor(2.0), 3, 1)
    epoch.add(torch.tensor(0.5), 4, 2)
    tally = epoch.tally()
    assert (tally.loss_sum, tally.num_images) == (8.0, 7)


def test_a_look_in_between_changes_no_sum() -> None:
    """Losses that were looked at are not counted again, and those after them are added."""
    looked, unlooked = meter(), meter()
    for step, loss in enumerate((0.1, 0.7, 0.3), start=1):
        for epoch in (looked, unlooked):
            epoch.add(torch.tensor(loss), 3, step)
        looked.tally()
    assert looked.tally().loss_sum == unlooked.tally().loss_sum > 0


def test_first_step_with_a_loss_that_is_not_finite_is_named() -> None:
    """The message names the first of several bad steps, although it is only looked at later."""
    epoch = meter()
    for step, loss in enumerate((1.0, 2.0, float("nan"), 1.0, float("inf")), start=11):
        epoch.add(torch.tensor(loss), 4, step)
    with pytest.raises(TrainingDivergedError, match="at step 13;"):
        epoch.tally()


def test_a_step_is_seeded_as_torch_would() -> None:
    """What a network draws after seeding a step is what it draws after ``torch.manual_seed``."""
    torch.manual_seed(2**63 + 5)
    expected = torch.rand(4)
    training._seed(2**63 + 5, torch.device("cpu"))
    assert torch.equal(torch.rand(4), expected)
