"""The operator's arithmetic, compiled by numba: PIL's filters, in two kinds of numbers.

`quick_row` works in float32 and does not round between the passes: for training. `exact_along` and `exact_down` repeat
PIL's fixed-point arithmetic, which rounds to bytes after each pass: slower, with the very bytes of PIL, for testing.
The compiler may neither reorder nor fuse floating-point operations, so results are the same on every CPU.

Arrays are flat: an image is (height * width * 3,) uint8, a row of pixels (3 * side,). Indices are unsigned in inner
loops: that spares numba's check for negative ones, and LLVM vectorises the loop.
"""

import math
from collections import namedtuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

__all__ = [
    "OPTIONS",
    "Axis",
    "as_fixed_point",
    "as_float32",
    "as_floats",
    "clip",
    "compiled",
    "erase",
    "exact_along",
    "exact_down",
    "extent",
    "find_weights",
    "overshoots",
    "paint_bytes",
    "paint_floats",
    "quick_row",
    "radius_of",
]

OPTIONS = {"error_model": "numpy", "boundscheck": False, "nogil": True, "_nrt": False}
"""Of functions that neither raise nor allocate, so that their machine code can run without numba."""

compiled = njit(**OPTIONS)

BILINEAR, BICUBIC, LANCZOS = range(3)
"""Places in `pipelines.plan.interpolation.INTERPOLATIONS`."""

ONE, TWO, THREE = np.uint64(1), np.uint64(2), np.uint64(3)

PRECISION = 22
"""Bits behind the point of PIL's weights."""

HALF = 1 << (PRECISION - 1)
"""What PIL adds before it cuts these bits off."""

Axis = namedtuple("Axis", ("firsts", "counts", "weights", "stride"))  # noqa: PYI024 - what numba takes
"""Of each output pixel along one axis: its first source pixel, how many there are, and, `stride` places apart, their
weights."""


@compiled
def radius_of(kind):
    """Return how far a filter reaches, in pixels of the output."""
    if kind == BICUBIC:
        return 2.0
    if kind == LANCZOS:
        return 3.0
    return 1.0


@compiled
def weight_at(kind, x):
    """Return a filter's value, in PIL's order of operations."""
    x = abs(x)
    if kind == BILINEAR:
        return max(1.0 - x, 0.0)
    if kind == LANCZOS:
        return sinc(x) * sinc(x / 3.0) if x < 3.0 else 0.0
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0


@compiled
def overshoots(kind):
    """Return whether a filter has weights below 0, so that its sums may leave 0-255."""
    return kind != BILINEAR


@compiled
def sinc(x):
    """Return sin(pi x) / (pi x)."""
    x *= math.pi
    return math.sin(x) / x if x != 0.0 else 1.0


@compiled
def find_weights(start, end, size, kind, axis):
    """Find the source pixels along one axis that each output pixel is made of; their weights add up to 1.

    Args:
        start: Of the crop box, in source pixels.
        end: Likewise; below `start` where the crop is mirrored.
        size: Of the image.
        kind: Of the filter.
        axis: Filled; its weights are (side * stride,) float64, 0 behind the last of each output pixel.

    Returns:
        The most source pixels of any output pixel.
    """
    side = len(axis.firsts)
    scale = abs(end - start) / side
    stretch = max(scale, 1.0)
    per_pixel = 1.0 / stretch
    reach = radius_of(kind) * stretch
    most = 0
    for i in range(side):
        centre = min(start, end) + (i + 0.5) * scale
        first = max(int(centre - reach + 0.5), 0)
        count = min(int(centre + reach + 0.5), size) - first
        if count < 1:  # by rounding, at the end of the image
            first, count = min(first, size - 1), 1
        place = side - 1 - i if end < start else i
        weights = axis.weights[place * axis.stride : (place + 1) * axis.stride]
        total = 0.0
        for k in range(count):
            weights[k] = weight_at(kind, (first + k - centre + 0.5) * per_pixel)
            total += weights[k]
        for k in range(axis.stride):
            weights[k] = (weights[k] / total if total != 0.0 else 1.0) if k < count else 0.0
        axis.firsts[place] = first
        axis.counts[place] = count
        most = max(most, count)
    return most


