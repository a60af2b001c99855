"""The operator as DALI's ``NumbaFuncImpl`` calls it: addresses in, arrays of `arithmetic` out. Imported to compile."""

from collections import namedtuple
from typing import Any

import numpy as np
from numba import cfunc, types
from numba.extending import intrinsic
from numba.np import arrayobj

from pipelines.dali.fused import AS_PIL, GIVES_BYTES, VERTICAL_FIRST
from pipelines.dali.fused.arithmetic import (
    OPTIONS,
    Axis,
    as_fixed_point,
    as_float32,
    as_floats,
    clip,
    compiled,
    erase,
    exact_along,
    exact_down,
    extent,
    find_weights,
    overshoots,
    paint_bytes,
    paint_floats,
    quick_row,
    radius_of,
)

__all__ = ["compile_entries"]

SPARE = 8
"""Bytes behind the rows that `quick_row` reads and writes one float beyond."""

LARGEST_RADIUS = 3
"""Of any filter, see `radius_of`."""

Paint = namedtuple("Paint", ("colour", "gives_bytes", "crop"))  # noqa: PYI024 - what numba takes
"""How rows of pixels become rows of the crop: the colour map, whether the crop is of bytes, and its address."""


def array_type(element: Any) -> Any:
    """Return a function, for compiled code, from an address and a length to the array that lies there."""
    array = types.Array(element, 1, "C")

    @intrinsic
    def array_at(context, address, length):
        def generate(context, builder, signature, arguments):
            made = arrayobj.make_array(array)(context, builder)
            item = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(element)))
            count = context.cast(builder, arguments[1], signature.args[1], types.intp)
            data = builder.inttoptr(arguments[0], made.data.type)
            arrayobj.populate_array(made, data, [count], [item], item, None)
            return made._getvalue()

        return array(types.uint64, types.int64), generate

    return array_at


uint8s, int32s, int64s, uint64s = map(array_type, (types.uint8, types.int32, types.int64, types.uint64))
float32s, float64s = map(array_type, (types.float32, types.float64))


@compiled
def stride_of(box, side, radius):
    """Return the most source pixels that an output pixel can be made of."""
    return int(2 * radius * max(box / side, 1.0)) + 3


def set_up(out_shapes, out_ndims, num_outs, in_shapes, in_ndims, num_ins, num_images):
    """Say how large the outputs of each image of a batch are: the crop, and scratch memory in bytes."""
    outs, ins = uint64s(out_shapes, 2 * num_images), uint64s(in_shapes, 2 * num_images)
    for i in range(num_images):
        side = int64s(ins[i], 1)[0]
        size = int64s(ins[num_images + i], 2)
        crop = int64s(outs[i], 3)
        crop[0] = side
        crop[1] = side
        crop[2] = 3
        # A crop box may lie outside its image by a pixel on each side, as `decode_regions` makes sure.
        strides = stride_of(size[0] + 2.0, side, LARGEST_RADIUS) + stride_of(size[1] + 2.0, side, LARGEST_RADIUS)
        axes = side * (16 + 12 * strides)
        rows = 27 * side + 15 * (size[1] + strides) + 2 * SPARE
        int64s(outs[num_images + i], 1)[0] = axes + rows + 3 * side * size[0]


def run(out_data, out_shapes, out_ndims, num_outs, in_data, in_shapes, in_ndims, num_ins):
    """Make the crop of one image; inputs and outputs are those of `pipelines.dali.fused.operator.fused`."""
    outs, ins, shapes = uint64s(out_data, 2), uint64s(in_data, 6), uint64s(in_shapes, 6)
    side = int64s(shapes[0], 1)[0]
    size = int64s(shapes[1], 2)
    image = uint8s(ins[1], 3 * size[0] * size[1])
    box, colour = float64s(ins[2], 4), float32s(ins[3], 12)
    erased = int32s(ins[4], 4 * int64s(shapes[4], 2)[0])
    options = int32s(ins[5], 1)[0]
    kind, as_pil, gives_bytes = options & (AS_PIL - 1), (options & AS_PIL) != 0, (options & GIVES_BYTES) != 0
    paint = Paint(colour, gives_bytes, outs[0])

    top, left, bottom, right = box[0], box[1], box[2], box[3]
    if top == bottom:
        bottom, right = float(size[0]), float(size[1])
    radius = radius_of(kind)
    stride_y, stride_x = stride_of(abs(bottom - top), side, radius), stride_of(abs(right - left), side, radius)
    scratch = outs[1]
    rows = Axis(
        int32s(scratch, side), int32s(scratch + 4 * side, side), float64s(scratch + 8 * side, side * stride_y), stride_y
    )
    scratch += 8 * side * (1 + stride_y)
    columns = Axis(
        int32s(scratch, side), int32s(scratch + 4 * side, side), float64s(scratch + 8 * side, side * stride_x), stride_x
    )
    scratch += 8 * side * (1 + stride_x)
    find_weights(top, bottom, size[0], kind, rows)
    most = find_weights(left, right, size[1], kind, columns)
    if as_pil:
        crop_as_pil(image, size[1], rows, columns, (options & VERTICAL_FIRST) != 0, scratch, paint)
    else:
        crop_quickly(image, size[1], rows, columns, most, overshoots(kind), scratch, paint)
    if gives_bytes:
        erase(uint8s(outs[0], 3 * side * side), side, erased)
    else:
        erase(float32s(outs[0], 3 * side * side), side, erased)


