"""The number format a network runs in: which one, and a forward pass in it."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from dali_fixres.config import AutoPrecision, Precision, RunConfig
from dali_fixres.errors import ConfigError
from dali_fixres.runtime.progress import Reporter

__all__ = ["auto_precision", "choose_precision", "choose_precisions", "has_fast_bf16", "run_network"]

CPUINFO = Path("/proc/cpuinfo")

BF16_FEATURES = {"avx512_bf16", "amx_bf16", "bf16"}
"""Names that Linux has for instructions on bfloat16: of x86 CPUs, and (the last) of Arm's."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precisions(
    config: RunConfig, device: torch.device, reporter: Reporter | None
) -> tuple[Precision, Precision]:
    """Return the number formats of a run's training and of its tests, as `choose_precision`."""
    return (
        choose_precision(config.precision, device, "--precision", reporter, resumed=config.resume),
        choose_precision(config.eval_precision, device, "--eval-precision", reporter, resumed=config.resume),
    )


def choose_precision(
    wanted: AutoPrecision, device: torch.device, flag: str, reporter: Reporter | None, *, resumed: bool = False
) -> Precision:
    """Return the number format for the value of a flag, and warn of one that is slow on the device.

    Args:
        wanted: The flag's value.
        device: What runs the network.
        flag: Its name.
        reporter: Shows the warning; None in a part of a run that has shown it.
        resumed: Whether the run was begun with this format, and so has to keep it.

    Raises:
        ConfigError: If it is fp16 on a CPU: what torch has for it there is slower than float32.
    """
    if wanted == "auto":
        return auto_precision(device)
    if wanted == "fp16" and device.type == "cpu":
        kept = "a run that was begun with it keeps it, so resume on a GPU, or start a new run"
        raise ConfigError(f"{flag} fp16 needs a GPU; {kept if resumed else 'on a CPU take bf16 or fp32'}")
    if reporter is not None and wanted == "bf16" and not has_fast_bf16(device):
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
