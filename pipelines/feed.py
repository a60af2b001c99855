"""From a `BatchPlan` to the arrays the graph takes: paths, decode regions, resize windows, colour maps."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dali_fixres.batch import BatchPlan
from dali_fixres.colour import Normalisation, jitter_and_normalise
from dali_fixres.index import Index

__all__ = ["GraphInputs", "files_of", "graph_inputs"]


UNDECODABLE = np.zeros(1, np.uint8)
"""In place of a picture that cannot be read; DALI takes no empty one."""


class GraphInputs(NamedTuple):
    """What one run of the graph is fed, in the graph's order; n pictures.

    Attributes:
        files: Absolute paths as bytes, (n, longest) uint8, or n arrays of encoded pictures where some lie in shards.
        decode_start, decode_end: Region (y, x) of the source that is decoded, (n, 2) int32.
        window_start, window_end: The window inside that region; from right to left where the picture is
            mirrored, because DALI's resize mirrors a window whose start lies behind its end, (n, 2) float32.
        size: Height and width to resize to, (n, 2) float32 (DALI takes run-time sizes as floats only).
        jittered: Whether the colour map replaces plain normalisation, (n,) bool.
        colour: Colour maps, (n, 3, 4) float32; zeros where plain normalisation stays.
    """

    files: NDArray[np.uint8] | list[NDArray[np.uint8]]
    decode_start: NDArray[np.int32]
    decode_end: NDArray[np.int32]
    window_start: NDArray[np.float32]
    window_end: NDArray[np.float32]
    size: NDArray[np.float32]
    jittered: NDArray[np.bool_]
    colour: NDArray[np.float32]

    def without_regions(self) -> tuple[Any, ...]:
        """Return all but decode_start and decode_end, for a graph that decodes whole pictures."""
        return self.files, *self[3:]


def graph_inputs(plan: BatchPlan, index: Index, normalisation: Normalisation, *, decode_window: bool) -> GraphInputs:
    """Express a plan in the graph's terms.

    Args:
        plan: The batch.
        index: The data set it refers to.
        normalisation: Taken into the colour maps of jittered batches.
        decode_window: Whether the graph decodes just the window's surroundings or the whole picture.
    """
    num = len(plan)
    sources, scales = copy_sizes(plan, index)
    starts, ends = plan.windows[:, :2] * scales, plan.windows[:, 2:] * scales
    if decode_window:
        margin = filter_margin(ends - starts, plan.resolution.crop_px)
        decode_start = np.maximum(np.floor(starts - margin), 0).astype(np.int32)
        decode_end = np.minimum(np.ceil(ends + margin), sources).astype(np.int32)
    else:
        decode_start, decode_end = np.zeros((num, 2), np.int32), sources.astype(np.int32)
    window_start, window_end = (
        (starts - decode_start).astype(np.float32),
        (ends - decode_start).astype(np.float32),
    )
    flip = plan.flip
    window_start[flip, 1], window_end[flip, 1] = window_end[flip, 1], window_start[flip, 1].copy()
    jitter = plan.jitter
    return GraphInputs(
        files=files_of(index, plan.ids, plan.rungs),
        decode_start=decode_start,
        decode_end=decode_end,
        window_start=window_start,
        window_end=window_end,
        size=np.full((num, 2), plan.resolution.crop_px, np.float32),
        jittered=np.full(num, jitter is not None),
        colour=np.zeros((num, 3, 4), np.float32) if jitter is None else jitter_and_normalise(jitter, normalisation),
    )


def copy_sizes(plan: BatchPlan, index: Index) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return height and width of the copies that a plan reads, and what they are of the pictures' own, (n, 2) each."""
    pictures = np.stack([index.heights[plan.ids], index.widths[plan.ids]], axis=1)
    sizes = pictures.copy()
    for number, rung in enumerate(index.rungs):
        here = plan.rungs == number
        sizes[here] = np.stack([rung.heights[plan.ids[here]], rung.widths[plan.ids[here]]], axis=1)
    return sizes, sizes / pictures


def files_of(
    index: Index, rows: NDArray[np.int64], rungs: NDArray[np.int64]
) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
    """Return the pictures' or copies' paths for DALI to read, or, if some are in shards, their bytes.

    One array of paths, because DALI takes as long for each array of a list as for one of all. In place of bytes that
    cannot be read come some that cannot be decoded, which are found out like any others.
    """
    if not index.in_shards:
        return index.files(rows, rungs)
    return [_content(index, row, rung) for row, rung in zip(rows.tolist(), rungs.tolist(), strict=True)]


def _content(index: Index, row: int, rung: int) -> NDArray[np.uint8]:
    try:
        content = index.read(row, rung)
    except OSError:
        return UNDECODABLE
    return content if len(content) > 0 else UNDECODABLE


def filter_margin(window_sizes: NDArray[np.float64], output_px: int) -> NDArray[np.float64]:
    """Return how far outside a window the antialiasing (triangle) filter reads, in source pixels.

    Its radius is the scale factor when shrinking and one pixel when enlarging; one more covers rounding.
    """
    return np.maximum(window_sizes / output_px, 1) + 1
