import pytest
import torch
from torch import nn

from dali_fixres.training.optimizer import LearningRate, build_optimizer, load_optimizer, scaled_lr


def test_warm_up_literals() -> None:
    """The rate rises by equal shares, of which step 0 has one already, and the peak ends the warm-up."""
    rate = LearningRate(peaks=((0, 0.8),), num_steps=12, warmup_steps=4, decay="cosine")
    assert [rate.at(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


def test_cosine_literals() -> None:
    """The cosine starts at the peak, is halved half way and a quarter of the way from either end is 0.854 or 0.146."""
    rate = LearningRate(peaks=((0, 1.0),), num_steps=8, warmup_steps=0, decay="cosine")
    expected = [1.0, 0.961940, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.038060]
    assert [rate.at(step) for step in range(8)] == pytest.approx(expected, abs=1e-6)


def test_cosine_after_a_warm_up() -> None:
    """The cosine spans the steps after the warm-up."""
    rate = LearningRate(peaks=((0, 2.0),), num_steps=14, warmup_steps=10, decay="cosine")
    expected = [2.0, 2.0, 1.707107, 1.0, 0.292893]
    assert [rate.at(step) for step in (9, 10, 11, 12, 13)] == pytest.approx(expected, abs=1e-6)


def test_cosine_ends_near_zero() -> None:
    """The last step's rate is a sliver of the peak and never negative; past the end it is 0."""
    rate = LearningRate(peaks=((0, 0.1),), num_steps=1000, warmup_steps=50, decay="cosine")
    last = rate.at(999)
    assert 0 < last < 1e-6
    assert [rate.at(step) for step in (1000, 1500)] == pytest.approx([0, 0], abs=1e-18)
    falling = [rate.at(step) for step in range(50, 1000)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize(("num_steps", "drops"), [(9, (3, 6)), (90, (30, 60)), (31, (11, 21)), (3003, (1001, 2002))])
def test_step_decay_drops_at_each_third(num_steps: int, drops: tuple[int, int]) -> None:
    """A tenth from the first third on, a hundredth from the second, exactly at the step."""
    rate = LearningRate(peaks=((0, 0.5),), num_steps=num_steps, warmup_steps=0, decay="step")
    first, second = drops
    steps = [0, first - 1, first, second - 1, second, num_steps - 1]
    assert [rate.at(step) for step in steps] == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


def test_step_decay_after_a_warm_up() -> None:
    """Thirds are of the steps after the warm-up."""
    rate = LearningRate(peaks=((0, 1.0),), num_steps=11, warmup_steps=2, decay="step")
    expected = [0.5, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]
    assert [rate.at(step) for step in range(11)] == pytest.approx(expected)


def test_step_decay_at_given_steps() -> None:
    """Where the falls are given, each is exactly at its step, whatever the warm-up and the number of steps."""
    rate = LearningRate(peaks=((0, 1.0),), num_steps=9, warmup_steps=2, decay="step", drops=(3, 6))
    expected = [0.5, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]
    assert [rate.at(step) for step in range(9)] == pytest.approx(expected)


def test_peaks_of_phases() -> None:
    """From a phase's first step on the same curve runs below the phase's peak."""
    rate = LearningRate(peaks=((0, 1.0), (4, 2.0), (6, 0.5)), num_steps=8, warmup_steps=0, decay="cosine")
    expected = [1.0, 0.961940, 0.853553, 0.691342, 2 * 0.5, 2 * 0.308658, 0.5 * 0.146447, 0.5 * 0.038060]
    assert [rate.at(step) for step in range(8)] == pytest.approx(expected, abs=1e-6)


def test_a_phase_begins_within_the_warm_up() -> None:
    """The warm-up rises to the peak of the phase that a step is in."""
    rate = LearningRate(peaks=((0, 0.4), (2, 0.8)), num_steps=12, warmup_steps=4, decay="step")
    assert [rate.at(step) for step in range(5)] == pytest.approx([0.1, 0.2, 0.6, 0.8, 0.8])


def test_scaled_lr_literals() -> None:
    """The base rate is for 256 images and scales in proportion."""
    assert [scaled_lr(0.1, batch) for batch in (256, 512, 64, 32)] == pytest.approx([0.1, 0.2, 0.025, 0.0125])


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 2))


def test_norms_and_biases_do_not_decay() -> None:
    """Weights of convolutions and linear layers are in the decaying group, biases and norms in the other."""
    network = _network()
    optimizer = build_optimizer(network, momentum=0.9, weight_decay=1e-4)
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = {
        group["weight_decay"]: {names[parameter] for parameter in group["params"]} for group in optimizer.param_groups
    }
    assert groups == {
        1e-4: {"0.weight", "4.weight"},
        0.0: {"0.bias", "1.weight", "1.bias", "3.weight", "3.bias", "4.bias"},
    }
    assert [group["lr"] for group in optimizer.param_groups] == [0, 0]


def test_what_is_frozen_is_not_in_the_optimizer() -> None:
    """Only parameters that learn are stepped; groups that would be empty are left out."""
    network = _network().requires_grad_(False)
    network[1].requires_grad_(True)
    optimizer = build_optimizer(network, momentum=0.9, weight_decay=1e-4)
    (group,) = optimizer.param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in network[1].parameters()]
    assert group["weight_decay"] == 0


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.0, False)])
def test_momentum_is_nesterovs(momentum: float, nesterov: bool) -> None:
    """Momentum is Nesterov's; none at all is allowed."""
    optimizer = build_optimizer(_network(), momentum=momentum, weight_decay=0.0)
    assert {(group["momentum"], group["nesterov"]) for group in optimizer.param_groups} == {(momentum, nesterov)}


def test_one_step_by_hand() -> None:
    """A step moves a weight by lr * (1 + momentum) * (gradient + decay * weight), and a bias without the decay."""
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(2.0)
        layer.bias.fill_(3.0)
    optimizer = build_optimizer(layer, momentum=0.5, weight_decay=0.1)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    layer(torch.tensor([[4.0]])).sum().backward()
    optimizer.step()
    assert layer.weight.item() == pytest.approx(2 - 0.01 * 1.5 * (4 + 0.1 * 2))
    assert layer.bias.item() == pytest.approx(3 - 0.01 * 1.5 * 1)


def test_steps_are_fused_on_a_gpu_only() -> None:
    """On a CPU the optimiser is torch's usual one, whose results runs have been compared by."""
    optimizer = build_optimizer(_network(), momentum=0.9, weight_decay=1e-4)
    assert {group["fused"] for group in optimizer.param_groups} == {None}


def test_how_steps_are_computed_goes_with_the_device() -> None:
    """A checkpoint of a GPU's run brings momentum to a CPU, but not its fused steps."""
    there, here = (build_optimizer(_network(), momentum=0.9, weight_decay=1e-4) for _ in range(2))
    for group in there.param_groups:
        group["fused"] = True
        group["momentum"] = 0.5
    load_optimizer(here, there.state_dict())
    assert [(group["fused"], group["foreach"], group["momentum"]) for group in here.param_groups] == [
        (None, None, 0.5), (None, None, 0.5),
    ]  # fmt: skip
