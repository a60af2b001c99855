"""A network as torch.compile makes it, with the code for every size of batch made before training begins."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import nn

from dali_fixres.config import Precision
from dali_fixres.runtime.precision import run_network

__all__ = ["compiled"]


def compiled(
    network: nn.Module,
    forward: nn.Module,
    shapes: Sequence[tuple[int, int]],
    device: torch.device,
    precision: Precision,
    backend: str | Callable[..., object] = "inductor",
) -> nn.Module:
    """Return what to call while learning: `forward`, compiled for each size, in training mode.

    Running it once for each is what makes the code. The network is afterwards as it was, and has no gradients.

    Args:
        network: The network.
        forward: The network as it is called while learning.
        shapes: Images and pixels of the crop of all batches that will come.
        device: Where the network is.
        precision: What it runs in.
        backend: As for ``torch.compile``.
    """
    # Beyond this many versions torch would go back to running what it could not compile.
    torch.compiler.config.recompile_limit = max(torch.compiler.config.recompile_limit, len(shapes) + 1)
    called = cast("nn.Module", torch.compile(forward, dynamic=False, backend=backend))
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    was_training = network.training
    network.train()
    for num_images, side in shapes:
        dtype = torch.float16 if device.type == "cuda" else torch.float32  # as the loader's
        images = torch.zeros(num_images, 3, side, side, dtype=dtype, device=device)
        images = images.to(memory_format=torch.channels_last)
        loss: Any = run_network(called, images, precision).float().sum()
        loss.backward()
    network.train(was_training)
    network.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            buffer.copy_(before[name])
    return called
