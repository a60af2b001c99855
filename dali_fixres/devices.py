"""Which device to compute on, and with how many threads."""

import os

import torch

from dali_fixres.config import Device
from dali_fixres.errors import DeviceError

__all__ = ["choose_device", "usable_cores"]


def choose_device(wanted: Device) -> torch.device:
    """Return the device for a ``--device`` value.

    Raises:
        DeviceError: If a GPU is asked for and torch finds none; the message says what it found.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        raise DeviceError(
            f"--device cuda: torch {torch.__version__} {built} and finds {torch.cuda.device_count()} GPUs; "
            "check nvidia-smi, or use --device cpu"
        )
    return torch.device("cuda", torch.cuda.current_device())


def usable_cores() -> int:
    """Return the number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0))
