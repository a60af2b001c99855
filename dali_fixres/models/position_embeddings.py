"""Position embeddings of weights for another image size, interpolated to those of the network they are loaded into."""

import sys

import torch
from torch import nn

__all__ = ["has_position_embeddings", "interpolated"]


def interpolated(network: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights whose position embeddings fit a network that is built for another image size, where possible.

    torchvision's and timm's own functions do it. Other differences stay, for the comparison that follows.
    """
    own = network.state_dict()
    if all(own[name].shape == state[name].shape for name in _names(network) if name in state):
        return state
    module = type(network).__module__
    if module.startswith("torchvision."):
        from torchvision.models.vision_transformer import (  # noqa: PLC0415 - slow to import
            VisionTransformer,
            interpolate_embeddings,
        )

        if isinstance(network, VisionTransformer):
            fitted: dict[str, torch.Tensor] = interpolate_embeddings(
                network.image_size, network.patch_size, dict(state)
            )
            return fitted
    convert = getattr(sys.modules[module], "checkpoint_filter_fn", None) if module.startswith("timm.") else None
    return state if convert is None else convert(dict(state), network)


def has_position_embeddings(network: nn.Module) -> bool:
    """Return whether a network has position embeddings, absolute or relative."""
    return bool(_names(network))


def _names(network: nn.Module) -> list[str]:
    return [name for name in network.state_dict() if "pos_embed" in name or "relative_position" in name]
