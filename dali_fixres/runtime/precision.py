"""The number format a network runs in: which one, and a forward pass in it."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from dali_fixres.config import AutoPrecision, Precision
from dali_fixres.errors import ConfigError
from dali_fixres.runtime.progress import Reporter

__all__ = ["auto_precision", "choose_precision", "has_fast_bf16", "run_network"]

CPUINFO = Path("/proc/cpuinfo")

BF16_FEATURES = {"avx512_bf16", "amx_bf16", "bf16"}
"""Names that Linux has for instructions on bfloat16: of x86 CPUs, and (the last) of Arm's."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(wanted: AutoPrecision, device: torch.device, flag: str, reporter: Reporter) -> Precision:
    """Return the number format for the value of a flag, and warn of one that is slow on the device.

    Raises:
        ConfigError: If it is fp16 on a CPU: what torch has for it there is slower than float32.
    """
    if wanted == "auto":
        return auto_precision(device)
    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError(f"{flag} fp16 needs a GPU; on a CPU take bf16 or fp32")
    if wanted == "bf16" and not has_fast_bf16(device):
        reporter.warn(f"{flag} bf16 is slow here: this {device.type} has no instructions for bfloat16; fp32 is faster")
    return wanted


def auto_precision(device: torch.device) -> Precision:
    """Return what ``--precision auto`` takes: on a GPU bf16, or fp16 if it lacks that; on a CPU fp32."""
    if device.type == "cpu":
        return "fp32"
    return "bf16" if has_fast_bf16(device) else "fp16"


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether a device has instructions for bfloat16; others emulate it, which is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return not BF16_FEATURES.isdisjoint(_cpu_features())


def _cpu_features() -> set[str]:
    """Return the names of what the first CPU can do."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.exists() else []
    found = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return set(next(found, ()))


def run_network(network: nn.Module, images: torch.Tensor, precision: Precision) -> torch.Tensor:
    """Run a network forward in a number format; its parameters stay float32.

    Args:
        network: On the device of the images.
        images: (n, 3, h, w), float32 or float16.
        precision: With bf16 and fp16 torch's autocast decides which operators run in it.

    Returns:
        The logits, (n, classes).
    """
    forward: Callable[[torch.Tensor], torch.Tensor] = network
    if precision == "fp32":
        return forward(images.float())
    with torch.autocast(images.device.type, dtype=DTYPES[precision]):
        return forward(images)
