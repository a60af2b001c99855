"""Compiling for all sizes before training: nothing is compiled later, and the network is as it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dali_fixres.training.compile import compiled

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Forget what other tests have compiled."""
    torch.compiler.reset()


def network() -> nn.Sequential:
    """Return a small network with a batch norm, put into testing mode."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    return layers.eval()


def test_every_size_is_compiled_before_training() -> None:
    """Of more sizes than torch's own limit each is compiled once, and steps on them compile nothing more."""
    graphs = 0

    def backend(graph: Any, _: object) -> Callable[..., object]:
        nonlocal graphs
        graphs += 1
        forward: Callable[..., object] = graph.forward
        return forward

    shapes = [(2, side) for side in range(16, 36, 2)]
    net = network()
    called = compiled(net, net, shapes, CPU, "fp32", backend)
    assert graphs == len(shapes) == 10
    net.train()
    for number, side in shapes:
        called(torch.zeros(number, 3, side, side).to(memory_format=torch.channels_last)).sum().backward()
    assert graphs == 10


def test_compiling_leaves_the_network_as_it_was() -> None:
    """Running statistics, mode and gradients are untouched, and the compiled network answers as the plain one."""
    net, plain = network(), network()
    called = compiled(net, net, [(2, 16), (3, 24)], CPU, "fp32", "eager")
    assert not net.training
    assert all(parameter.grad is None for parameter in net.parameters())
    state = plain.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    images = torch.randn(3, 3, 24, 24)
    net.train()
    plain.train()
    torch.testing.assert_close(called(images), plain(images))
