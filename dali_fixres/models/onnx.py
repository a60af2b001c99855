"""Export as ONNX with a dynamic batch size, and comparison of the file's logits with the network's."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from dali_fixres.errors import ConfigError, ModelError
from pipelines.resolution import Resolution

__all__ = ["require_onnx", "write_onnx"]

PACKAGES = ("onnx", "onnxscript", "onnxruntime")

TOLERANCE = 1e-4
"""Largest allowed difference of a logit."""

BATCHES = (1, 3)
"""Batch sizes that are compared; the export uses another."""

LARGE_BYTES = 1_900_000_000
"""Above this size the weights go to a second file: protocol buffers end at 2 GiB."""


def require_onnx() -> None:
    """Check that the packages of the extra `onnx` are installed.

    Raises:
        ConfigError: If one is missing.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--onnx needs {', '.join(missing)}: pip install 'dali-fixres[onnx]' (in a clone: uv sync --extra onnx)"
        )


def write_onnx(network: nn.Module, resolution: Resolution, path: Path) -> float:
    """Write a network for one image size: (n, 3, side, side) to logits (n, classes), for any n.

    Args:
        network: On the CPU; put into evaluation mode.
        resolution: Image size.
        path: The file; weights of more than 1.9 GB go to a second one, named after it with ``.data`` appended.

    Returns:
        The largest difference of a logit from the network's, over random images.

    Raises:
        ModelError: If torch cannot export the network, or the logits differ by more than `TOLERANCE`.
    """
    network.eval()
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    try:
        torch.onnx.export(
            network,
            (_images(2, resolution),),
            path,
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=num_bytes > LARGE_BYTES,
        )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"torch cannot export {type(network).__name__} as ONNX: {reason}") from error
    difference = max(_difference(network, path, _images(number, resolution)) for number in BATCHES)
    if not difference <= TOLERANCE:  # also where it is NaN
        raise ModelError(
            f"the ONNX file of {type(network).__name__} differs from the network, by up to {difference:.2g}, "
            f"where {TOLERANCE} is allowed; it is not kept"
        )
    return difference


def _images(number: int, resolution: Resolution) -> torch.Tensor:
    """Return random images of mean 0 and variance 1, as normalised ones have."""
    side = resolution.crop_px
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(number))


def _difference(network: nn.Module, path: Path, images: torch.Tensor) -> float:
    """Return the largest difference of a logit."""
    from onnxruntime import InferenceSession  # noqa: PLC0415 - of the extra

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        return float((network(images) - torch.from_numpy(logits)).abs().max())
