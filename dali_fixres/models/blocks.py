"""The last blocks of a network (residual blocks, cells, transformer blocks), found in a forward pass."""

from typing import Any

from torch import nn

from dali_fixres.errors import ModelError
from dali_fixres.models.head import run_once
from pipelines.resolution import Resolution

__all__ = ["last_blocks"]


def last_blocks(network: nn.Module, resolution: Resolution, classifier_name: str, number: int) -> tuple[str, ...]:
    """Return the names of the modules of the last blocks before the classifier, in the order they run.

    A block is a module that is repeated in a sequence, or a layer outside of any. A layer without a weight matrix (a
    norm) belongs to the block before it. ResNet-50's last block is ``layer4.2``, EfficientNet's ``conv_head`` with
    ``bn2``.

    Args:
        network: Any.
        resolution: An image size that it takes.
        classifier_name: `Head.classifier_name`.
        number: How many blocks.

    Raises:
        ModelError: If there are fewer blocks.
    """
    names: list[str] = []
    num_blocks = 0
    for layer in reversed(_layers_before(network, resolution, classifier_name)):
        name = _block_of(network, layer, classifier_name)
        if name in names:
            continue
        if num_blocks == number:
            return tuple(reversed(names))
        names.append(name)
        num_blocks += _num_weights(network.get_submodule(name)) > 0
    if num_blocks < number:
        raise ModelError(
            f"{type(network).__name__} has only {num_blocks} blocks before its classifier; lower --num-blocks"
        )
    return tuple(reversed(names))


def _layers_before(network: nn.Module, resolution: Resolution, classifier_name: str) -> list[str]:
    """Return the layers with parameters of their own that run before the classifier, in that order."""
    ran: list[str] = []

    def note(name: str) -> Any:
        return lambda *_: ran.append(name)

    modules = [(name, module) for name, module in network.named_modules() if name and not _holds_blocks(module)]
    layers = [(name, module) for name, module in modules if next(module.parameters(recurse=False), None) is not None]
    handles = [module.register_forward_hook(note(name)) for name, module in layers]
    try:
        run_once(network, resolution)
    finally:
        for handle in handles:
            handle.remove()
    return ran[: ran.index(classifier_name)]


def _block_of(network: nn.Module, layer: str, classifier_name: str) -> str:
    """Return the outermost module around a layer that is not a sequence of blocks and does not hold the classifier."""
    parts = layer.split(".")
    for depth in range(1, len(parts)):
        name = ".".join(parts[:depth])
        if not classifier_name.startswith(f"{name}.") and not _holds_blocks(network.get_submodule(name)):
            return name
    return layer


def _holds_blocks(module: nn.Module) -> bool:
    """Return whether a module is a sequence, or a stage that holds a sequence of equal blocks."""
    if isinstance(module, nn.Sequential | nn.ModuleList):
        return True
    return any(isinstance(child, nn.Sequential | nn.ModuleList) and _is_repeated(child) for child in module.children())


def _is_repeated(sequence: nn.Module) -> bool:
    blocks = list(sequence.children())
    return len(blocks) > 1 and len({type(block) for block in blocks}) == 1 and _num_weights(blocks[0]) > 1


def _num_weights(module: nn.Module) -> int:
    """Return how many weight matrices or kernels are in a module."""
    return sum(parameter.ndim > 1 for parameter in module.parameters())