@compiled
def extent(axis):
    """Return the first source pixel of all output pixels, and how many there are."""
    ends = (0, len(axis.firsts) - 1)  # in one order or, mirrored, in the other
    first = min(axis.firsts[ends[0]], axis.firsts[ends[1]])
    last = max(axis.firsts[ends[0]] + axis.counts[ends[0]], axis.firsts[ends[1]] + axis.counts[ends[1]])
    return first, last - first


@compiled
def as_float32(weights, out):
    """Convert weights for `quick_row`."""
    for i in range(len(out)):
        out[i] = np.float32(weights[i])


@compiled
def as_fixed_point(weights, out):
    """Convert weights for `exact_along` and `exact_down`, rounded as PIL rounds them."""
    for i in range(len(out)):
        scaled = weights[i] * (1 << PRECISION)
        out[i] = np.int32(scaled - 0.5 if weights[i] < 0.0 else scaled + 0.5)


@intrinsic
def weighted_pixel(context, sums, at, weights, weight_at, count, pixels, to):
    """Store the weighted sum of adjacent pixels, in vectors of four floats, which LLVM does not find itself.

    The fourth float is of the pixel behind. It is read beyond the last pixel, and what it is stored as is overwritten
    by the next sum.

    Args:
        context: numba's.
        sums: Pixels, float32.
        at: Place of the first pixel's red.
        weights: Float32.
        weight_at: Place of the first pixel's weight.
        count: Of pixels.
        pixels: Where the sum goes, float32.
        to: Its place.
    """

    def generate(context, builder, signature, arguments):
        four, step = ir.VectorType(ir.FloatType(), 4), context.get_constant(types.int64, 3)
        values, factors, out = (
            arrayobj.make_array(signature.args[n])(context, builder, arguments[n]).data for n in (0, 2, 5)
        )
        _, at, _, weight_at, count, _, to = arguments
        total = cgutils.alloca_once_value(builder, ir.Constant(four, None))
        with cgutils.for_range(builder, count, intp=ir.IntType(64)) as loop:
            place = builder.add(at, builder.mul(loop.index, step))
            pixel = builder.load(builder.bitcast(builder.gep(values, [place]), four.as_pointer()), align=4)
            weight = builder.load(builder.gep(factors, [builder.add(weight_at, loop.index)]))
            weighted = builder.fmul(_repeated(builder, weight, four), pixel)
            builder.store(builder.fadd(builder.load(total), weighted), total)
        builder.store(builder.load(total), builder.bitcast(builder.gep(out, [to]), four.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(sums, types.int64, weights, types.int64, types.int64, pixels, types.int64), generate


def _repeated(builder, value, four):
    """Return a vector of a value."""
    empty, number = ir.Constant(four, ir.Undefined), ir.IntType(32)
    one = builder.insert_element(empty, value, ir.Constant(number, 0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(number, 4), [0, 0, 0, 0]))


@compiled
def quick_row(image, width, y, rows, columns, most, sums, pixels):
    """Resize to one row of pixels, in float32: first down the columns, which is contiguous, then along the row.

    Args:
        image: Bytes of the image.
        width: Of the image.
        y: Row of the output.
        rows: Axis with float32 weights.
        columns: Likewise.
        most: Source pixels of any output pixel along the row.
        sums: Scratch for one row of the image, `most` more pixels and one more float; finite.
        pixels: Filled, (3 * side,) float32, 0-255; one more float is written behind it.
    """
    left, length = extent(columns)
    left *= 3
    length *= 3
    row = sums[:length]
    at = (rows.firsts[y] * width) * 3 + left
    set_weighted(image[at : at + length], rows.weights[y * rows.stride], row)
    for k in range(1, rows.counts[y]):
        at += 3 * width
        add_weighted(image[at : at + length], rows.weights[y * rows.stride + k], row)
    for x in range(len(columns.firsts)):
        weighted_pixel(sums, columns.firsts[x] * 3 - left, columns.weights, x * columns.stride, most, pixels, 3 * x)


@compiled
def set_weighted(row, weight, sums):
    """Set sums to a weighted row of bytes."""
    for i in range(len(sums)):
        sums[i] = weight * np.float32(row[i])


@compiled
def add_weighted(row, weight, sums):
    """Add a weighted row of bytes."""
    for i in range(len(sums)):
        sums[i] += weight * np.float32(row[i])


@compiled
def exact_along(row, first, columns, out):
    """Resize a row of bytes along itself, in PIL's fixed point.

    Args:
        row: Bytes, from source pixel `first` on.
        first: Source pixel.
        columns: Axis with int32 weights.
        out: Filled, (3 * side,) uint8.
    """
    for x in range(len(columns.firsts)):
        taken = row[np.uint32((columns.firsts[x] - first) * 3) :]
        weights = columns.weights[np.uint32(x * columns.stride) :]
        red = green = blue = np.int32(HALF)
        for k in range(columns.counts[x]):
            weight = weights[np.uint32(k)]
            red = np.int32(red + weight * np.int32(taken[np.uint32(3 * k)]))
            green = np.int32(green + weight * np.int32(taken[np.uint32(3 * k + 1)]))
            blue = np.int32(blue + weight * np.int32(taken[np.uint32(3 * k + 2)]))
        out[np.uint32(3 * x)] = as_byte(red)
        out[np.uint32(3 * x + 1)] = as_byte(green)
        out[np.uint32(3 * x + 2)] = as_byte(blue)


@compiled
def exact_down(image, at, step, y, rows, sums, out):
    """Resize columns of bytes down to one row, in PIL's fixed point.

    Args:
        image: Rows of bytes.
        at: Where the part that is resized begins in the row of `rows.firsts[y]`.
        step: From one row to the next.
        y: Row of the output.
        rows: Axis with int32 weights.
        sums: Scratch, int32, as long as the part.
        out: Filled, uint8, likewise.
    """
    for i in range(len(sums)):
        sums[i] = HALF
    for k in range(rows.counts[y]):
        add_fixed_point(image[at : at + len(sums)], rows.weights[y * rows.stride + k], sums)
        at += step
    for i in range(len(sums)):
        out[i] = as_byte(sums[i])


@compiled
def add_fixed_point(row, weight, sums):
    """Add a weighted row of bytes, in fixed point."""
    for i in range(len(sums)):
        sums[i] += weight * np.int32(row[i])


@compiled
def as_byte(value):
    """Return a fixed-point sum as a byte, clipped."""
    return np.uint8(min(max(value >> PRECISION, 0), 255))


@compiled
def as_floats(row, pixels):
    """Convert a row of bytes to float32."""
    for i in range(len(pixels)):
        pixels[i] = np.float32(row[i])


@compiled
def clip(pixels):
    """Limit sums of `quick_row` to 0-255; PIL does it after each pass, here it is done once, after both."""
    for i in range(len(pixels)):
        pixels[i] = min(max(pixels[i], np.float32(0)), np.float32(255))


@compiled
def paint_floats(pixels, colour, out):
    """Map the colours of one row of pixels.

    Args:
        pixels: (3 * side,) float32, 0-255.
        colour: The map [M | t], (12,) float32.
        out: Filled, (3 * side,) float32.
    """
    at = np.uint64(0)
    for _ in range(len(pixels) // 3):
        red, green, blue = pixels[at], pixels[at + ONE], pixels[at + TWO]
        out[at] = colour[0] * red + colour[1] * green + colour[2] * blue + colour[3]
        out[at + ONE] = colour[4] * red + colour[5] * green + colour[6] * blue + colour[7]
        out[at + TWO] = colour[8] * red + colour[9] * green + colour[10] * blue + colour[11]
        at += THREE


@compiled
def paint_bytes(pixels, out):
    """Round one row of pixels to bytes."""
    for i in range(len(pixels)):
        out[i] = np.uint8(min(max(pixels[i] + np.float32(0.5), np.float32(0)), np.float32(255)))


@compiled
def erase(out, side, boxes):
    """Set boxes (y0, x0, y1, x1) of the output to 0, as far as they lie inside; boxes are flat, (4 * number,) int32."""
    for first in range(0, len(boxes), 4):
        left, right = max(boxes[first + 1], 0), min(boxes[first + 3], side)
        for y in range(max(boxes[first], 0), min(boxes[first + 2], side)):
            for i in range(3 * (y * side + left), 3 * (y * side + right)):
                out[i] = 0
