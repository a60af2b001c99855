"""Where a network's classifier and its last norm before the pooling are: found by running it once, not by name.

And what such a run costs.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from dali_fixres.errors import ModelError
from pipelines.resolution import Resolution

__all__ = ["Head", "count_gmacs", "find_head", "run_once"]

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
_CLASSIFIERS = (nn.Linear, nn.Conv2d)

ENOUGH_PX = 160
"""From here on, networks that halve the image five times end with more than one position, also without padding."""


PATCH_PX = (16, 14)
"""Sides of transformers' patches; networks of convolutions take multiples of 16 px as well."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The parts that FixRes tunes.

    Attributes:
        classifier: The last linear or convolutional layer that ran.
        classifier_name: Its name in the network.
        norm: The last norm before the pooling; None if there is none.
        norm_name: Its name in the network; empty if there is none.
    """

    classifier: nn.Module
    classifier_name: str
    norm: nn.Module | None
    norm_name: str


@dataclass(frozen=True, slots=True, eq=False)
class _Ran:
    """A norm that ran: its module and the autograd node of its output."""

    name: str
    module: nn.Module
    node: Any


def find_head(network: nn.Module, resolution: Resolution) -> Head:
    """Run one black image through a network and note which norm and which layer came last.

    The last norm is the one with the longest chain of norms before it, while there is still more than one position:
    in a residual block with a norm on either branch that is the one of the deep branch, whichever ran first.

    Raises:
        ModelError: If the network cannot take images of this size, or has no linear classifier.
    """
    run_once(network, resolution)
    if resolution.crop_px < ENOUGH_PX:
        # A small image leaves one position in the last maps, which then look pooled already.
        try:
            return _find_head(network, Resolution(ENOUGH_PX))
        except ModelError:
            return _find_head(network, resolution)  # it takes this size only
    return _find_head(network, resolution)


def _find_head(network: nn.Module, resolution: Resolution) -> Head:
    norms: list[_Ran] = []
    layers: list[tuple[str, nn.Module]] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(module, _NORMS) and _has_positions(output):
                norms.append(_Ran(name, module, output.grad_fn))
            elif isinstance(module, _CLASSIFIERS):
                layers.append((name, module))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules()]
    try:
        with torch.enable_grad():
            _forward(network, resolution)
    finally:
        for handle in handles:
            handle.remove()
    if not layers:
        raise ModelError(f"{type(network).__name__} has no linear or convolutional classifier to tune")
    depths = _depths({ran.node for ran in norms})
    # max() keeps the first of equals; reversed, that is the one that ran last.
    last = max(reversed(norms), key=lambda ran: depths[ran.node], default=None)
    norm, norm_name = (last.module, last.name) if last else (None, "")
    return Head(layers[-1][1], layers[-1][0], norm, norm_name)


def run_once(network: nn.Module, resolution: Resolution) -> torch.Tensor:
    """Return the output for one black image; the network's mode and statistics stay as they were.

    Raises:
        ModelError: If the network cannot take images of this size; the message names sizes that it takes.
    """
    try:
        with torch.no_grad():
            return _forward(network, resolution)
    except ModelError as error:
        raise ModelError(f"{error}; {_advice(network, resolution)}") from error


def count_gmacs(network: nn.Module, resolution: Resolution) -> float:
    """Return the billions of multiply-accumulates of one image, as torch counts them: matrix products, convolutions.

    Raises:
        ModelError: If the network cannot take images of this size.
    """
    # With gradients, as torch's fused attention, which its counter does not know, is for inference only.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        _forward(network, resolution)
    num_operations: int = counter.get_total_flops()
    return num_operations / 2 / 1e9  # it counts a multiply-accumulate as two


def _advice(network: nn.Module, resolution: Resolution) -> str:
    """Say at which sizes close by a network works, or what else to try."""
    sides = {*range(PATCH_PX[0] * 2, 641, PATCH_PX[0]), *range(PATCH_PX[1] * 3, 641, PATCH_PX[1])}
    taken: list[int] = []
    for side in sorted(sides, key=lambda side: abs(side - resolution.crop_px)):
        with suppress(ModelError), torch.no_grad():
            _forward(network, Resolution(side))
            taken.append(side)
        if len(taken) == 3:
            break
    return f"it takes {', '.join(map(str, sorted(taken)))} px" if taken else "nor does it take other sizes up to 640 px"


def _forward(network: nn.Module, resolution: Resolution) -> torch.Tensor:
    side = resolution.crop_px
    image = torch.zeros(1, 3, side, side, device=next(network.parameters()).device, requires_grad=True)
    try:
        with _evaluating(network):
            output: torch.Tensor = network(image)
            return output
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ModelError(
            f"{type(network).__name__} cannot take images of {side} px: {str(error).partition(chr(10))[0]}"
        ) from error


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and every module of it back into its own."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _has_positions(output: torch.Tensor) -> bool:
    """Return whether there is more than one place: (n, c, h, w) and (n, h, w, c) maps, or (n, tokens, c)."""
    if output.ndim == 4:
        return output.shape[1:].numel() > max(output.shape[1], output.shape[3])
    return output.ndim == 3 and output.shape[1] > 1


def _depths(marked: set[Any]) -> dict[Any, int]:
    """Return, for each autograd node at or below `marked` ones, the most marked nodes on any path from the input."""
    depths: dict[Any, int] = {}
    waiting = list(marked)
    while waiting:
        node = waiting[-1]
        below = [child for child, _ in node.next_functions if child is not None]
        unknown = [child for child in below if child not in depths]
        if unknown:
            waiting.extend(unknown)
            continue
        depths[node] = max((depths[child] for child in below), default=0) + (node in marked)
        waiting.pop()
    return depths
