"""A network's classifier and its last norm before the pooling, found by a forward pass and not by name."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from inspect import signature
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from dali_fixres.errors import ModelError
from dali_fixres.models.position_embeddings import has_position_embeddings
from pipelines.resolution import Resolution

__all__ = ["Head", "count_gmacs", "find_head", "run_once", "takes_other_sizes"]

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
_CLASSIFIERS = (nn.Linear, nn.Conv2d)

ENOUGH_PX = 160
"""At this size, networks with five strides of 2 still have several positions at the end, even without padding."""

PATCH_PX = (16, 14)
"""Patch sizes of transformers; convolutional networks take multiples of 16 px as well."""


SIZE_ARGUMENTS = ("image_size", "img_size", "input_size")
"""What constructors of torchvision and timm call the image size that they build a network for."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The parts of a network that FixRes tunes.

    Attributes:
        classifier: The last linear or convolutional layer.
        classifier_name: Its name in the network.
        norm: The last norm before the pooling, if there is one.
        norm_name: Its name in the network; empty if there is none.
    """

    classifier: nn.Module
    classifier_name: str
    norm: nn.Module | None
    norm_name: str


@dataclass(frozen=True, slots=True, eq=False)
class _NormCall:
    """A call of a norm: its name, its module and the autograd node of its output."""

    name: str
    module: nn.Module
    node: Any


def find_head(network: nn.Module, resolution: Resolution) -> Head:
    """Find the classifier and the last norm in a forward pass of one black image.

    Norms behind the pooling, where there is one position, do not count. The last norm is the one with the most norms
    before it on any path: in a residual block with a norm on both branches, that of the longer branch.

    Args:
        network: Any; its mode, statistics and gradients stay as they are.
        resolution: An image size that it takes.

    Raises:
        ModelError: If the network cannot take images of this size, or has no linear or convolutional classifier.
    """
    run_once(network, resolution)
    if resolution.crop_px < ENOUGH_PX:
        # The last maps of a small image have one position and look pooled already.
        try:
            return _find_head(network, Resolution(ENOUGH_PX))
        except ModelError:
            return _find_head(network, resolution)  # a network for one image size
    return _find_head(network, resolution)


def _find_head(network: nn.Module, resolution: Resolution) -> Head:
    norms: list[_NormCall] = []
    layers: list[tuple[str, nn.Module]] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(module, _NORMS) and _has_positions(output):
                norms.append(_NormCall(name, module, output.grad_fn))
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
    depths = _depths({call.node for call in norms})
    # max() returns the first of equals: in reversed order, the last call.
    last = max(reversed(norms), key=lambda call: depths[call.node], default=None)
    norm, norm_name = (last.module, last.name) if last else (None, "")
    return Head(layers[-1][1], layers[-1][0], norm, norm_name)


def run_once(network: nn.Module, resolution: Resolution) -> torch.Tensor:
    """Return the logits of one black image, (1, classes); the network's mode and statistics stay as they are.

    Raises:
        ModelError: If the network cannot take images of this size; the message names sizes that it does take.
    """
    with _advising(network, resolution), torch.no_grad():
        return _forward(network, resolution)


def takes_other_sizes(network: nn.Module, side: int) -> bool:
    """Return whether a network that is built for images of this size, pixels, takes others as well; it is tried.

    Other sizes are those with one or two patches more, and twice the size, for what has a fixed number of windows.
    """
    return any(_takes(network, other) for other in (side + 32, side + 28, 2 * side))


def count_gmacs(network: nn.Module, resolution: Resolution) -> float:
    """Return the multiply-accumulates of one image in billions: matrix products and convolutions, counted by torch.

    Raises:
        ModelError: If the network cannot take images of this size; the message names sizes that it does take.
    """
    # With gradients: without them torch uses fused attention, which its counter does not know.
    with _advising(network, resolution), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        _forward(network, resolution)
    num_operations: int = counter.get_total_flops()
    return num_operations / 2 / 1e9  # a multiply-accumulate counts as two operations


@contextmanager
def _advising(network: nn.Module, resolution: Resolution) -> Iterator[None]:
    """Add to a ModelError about an image size which sizes the network takes."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{error}; {_advice(network, resolution)}") from error


def _advice(network: nn.Module, resolution: Resolution) -> str:
    """Return a sentence with the image sizes that a network takes, near this one, and with what builds it for it."""
    sides = {*range(PATCH_PX[0] * 2, 641, PATCH_PX[0]), *range(PATCH_PX[1] * 3, 641, PATCH_PX[1])}
    sides |= _built_for(network)
    nearest = sorted(sides, key=lambda side: abs(side - resolution.crop_px))
    taken = sorted(islice((side for side in nearest if _takes(network, side)), 3))
    if not taken:
        return "nor does it take other sizes up to 640 px"
    if len(taken) == 1:
        return f"it takes {taken[0]} px alone{_size_argument(network, resolution.crop_px)}"
    stride, numbers = math.gcd(*taken), ", ".join(map(str, taken))
    straddles = taken[0] < resolution.crop_px < taken[-1]
    if straddles and taken == list(range(taken[0], taken[-1] + 1, stride)):
        return f"it takes multiples of {stride} px: {numbers}"
    return f"it takes {numbers} px"


def _built_for(network: nn.Module) -> set[int]:
    """Return the image size that a network of torchvision or timm says it is built for, if it says one."""
    said = (getattr(network, "image_size", None), getattr(getattr(network, "patch_embed", None), "img_size", None))
    return {size[0] if isinstance(size, tuple) else size for size in said if size is not None}


def _takes(network: nn.Module, side: int) -> bool:
    with suppress(ModelError), torch.no_grad():
        _forward(network, Resolution(side))
        return True
    return False


def _size_argument(network: nn.Module, side: int) -> str:
    """Return which argument builds a network for an image size, if its weights can follow."""
    known = signature(type(network).__init__).parameters
    argument = next((name for name in SIZE_ARGUMENTS if name in known), None)
    if argument is None or not has_position_embeddings(network):
        return ""
    value = f"'({side},{side})'" if argument == "input_size" else str(side)
    return f"; --model-arg {argument}={value} builds it for {side} px and interpolates its position embeddings"


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
    """Put a network into evaluation mode, and afterwards each module back into its own."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _has_positions(output: torch.Tensor) -> bool:
    """Return whether maps, (n, c, h, w) or (n, h, w, c), or tokens, (n, tokens, c), have more than one position."""
    if output.ndim == 4:
        return output.shape[1:].numel() > max(output.shape[1], output.shape[3])
    return output.ndim == 3 and output.shape[1] > 1


def _depths(marked: set[Any]) -> dict[Any, int]:
    """Return for each autograd node up to the `marked` ones the most marked nodes on any path from the input to it."""
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
