"""From a `BatchPlan` to the arrays the graph takes: paths, decode regions, resize crop boxes, colour maps."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.dataset import Dataset
from pipelines.plan.batch_plan import BatchPlan
from pipelines.plan.colour import Normalisation, jitter_and_normalise
from pipelines.plan.interpolation import INTERPOLATIONS, Interpolation

__all__ = ["GraphInputs", "files_of", "graph_inputs"]


UNDECODABLE = np.zeros(1, np.uint8)
"""Replaces an image that cannot be read; DALI takes no empty one."""


DALI_FILTERS: Mapping[Interpolation, int] = {"bilinear": 1, "bicubic": 2, "lanczos": 3}
"""Numbers of ``nvidia.dali.types.DALIInterpType``; DALI has no box filter."""


class GraphInputs(NamedTuple):
    """What one run of the graph is fed, in the graph's order; n images.

    Attributes:
        files: Absolute paths as bytes, (n, longest) uint8, or n arrays of encoded images where some lie in shards.
        decode_start, decode_end: Region (y, x) of the file's image that is decoded, (n, 2) int32.
        box_start, box_end: The crop box (y, x) inside that region, (n, 2) float32. Where the image is mirrored, it
            runs from right to left or from bottom to top: DALI's resize mirrors a box whose start lies behind its end.
        interpolation: DALI's number of the filter, (n,) int32.
        size: Height and width to resize to, (n, 2) float32 (DALI takes run-time sizes as floats only).
        jittered: Whether the colour map replaces plain normalisation, (n,) bool.
        colour: Colour maps, (n, 3, 4) float32; zeros where plain normalisation stays.
    """

    files: NDArray[np.uint8] | list[NDArray[np.uint8]]
    decode_start: NDArray[np.int32]
    decode_end: NDArray[np.int32]
    box_start: NDArray[np.float32]
    box_end: NDArray[np.float32]
    interpolation: NDArray[np.int32]
    size: NDArray[np.float32]
    jittered: NDArray[np.bool_]
    colour: NDArray[np.float32]

    def without_regions(self) -> tuple[Any, ...]:
        """Return all but decode_start and decode_end, for a graph that decodes whole images."""
        return self.files, *self[3:]


def graph_inputs(
    plan: BatchPlan, dataset: Dataset, normalisation: Normalisation, *, decode_region: bool
) -> GraphInputs:
    """Express a plan in the graph's terms.

    Args:
        plan: The batch.
        dataset: The data set it refers to.
        normalisation: Part of the colour maps of jittered batches.
        decode_region: Whether the graph decodes the region that the crop needs, or the whole image.
    """
    num = len(plan)
    sources, scales = copy_sizes(plan, dataset)
    starts, ends = plan.crop_boxes[:, :2] * scales, plan.crop_boxes[:, 2:] * scales
    if decode_region:
        margin = filter_margin(ends - starts, plan.resolution.crop_px)
        decode_start = np.maximum(np.floor(starts - margin), 0).astype(np.int32)
        decode_end = np.minimum(np.ceil(ends + margin), sources).astype(np.int32)
    else:
        decode_start, decode_end = np.zeros((num, 2), np.int32), sources.astype(np.int32)
    box_start, box_end = (
        (starts - decode_start).astype(np.float32),
        (ends - decode_start).astype(np.float32),
    )
    for axis, flip in enumerate((plan.flip_vertical, plan.flip)):
        box_start[flip, axis], box_end[flip, axis] = box_end[flip, axis], box_start[flip, axis].copy()
    jitter = plan.jitter
    return GraphInputs(
        files=files_of(dataset, plan.ids, plan.copy_ids),
        decode_start=decode_start,
        decode_end=decode_end,
        box_start=box_start,
        box_end=box_end,
        interpolation=np.array([DALI_FILTERS[INTERPOLATIONS[number]] for number in plan.interpolation], np.int32),
        size=np.full((num, 2), plan.resolution.crop_px, np.float32),
        jittered=np.full(num, jitter is not None),
        colour=np.zeros((num, 3, 4), np.float32) if jitter is None else jitter_and_normalise(jitter, normalisation),
    )


def copy_sizes(plan: BatchPlan, dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return height and width of the copies that a plan reads, and their ratio to the images' own, (n, 2) each."""
    images = np.stack([dataset.heights[plan.ids], dataset.widths[plan.ids]], axis=1)
    sizes = images.copy()
    for number, copy in enumerate(dataset.copies):
        here = plan.copy_ids == number
        sizes[here] = np.stack([copy.heights[plan.ids[here]], copy.widths[plan.ids[here]]], axis=1)
    return sizes, sizes / images


def files_of(
    dataset: Dataset, rows: NDArray[np.int64], copy_ids: NDArray[np.int64]
) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
    """Return the paths of images or copies for DALI to read, or, if some are in shards, their bytes.

    Paths come in one array: DALI takes as long for each array of a list as for one of all. Bytes that cannot be read
    are replaced by some that cannot be decoded, so that both kinds of damage are handled alike.
    """
    if not dataset.in_shards:
        return dataset.files(rows, copy_ids)
    return [_content(dataset, row, copy) for row, copy in zip(rows.tolist(), copy_ids.tolist(), strict=True)]


def _content(dataset: Dataset, row: int, copy: int) -> NDArray[np.uint8]:
    try:
        content = dataset.read(row, copy)
    except OSError:
        return UNDECODABLE
    return content if len(content) > 0 else UNDECODABLE


def filter_margin(box_sizes: NDArray[np.float64], output_px: int) -> NDArray[np.float64]:
    """Return how far outside a crop box the antialiasing (triangle) filter reads, in pixels of the file's image.

    Its radius is the scale factor when shrinking and one pixel when enlarging; one more covers rounding.
    """
    return np.maximum(box_sizes / output_px, 1) + 1
