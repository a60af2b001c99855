"""Where a network's classifier and its last norm before the pooling are: found by running it once, not by name."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dali_fixres.errors import ModelError
from dali_fixres.resolution import Resolution

__all__ = ["Anatomy", "dissect"]

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
_CLASSIFIERS = (nn.Linear, nn.Conv2d)


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """The parts that FixRes tunes.

    Attributes:
        classifier: The last layer that ran, with a weight.
        classifier_name: Its name in the network.
        norm: The last norm that ran while there was still more than one position; None if there is none.
        norm_name: Its name in the network; empty if there is none.
    """

    classifier: nn.Module
    classifier_name: str
    norm: nn.Module | None
    norm_name: str


def dissect(network: nn.Module, resolution: Resolution) -> Anatomy:
    """Run one black picture through a network and note which norm and which layer came last.

    Raises:
        ModelError: If the network cannot take pictures of this size, or has no linear classifier.
    """
    norms: list[tuple[str, nn.Module]] = []
    layers: list[tuple[str, nn.Module]] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(module, _NORMS) and torch.is_tensor(output) and _has_positions(output):
                norms.append((name, module))
            elif isinstance(module, _CLASSIFIERS):
                layers.append((name, module))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules()]
    try:
        run_once(network, resolution)
    finally:
        for handle in handles:
            handle.remove()
    if not layers:
        raise ModelError(f"{type(network).__name__} has no linear or convolutional classifier to tune")
    norm_name, norm = norms[-1] if norms else ("", None)
    return Anatomy(layers[-1][1], layers[-1][0], norm, norm_name)


def run_once(network: nn.Module, resolution: Resolution) -> torch.Tensor:
    """Return the output for one black picture; the network's mode and statistics stay as they were.

    Raises:
        ModelError: If the network cannot take pictures of this size.
    """
    device = next(network.parameters()).device
    side = resolution.crop_px
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            output: torch.Tensor = network(torch.zeros(1, 3, side, side, device=device))
            return output
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ModelError(
            f"{type(network).__name__} cannot take pictures of {side} px: {str(error).partition(chr(10))[0]}"
        ) from error
    finally:
        network.train(was_training)


def _has_positions(output: torch.Tensor) -> bool:
    """Return whether there is more than one place: (n, c, h, w) and (n, h, w, c) maps, or (n, tokens, c)."""
    if output.ndim == 4:
        return output.shape[1:].numel() > max(output.shape[1], output.shape[3])
    return output.ndim == 3 and output.shape[1] > 1
