"""The hardware and the versions that figures were measured with."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, TypedDict, cast

import torch

from pipelines.processes import usable_cores

__all__ = ["Environment", "environment"]

Version = Annotated[str | None, "version; null if not installed"]

_Versions = TypedDict(
    "_Versions",
    {
        "dali-fixres": Version,
        "torch": Version,
        "torchvision": Version,
        "nvidia-dali-cuda120": Version,
        "nvidia-nvimgcodec-cu12": Version,
        "nvidia-nvjpeg-cu12": Version,
        "timm": Version,
        "numba": Version,
        "numpy": Version,
        "pillow": Version,
    },
)


class Environment(_Versions):
    """`environment` in most JSON files: the hardware and the versions that figures were measured with."""

    cpu: Annotated[str, "name"]
    usable_cores: Annotated[int, "CPU cores this process may use"]
    memory_gib: Annotated[float, "of the machine, GiB"]
    gpu: Annotated[str | None, "name of the first GPU; null without one"]
    driver: Annotated[str | None, "version of NVIDIA's driver; null without one"]
    cuda: Annotated[str | None, "version that torch is built for; null if none"]
    python: Annotated[str, "version"]


def environment() -> Environment:
    """Return hardware and versions, as every results file records them."""
    machine = {
        "cpu": _cpu_name(),
        "usable_cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }
    versions = {package: _version(package) for package in _Versions.__annotations__}
    return cast("Environment", {**machine, **versions})


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