@compiled
def crop_quickly(image, width, rows, columns, most, overshoots, scratch, paint):
    """Make the crop in float32."""
    side = len(rows.firsts)
    quick_rows = Axis(rows.firsts, rows.counts, float32s(scratch, len(rows.weights)), rows.stride)
    scratch += 4 * len(rows.weights)
    quick_columns = Axis(columns.firsts, columns.counts, float32s(scratch, len(columns.weights)), columns.stride)
    scratch += 4 * len(columns.weights)
    as_float32(rows.weights, quick_rows.weights)
    as_float32(columns.weights, quick_columns.weights)
    pixels = float32s(scratch, 3 * side)
    sums = float32s(scratch + 12 * side + SPARE, 3 * (width + most) + 1)
    for i in range(len(sums)):
        sums[i] = 0
    for y in range(side):
        quick_row(image, width, y, quick_rows, quick_columns, most, sums, pixels)
        if overshoots:
            clip(pixels)
        paint_row(pixels, y, paint)


@compiled
def crop_as_pil(image, width, rows, columns, vertical_first, scratch, paint):
    """Make the crop in PIL's fixed point."""
    side = len(rows.firsts)
    exact_rows = Axis(rows.firsts, rows.counts, int32s(scratch, len(rows.weights)), rows.stride)
    scratch += 4 * len(rows.weights)
    exact_cols = Axis(columns.firsts, columns.counts, int32s(scratch, len(columns.weights)), columns.stride)
    scratch += 4 * len(columns.weights)
    as_fixed_point(rows.weights, exact_rows.weights)
    as_fixed_point(columns.weights, exact_cols.weights)
    pixels, row = float32s(scratch, 3 * side), uint8s(scratch + 12 * side, 3 * side)
    scratch += 16 * side  # a multiple of 4
    if vertical_first:
        crop_down_first(image, width, exact_rows, exact_cols, pixels, row, scratch, paint)
    else:
        crop_along_first(image, width, exact_rows, exact_cols, pixels, row, scratch, paint)


@compiled
def crop_along_first(image, width, rows, columns, pixels, row, scratch, paint):
    """Resize all rows along themselves, then down."""
    length = len(row)
    top, num_rows = extent(rows)
    sums, narrow = int32s(scratch, length), uint8s(scratch + 4 * length, length * num_rows)
    for y in range(num_rows):
        exact_along(image[3 * width * (top + y) :], 0, columns, narrow[length * y :])
    for y in range(len(rows.firsts)):
        exact_down(narrow, length * (rows.firsts[y] - top), length, y, rows, sums, row)
        as_floats(row, pixels)
        paint_row(pixels, y, paint)


@compiled
def crop_down_first(image, width, rows, columns, pixels, row, scratch, paint):
    """Resize down to one row after the other, then along it: PIL's order for tall images."""
    left, num_columns = extent(columns)
    length = 3 * num_columns
    sums, short = int32s(scratch, length), uint8s(scratch + 4 * length, length)
    for y in range(len(rows.firsts)):
        exact_down(image, 3 * (rows.firsts[y] * width + left), 3 * width, y, rows, sums, short)
        exact_along(short, left, columns, row)
        as_floats(row, pixels)
        paint_row(pixels, y, paint)


@compiled
def paint_row(pixels, y, paint):
    """Write one row of the crop."""
    length = len(pixels)
    at = np.uint64(length * y)
    if paint.gives_bytes:
        paint_bytes(pixels, uint8s(paint.crop + at, length))
    else:
        paint_floats(pixels, paint.colour, float32s(paint.crop + 4 * at, length))


def compile_entries() -> dict[str, tuple[str, str]]:
    """Return LLVM's assembly of each entry by name, and what the function is called in it."""
    address, number = types.uint64, types.int32
    of_images = (address, address, number)
    signatures = {
        set_up: types.void(*of_images, *of_images, number),
        run: types.void(address, *of_images, address, *of_images),
    }
    found = {}
    for function, signature in signatures.items():
        made = cfunc(signature, **OPTIONS)(function)
        found[function.__name__] = made.inspect_llvm(), made.native_name
    return found
