"""Shapes and types of what the loader hands over, checked by jaxtyping and beartype."""

from beartype import beartype
from jaxtyping import Float16, Float32, Int64, jaxtyped
from torch import Tensor

from pipelines.batch import Batch


def check_shapes(batch: Batch) -> None:
    """Fail unless images, labels and ids have the documented types and agree on the number of images."""
    check = _check_gpu if batch.images.is_cuda else _check_cpu
    check(batch.images, batch.labels)
    assert batch.ids.shape == batch.labels.shape
    assert batch.images.shape[2] == batch.resolution.crop_px


@jaxtyped(typechecker=beartype)
def _check_cpu(images: Float32[Tensor, "n 3 side side"], labels: Int64[Tensor, " n"]) -> None:
    assert images.device == labels.device


@jaxtyped(typechecker=beartype)
def _check_gpu(images: Float16[Tensor, "n 3 side side"], labels: Int64[Tensor, " n"]) -> None:
    assert images.device == labels.device
