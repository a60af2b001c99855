"""From a `BatchPlan` to the arrays that a graph takes: paths, decode regions, crop boxes, colour maps, erased boxes."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipelines.dali.fused import AS_PIL, VERTICAL_FIRST
from pipelines.dataset import Dataset
from pipelines.errors import ConfigError
from pipelines.plan.batch_plan import BatchPlan
from pipelines.plan.colour import Normalisation, jitter_and_normalise
from pipelines.plan.interpolation import RADII
from pipelines.plan.operations import NUM_SLOTS

__all__ = [
    "Files",
    "FusedInputs",
    "OperatorInputs",
    "Region",
    "decode_regions",
    "files_of",
    "fused_inputs",
    "operator_inputs",
]


UNDECODABLE = np.zeros(1, np.uint8)
"""Replaces an image that cannot be read; DALI takes no empty one."""

FIRST_DALI_FILTER = 1
"""Number of `INTERPOLATIONS[0]` in ``nvidia.dali.types.DALIInterpType``; the others follow in the same order."""

Files: TypeAlias = NDArray[np.uint8] | list[NDArray[np.uint8]]
"""Absolute paths as bytes, (n, longest), or n encoded images where some lie in shards."""


class Region(NamedTuple):
    """What is decoded of each image.

    Attributes:
        start, end: Corners (y, x), (n, 2) int32.
        box: The crop box (y0, x0, y1, x1) inside it, back to front where the image is mirrored, (n, 4) float64.
    """

    start: NDArray[np.int32]
    end: NDArray[np.int32]
    box: NDArray[np.float64]


class FusedInputs(NamedTuple):
    """What one run of the graph with the compiled operator is fed, in its order; n images.

    Attributes:
        files: See `Files`.
        decode_start, decode_end: Corners (y, x) of the region that is decoded, (n, 2) int32.
        canvas: As long as the crop's side, (n, side) uint8.
        box: As in `Region`.
        colour: Colour maps, (n, 3, 4) float32.
        erased: Boxes that are set to 0, (n, boxes, 4) int32.
        options: Number of the filter, with flags of `pipelines.dali.fused` added, (n, 1) int32.
        has_operations: The same for all images, (n,) bool.
        operations: Numbers of operations, (n, NUM_SLOTS) int32.
        magnitudes: Of the operations, (n, NUM_SLOTS) float32.
    """

    files: Files
    decode_start: NDArray[np.int32]
    decode_end: NDArray[np.int32]
    canvas: NDArray[np.uint8]
    box: NDArray[np.float64]
    colour: NDArray[np.float32]
    erased: NDArray[np.int32]
    options: NDArray[np.int32]
    has_operations: NDArray[np.bool_]
    operations: NDArray[np.int32]
    magnitudes: NDArray[np.float32]


class OperatorInputs(NamedTuple):
    """What one run of the graph of DALI's operators is fed, in its order; n images.

    Attributes:
        files: See `Files`.
        decode_start, decode_end: Corners (y, x) of the region that is decoded, (n, 2) int32.
        box_start, box_end: The crop box (y, x) inside that region, (n, 2) float32: DALI's resize mirrors a box whose
            start lies behind its end.
        interpolation: DALI's number of the filter, (n,) int32.
        size: Height and width to resize to, (n, 2) float32 (DALI takes run-time sizes as floats only).
        jittered: Whether the colour map replaces plain normalisation, (n,) bool.
        colour: Colour maps, (n, 3, 4) float32.
        has_erased: Whether there are boxes to erase, the same for all images, (n,) bool.
        erased_start, erased_size: Corners (y, x) and sizes of boxes that are set to 0, (n, 2 * boxes) float32.
        has_operations, operations, magnitudes: As in `FusedInputs`.
    """

    files: Files
    decode_start: NDArray[np.int32]
    decode_end: NDArray[np.int32]
    box_start: NDArray[np.float32]
    box_end: NDArray[np.float32]
    interpolation: NDArray[np.int32]
    size: NDArray[np.float32]
    jittered: NDArray[np.bool_]
    colour: NDArray[np.float32]
    has_erased: NDArray[np.bool_]
    erased_start: NDArray[np.float32]
    erased_size: NDArray[np.float32]
    has_operations: NDArray[np.bool_]
    operations: NDArray[np.int32]
    magnitudes: NDArray[np.float32]

    def without_regions(self) -> tuple[object, ...]:
        """Return all but decode_start and decode_end, for a graph that decodes whole images."""
        return self.files, *self[3:]


def fused_inputs(plan: BatchPlan, dataset: Dataset, normalisation: Normalisation) -> FusedInputs:
    """Express a plan in the terms of the graph with the compiled operator.

    Args:
        plan: The batch.
        dataset: The data set it refers to.
        normalisation: Part of the colour maps.
    """
    num = len(plan)
    region = decode_regions(plan, dataset)
    return FusedInputs(
        files=files_of(dataset, plan.ids, plan.copy_ids),
        decode_start=region.start,
        decode_end=region.end,
        canvas=np.zeros((num, plan.resolution.crop_px), np.uint8),
        box=region.box,
        colour=_colour_maps(plan, normalisation),
        erased=_erased(plan),
        options=_options(plan, dataset)[:, None],
        **_operations(plan),
    )


def operator_inputs(
    plan: BatchPlan, dataset: Dataset, normalisation: Normalisation, *, decode_region: bool
) -> OperatorInputs:
    """Express a plan in the terms of the graph of DALI's operators.

    Args:
        plan: The batch.
        dataset: The data set it refers to.
        normalisation: Part of the colour maps of jittered batches.
        decode_region: Whether the graph decodes the region that the crop needs, or the whole image.
    """
    num = len(plan)
    region = decode_regions(plan, dataset, whole=not decode_region)
    erased = _erased(plan).astype(np.float32)
    return OperatorInputs(
        files=files_of(dataset, plan.ids, plan.copy_ids),
        decode_start=region.start,
        decode_end=region.end,
        box_start=region.box[:, :2].astype(np.float32),
        box_end=region.box[:, 2:].astype(np.float32),
        interpolation=plan.interpolation + FIRST_DALI_FILTER,
        size=np.full((num, 2), plan.resolution.crop_px, np.float32),
        jittered=np.full(num, plan.jitter is not None),
        colour=_colour_maps(plan, normalisation),
        has_erased=np.full(num, plan.erased is not None),
        erased_start=np.ascontiguousarray(erased[:, :, :2]).reshape(num, -1),
        erased_size=(erased[:, :, 2:] - erased[:, :, :2]).reshape(num, -1),
        **_operations(plan),
    )


def decode_regions(plan: BatchPlan, dataset: Dataset, *, whole: bool = False) -> Region:
    """Return what is decoded of each image: what its crop is made of, or the whole image.

    Raises:
        ConfigError: If a crop box lies outside its image by more than a pixel.
    """
    sources, scales = copy_sizes(plan, dataset)
    starts, ends = plan.crop_boxes[:, :2] * scales, plan.crop_boxes[:, 2:] * scales
    outside = ((starts < -1) | (ends > sources + 1) | (ends <= starts)).any(axis=1)
    if outside.any():
        row = int(plan.ids[outside.argmax()])
        box = plan.crop_boxes[outside.argmax()].tolist()
        raise ConfigError(f"a plan's crop box must lie inside its image; {dataset.path(row)} has {box}")
    if whole:
        first, last = np.zeros_like(sources, np.int32), sources.astype(np.int32)
    else:
        margin = filter_margin(ends - starts, plan.resolution.crop_px, RADII[plan.interpolation])
        first = np.maximum(np.floor(starts - margin), 0).astype(np.int32)
        last = np.minimum(np.ceil(ends + margin), sources).astype(np.int32)
    box = np.concatenate([starts - first, ends - first], axis=1)
    for axis, flip in enumerate((plan.flip_vertical, plan.flip)):
        box[flip, axis], box[flip, axis + 2] = box[flip, axis + 2], box[flip, axis].copy()
    return Region(first, last, box)


def _options(plan: BatchPlan, dataset: Dataset) -> NDArray[np.int32]:
    if not plan.as_pil:
        return plan.interpolation
    sources, scales = copy_sizes(plan, dataset)
    boxes = (plan.crop_boxes[:, 2:] - plan.crop_boxes[:, :2]) * scales
    # Pillow (13) begins with the columns where the height shrinks by more than twice what the width does.
    shrinks = sources - np.rint(sources * plan.resolution.crop_px / boxes)
    vertical_first = (shrinks[:, 0] > 0) & (shrinks[:, 0] > 2 * shrinks[:, 1])
    return plan.interpolation + np.where(vertical_first, AS_PIL + VERTICAL_FIRST, AS_PIL).astype(np.int32)


def _colour_maps(plan: BatchPlan, normalisation: Normalisation) -> NDArray[np.float32]:
    jitter = np.ones((len(plan), 3)) if plan.jitter is None else plan.jitter
    return jitter_and_normalise(jitter, normalisation)


def _erased(plan: BatchPlan) -> NDArray[np.int32]:
    return np.zeros((len(plan), 1, 4), np.int32) if plan.erased is None else plan.erased


def _operations(plan: BatchPlan) -> dict[str, Any]:
    """Return the fields about operations, of `FusedInputs` and `OperatorInputs` alike."""
    slots, planned = (len(plan), NUM_SLOTS), plan.operations
    return {
        "has_operations": np.full(len(plan), planned is not None),
        "operations": np.zeros(slots, np.int32) if planned is None else planned.numbers,
        "magnitudes": np.zeros(slots, np.float32) if planned is None else planned.magnitudes,
    }


def copy_sizes(plan: BatchPlan, dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return height and width of the copies that a plan reads, and their ratio to the images' own, (n, 2) each."""
    images = np.stack([dataset.heights[plan.ids], dataset.widths[plan.ids]], axis=1)
    sizes = images.copy()
    for number, copy in enumerate(dataset.copies):
        here = plan.copy_ids == number
        sizes[here] = np.stack([copy.heights[plan.ids[here]], copy.widths[plan.ids[here]]], axis=1)
    return sizes, sizes / images


def files_of(dataset: Dataset, rows: NDArray[np.int64], copy_ids: NDArray[np.int64]) -> Files:
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


def filter_margin(box_sizes: NDArray[np.float64], output_px: int, radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far outside a crop box the antialiasing filter reads, in pixels of the file's image, (n, 2).

    Args:
        box_sizes: Height and width of the crop boxes, (n, 2).
        output_px: Side of the crop.
        radii: Of the filters, in pixels of the output, (n,).
    """
    scales = box_sizes / output_px
    # The first output pixel's centre is half a pixel inside the box; one more covers rounding.
    return radii[:, None] * np.maximum(scales, 1) - scales / 2 + 1
