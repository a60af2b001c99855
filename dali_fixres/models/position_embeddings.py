"""Position embeddings of weights for another image size, interpolated to those of the network they are loaded into."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dali_fixres.errors import CheckpointError

__all__ = ["has_position_embeddings", "interpolated"]

Converter = Callable[[dict[str, torch.Tensor], nn.Module], dict[str, torch.Tensor]]


def interpolated(network: nn.Module, state: dict[str, torch.Tensor], source: str) -> dict[str, torch.Tensor]:
    """Return weights whose position embeddings fit a network that is built for another image size, where possible.

    torchvision's and timm's own functions do it. Other differences stay, for the comparison that follows.

    Args:
        network: It stays as it is.
        state: Tensors by name.
        source: Name of the file, for errors.

    Raises:
        CheckpointError: If the library's function does not take the tensors.
    """
    own = network.state_dict()
    if all(own[name].shape == state[name].shape for name in _names(network) if name in state):
        return state
    convert = _converter(network)
    if convert is None:
        return state
    try:
        return convert(dict(state), network)
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError) as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CheckpointError(
            f"the position embeddings of {source} cannot be interpolated for this network ({reason}); check --model "
            "and --model-arg"
        ) from error


def _converter(network: nn.Module) -> Converter | None:
    """Return the library's function for a network, if it has one."""
    module = type(network).__module__
    if module.startswith("torchvision."):
        from torchvision.models.vision_transformer import VisionTransformer  # noqa: PLC0415 - slow to import

        return _convert_torchvision if isinstance(network, VisionTransformer) else None
    return getattr(sys.modules[module], "checkpoint_filter_fn", None) if module.startswith("timm.") else None


def _convert_torchvision(state: dict[str, torch.Tensor], network: Any) -> dict[str, torch.Tensor]:
    from torchvision.models.vision_transformer import interpolate_embeddings  # noqa: PLC0415 - slow to import

    fitted: dict[str, torch.Tensor] = interpolate_embeddings(network.image_size, network.patch_size, state)
    return fitted


def has_position_embeddings(network: nn.Module) -> bool:
    """Return whether a network has position embeddings, absolute or relative."""
    return bool(_names(network))


def _names(network: nn.Module) -> list[str]:
    return [name for name in network.state_dict() if "pos_embed" in name or "relative_position" in name]
