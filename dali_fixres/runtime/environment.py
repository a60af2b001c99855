"""What a figure was measured on."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pipelines.processes import usable_cores

__all__ = ["environment"]

PACKAGES = (
    "dali-fixres",
    "torch",
    "torchvision",
    "nvidia-dali-cuda120",
    "nvidia-nvimgcodec-cu12",
    "nvidia-nvjpeg-cu12",
    "timm",
    "numpy",
    "pillow",
)


def environment() -> dict[str, str | int | float | None]:
    """Return machine and versions, as every results file records them."""
    return {
        "cpu": _cpu_name(),
        "usable_cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }


def _driver() -> str | None:
    """Return the version of NVIDIA's driver, or None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    asked = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - NVIDIA's own
    lines = asked.stdout.splitlines()  # one per GPU
    return lines[0].strip() if asked.returncode == 0 and lines else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
