"""The operator's arithmetic, compiled by numba: PIL's filters, in two kinds of numbers.

`quick_row` works in float32 and does not round between the passes: for training. `exact_columns` and `exact_row` repeat
PIL's fixed-point arithmetic, which rounds to bytes after each pass: slower, with the very bytes of PIL, for testing.
The compiler may neither reorder nor fuse floating-point operations, so results are the same on every CPU.

Arrays are flat: an image is (height * width * 3,) uint8, a row of pixels (3 * side,). Indices are unsigned where they
cannot be negative: that spares numba's check for it, and LLVM vectorises the loop.
"""

import math
from collections import namedtuple

import numpy as np
from numba import njit

__all__ = [
    "OPTIONS",
    "Axis",
    "as_fixed_point",
    "as_float32",
    "clip",
    "compiled",
    "erase",
    "exact_columns",
    "exact_row",
    "find_weights",
    "is_diagonal",
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

PRECISION = 22
"""Bits behind the point of PIL's weights."""

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
        end: Likewise.
        size: Of the image.
        kind: Of the filter.
        axis: Filled; its weights are (side * stride,) float64, 0 behind the last of each output pixel.

    Returns:
        The most source pixels of any output pixel.
    """
    side = len(axis.firsts)
    scale = (end - start) / side
    stretch = max(scale, 1.0)
    per_pixel = 1.0 / stretch
    reach = radius_of(kind) * stretch
    most = 0
    for i in range(side):
        centre = start + (i + 0.5) * scale
        first = max(int(centre - reach + 0.5), 0)
        count = min(int(centre + reach + 0.5), size) - first
        if count < 1:  # by rounding, at the end of the image
            first, count = min(first, size - 1), 1
        weights = axis.weights[i * axis.stride : (i + 1) * axis.stride]
        total = 0.0
        for k in range(count):
            weights[k] = weight_at(kind, (first + k - centre + 0.5) * per_pixel)
            total += weights[k]
        for k in range(axis.stride):
            weights[k] = (weights[k] / total if total != 0.0 else 1.0) if k < count else 0.0
        axis.firsts[i] = first
        axis.counts[i] = count
        most = max(most, count)
    return most


@compiled
def as_float32(weights, out):
    """Convert weights for `quick_row`."""
    for i in range(len(out)):
        out[i] = np.float32(weights[i])


@compiled
def as_fixed_point(weights, out):
    """Convert weights for `exact_columns` and `exact_row`, rounded as PIL rounds them."""
    for i in range(len(out)):
        scaled = weights[i] * (1 << PRECISION)
        out[i] = np.int32(scaled - 0.5 if weights[i] < 0.0 else scaled + 0.5)


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
        sums: Scratch for one row of the image and `most` more pixels; finite from `width` on.
        pixels: Filled, (3 * side,) float32, 0-255.
    """
    side = len(columns.firsts)
    left = columns.firsts[0] * 3
    length = (columns.firsts[side - 1] + columns.counts[side - 1]) * 3 - left
    row = sums[:length]
    at = (rows.firsts[y] * width) * 3 + left
    set_weighted(image[at : at + length], rows.weights[y * rows.stride], row)
    for k in range(1, rows.counts[y]):
        at += 3 * width
        add_weighted(image[at : at + length], rows.weights[y * rows.stride + k], row)
    for x in range(side):
        taken = sums[np.uint32(columns.firsts[x] * 3 - left) :]
        weights = columns.weights[np.uint32(x * columns.stride) :]
        red = green = blue = np.float32(0)
        for k in range(most):
            weight = weights[np.uint32(k)]
            red += weight * taken[np.uint32(3 * k)]
            green += weight * taken[np.uint32(3 * k + 1)]
            blue += weight * taken[np.uint32(3 * k + 2)]
        pixels[np.uint32(3 * x)] = red
        pixels[np.uint32(3 * x + 1)] = green
        pixels[np.uint32(3 * x + 2)] = blue


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
def exact_columns(image, width, rows, columns, narrow):
    """Resize along the rows, in PIL's fixed point, all rows of the image that `exact_row` needs.

    Args:
        image: Bytes of the image.
        width: Of the image.
        rows: Axis with int32 weights.
        columns: Likewise.
        narrow: Filled, (rows * 3 * side,) uint8.
    """
    side = len(columns.firsts)
    last = len(rows.firsts) - 1
    for y in range(rows.firsts[0], rows.firsts[last] + rows.counts[last]):
        source = image[y * width * 3 : (y + 1) * width * 3]
        out = narrow[(y - rows.firsts[0]) * 3 * side :]
        for x in range(side):
            taken = source[np.uint32(columns.firsts[x] * 3) :]
            weights = columns.weights[np.uint32(x * columns.stride) :]
            red = green = blue = np.int32(1 << (PRECISION - 1))
            for k in range(columns.counts[x]):
                weight = weights[np.uint32(k)]
                red = np.int32(red + weight * np.int32(taken[np.uint32(3 * k)]))
                green = np.int32(green + weight * np.int32(taken[np.uint32(3 * k + 1)]))
                blue = np.int32(blue + weight * np.int32(taken[np.uint32(3 * k + 2)]))
            out[np.uint32(3 * x)] = as_byte(red)
            out[np.uint32(3 * x + 1)] = as_byte(green)
            out[np.uint32(3 * x + 2)] = as_byte(blue)


@compiled
def exact_row(narrow, y, rows, sums, pixels):
    """Resize down the columns to one row of pixels, in PIL's fixed point.

    Args:
        narrow: From `exact_columns`.
        y: Row of the output.
        rows: Axis with int32 weights.
        sums: Scratch, (3 * side,) int32.
        pixels: Filled with whole numbers, (3 * side,) float32, 0-255.
    """
    for i in range(len(sums)):
        sums[i] = 1 << (PRECISION - 1)
    at = (rows.firsts[y] - rows.firsts[0]) * len(sums)
    for k in range(rows.counts[y]):
        add_fixed_point(narrow[at : at + len(sums)], rows.weights[y * rows.stride + k], sums)
        at += len(sums)
    for i in range(len(sums)):
        pixels[i] = np.float32(as_byte(sums[i]))


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
def clip(pixels):
    """Limit sums of `quick_row` to 0-255; PIL does it after each pass, here it is done once, after both."""
    for i in range(len(pixels)):
        pixels[i] = min(max(pixels[i], np.float32(0)), np.float32(255))


@compiled
def is_diagonal(colour):
    """Return whether a colour map (12,) leaves the channels apart."""
    mixing = abs(colour[1]) + abs(colour[2]) + abs(colour[4]) + abs(colour[6]) + abs(colour[8]) + abs(colour[9])
    return mixing == 0


@compiled
def paint_floats(pixels, colour, is_plain, mirrored, out):
    """Map the colours of one row of pixels, and mirror it.

    Args:
        pixels: (3 * side,) float32, 0-255.
        colour: The map [M | t], (12,) float32.
        is_plain: Whether M is diagonal.
        mirrored: Whether the row is written from right to left.
        out: Filled, (3 * side,) float32.
    """
    side = len(pixels) // 3
    step = np.int64(-3 if mirrored else 3)
    to = np.int64(3 * (side - 1) if mirrored else 0)
    if is_plain:
        for x in range(side):
            out[np.uint32(to)] = colour[0] * pixels[np.uint32(3 * x)] + colour[3]
            out[np.uint32(to + 1)] = colour[5] * pixels[np.uint32(3 * x + 1)] + colour[7]
            out[np.uint32(to + 2)] = colour[10] * pixels[np.uint32(3 * x + 2)] + colour[11]
            to += step
        return
    for x in range(side):
        red, green, blue = pixels[np.uint32(3 * x)], pixels[np.uint32(3 * x + 1)], pixels[np.uint32(3 * x + 2)]
        for channel in range(3):
            row = colour[4 * channel : 4 * channel + 4]
            out[np.uint32(to + channel)] = row[0] * red + row[1] * green + row[2] * blue + row[3]
        to += step


@compiled
def paint_bytes(pixels, mirrored, out):
    """Round one row of pixels to bytes, and mirror it."""
    side = len(pixels) // 3
    for x in range(side):
        to = 3 * (side - 1 - x if mirrored else x)
        for channel in range(3):
            value = pixels[np.uint32(3 * x + channel)] + np.float32(0.5)
            out[np.uint32(to + channel)] = np.uint8(min(max(value, np.float32(0)), np.float32(255)))


@compiled
def erase(out, side, boxes):
    """Set boxes (y0, x0, y1, x1) of the output to 0; boxes are flat, (4 * number,) int32."""
    for first in range(0, len(boxes), 4):
        for y in range(boxes[first], boxes[first + 2]):
            for i in range(3 * (y * side + boxes[first + 1]), 3 * (y * side + boxes[first + 3])):
                out[i] = 0
