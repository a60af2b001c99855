"""The number format a network runs in."""

import torch

__all__ = ["forward_precision"]


def forward_precision(device: torch.device) -> torch.autocast:
    """Return the context of a forward pass: bfloat16 autocast on a GPU, plain float32 on a CPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
