"""The device to compute on."""

import torch

from dali_fixres.config import Device
from dali_fixres.errors import DeviceError
from pipelines.processes import local_rank

__all__ = ["choose_device"]


def choose_device(wanted: Device) -> torch.device:
    """Return the device for a ``--device`` value: under torchrun, the GPU with the number of the local rank.

    Raises:
        DeviceError: If torch finds no GPU for this process.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        raise DeviceError(
            f"--device cuda: torch {torch.__version__} {built} and finds {torch.cuda.device_count()} GPUs; "
            "check nvidia-smi, or use --device cpu"
        )
    rank = local_rank()
    if rank is None:
        return torch.device("cuda", torch.cuda.current_device())
    if rank >= torch.cuda.device_count():
        raise DeviceError(
            f"local rank {rank} has no GPU: torch finds {torch.cuda.device_count()}; lower torchrun's "
            "--nproc-per-node, or use --device cpu"
        )
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)
