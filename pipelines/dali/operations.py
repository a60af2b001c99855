"""Operations of augmentation policies, on crops in bytes: a plan names one per image and slot, with its magnitude.

Each runs on the images that it is planned for alone: DALI splits a batch at ``if``.
"""

from typing import Any

from nvidia.dali import fn as _fn
from nvidia.dali import types

from pipelines.plan.operations import NUM_SLOTS, Operation

__all__ = ["operated"]

fn: Any = _fn


def operated(crops: Any, operations: Any, magnitudes: Any) -> Any:
    """Return crops after the operations of all slots, one after the other.

    Args:
        crops: In bytes.
        operations: Numbers of `Operation`, (NUM_SLOTS,) int32.
        magnitudes: In the operation's own unit, (NUM_SLOTS,) float32.
    """
    for slot in range(NUM_SLOTS):
        crops = _apply(crops, operations[slot], magnitudes[slot])
    return crops


def _apply(crops: Any, operation: Any, magnitude: Any) -> Any:
    if operation == int(Operation.SOLARIZE):
        crops = _solarize(crops, magnitude)
    return crops


def _solarize(crops: Any, threshold: Any) -> Any:
    above = crops >= threshold
    return fn.cast(above * (255 - crops) + (1 - above) * crops, dtype=types.DALIDataType.UINT8)
