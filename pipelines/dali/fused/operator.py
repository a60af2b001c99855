"""The compiled operator as a node of a DALI graph.

DALI's plugin for numba compiles its glue anew for each graph and imports numba to do so. This takes the plugin's
operator in DALI's core, which is given addresses of functions, and gives it those of `machine_code`.
"""

from typing import Any

from nvidia.dali import ops as _ops
from nvidia.dali import types

from pipelines.dali.fused import GIVES_BYTES
from pipelines.dali.fused.machine_code import Entries

__all__ = ["WHOLE", "fused"]

WHOLE = 0.0
"""Times a box: the box that stands for the whole image."""

ops: Any = _ops
"""DALI's operator classes; its stubs lack the factory."""

_Operator = ops.python_op_factory("Fused", "NumbaFuncImpl", generated=False)

UINT8, INT32 = types.DALIDataType.UINT8, types.DALIDataType.INT32
FLOAT, FLOAT64 = types.DALIDataType.FLOAT, types.DALIDataType.FLOAT64


def fused(
    entries: Entries,
    canvas: Any,
    images: Any,
    box: Any,
    colour: Any,
    erased: Any,
    options: Any,
    *,
    gives_bytes: bool,
) -> Any:
    """Return the crops of a batch, as nodes of the graph.

    Args:
        entries: From `machine_code`.
        canvas: Its length is the crop's side, (side,) uint8.
        images: Decoded, (height, width, 3) uint8.
        box: Crop box (y0, x0, y1, x1), back to front where it is mirrored, (4,) float64; all 0 for the whole image.
        colour: Map [M | t] of colours in 0-255, (3, 4) float32.
        erased: Boxes (y0, x0, y1, x1) of the crop that are set to 0, (boxes, 4) int32.
        options: Number of the filter, with `AS_PIL` and `VERTICAL_FIRST` added where they hold, (1,) int32.
        gives_bytes: Whether to round to bytes, without a colour map.

    Returns:
        Crops, (side, side, 3) float32 or uint8.
    """
    node = _Operator(
        run_fn=entries.run,
        setup_fn=entries.set_up,
        out_types=[UINT8 if gives_bytes else FLOAT, UINT8],
        outs_ndim=[3, 1],
        in_types=[UINT8, UINT8, FLOAT64, FLOAT, INT32, INT32],
        ins_ndim=[1, 3, 1, 2, 2, 1],
        batch_processing=False,
    )
    options = options + (GIVES_BYTES if gives_bytes else 0)
    crops, _scratch = node(canvas, images, box, colour, erased, options)
    return crops
