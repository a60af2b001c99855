"""The one DALI graph: read → decode → resize the crop box → colour and normalise → erase.

Stage and resolution are not built in: all that depends on them arrives with each batch. It is built in one of two ways:
on a CPU everything after the decoder is one compiled operator, on a GPU these are DALI's operators, which also take
over on a CPU where nothing can be compiled. Each step is a function, so that a part of the graph can be measured.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from nvidia.dali import fn as _fn
from nvidia.dali import types
from nvidia.dali.pipeline import pipeline_def

from pipelines.dali.choose_decoder import Decoder
from pipelines.dali.fused.machine_code import Entries
from pipelines.dali.fused.operator import WHOLE, fused
from pipelines.dali.operations import operated
from pipelines.plan.colour import BYTES, Normalisation

__all__ = [
    "build",
    "build_decoder",
    "decoded",
    "decoded_on_gpu",
    "define_graph",
    "inputs",
    "normalised",
    "read",
    "resized",
]

fn: Any = _fn
"""DALI's operators; its stubs lack some, and type the results of others as unions that no operator takes."""

NICENESS = 10
"""Added to the niceness of DALI's threads on a CPU, where they compete for the cores with the network.

torch's threads synchronise after each operator, so preempting one of them delays all, while a batch of images may be
finished at any time before it is needed. At this niceness DALI still gets about a tenth of a contended core; with a
higher one training is slightly faster, but images are late where other programs load the CPU.
"""

UINT8, INT32, BOOL = types.DALIDataType.UINT8, types.DALIDataType.INT32, types.DALIDataType.BOOL
FLOAT, FLOAT16, FLOAT64 = types.DALIDataType.FLOAT, types.DALIDataType.FLOAT16, types.DALIDataType.FLOAT64

FUSED_INPUTS = (
    *((UINT8, 1), (INT32, 1), (INT32, 1)),
    *((UINT8, 1), (FLOAT64, 1), (FLOAT, 2), (INT32, 2), (INT32, 1)),
    *((BOOL, 0), (INT32, 1), (FLOAT, 1)),
)
OPERATOR_INPUTS = (
    *((UINT8, 1), (INT32, 1), (INT32, 1)),
    *((FLOAT, 1), (FLOAT, 1), (INT32, 0), (FLOAT, 1), (BOOL, 0), (FLOAT, 2)),
    *((BOOL, 0), (FLOAT, 1), (FLOAT, 1)),
    *((BOOL, 0), (INT32, 1), (FLOAT, 1)),
)
"""Types and dimensions per image of `FusedInputs` and `OperatorInputs` of `pipelines.dali.inputs`, field by field."""


def define_graph(
    source: Callable[[], Sequence[Any]],
    *,
    device_id: int | None,
    decode: Decoder,
    max_batch_size: int,
    num_threads: int,
    prefetch: int,
    normalisation: Normalisation | None,
    from_shards: bool,
    compiled: Entries | None,
) -> Any:
    """Return the pipeline, not yet built.

    Args:
        source: Returns the `FusedInputs` of the next batch, to be kept until it is done; without a compiled operator
            its `OperatorInputs`, without regions where the GPU decodes; or raises StopIteration.
        device_id: The GPU, or None for DALI's CPU backend.
        decode: Whether the GPU decodes whole images or CPU threads decode regions; without a GPU, ``cpu``.
        max_batch_size: No batch is larger.
        num_threads: CPU threads that read and decode.
        prefetch: Batches in flight.
        normalisation: Of batches whose colours are not jittered; None for bytes.
        from_shards: Whether `source` returns encoded images instead of paths.
        compiled: The compiled operator, on a CPU; None for DALI's operators.
    """
    options = {
        "device_id": device_id,
        "batch_size": max_batch_size,
        "num_threads": num_threads,
        "prefetch_queue_depth": prefetch,
    }
    if compiled is not None:
        return _fused_graph(source, compiled, gives_bytes=normalisation is None, from_shards=from_shards, **options)
    return _operator_graph(
        source,
        on_gpu=device_id is not None,
        decode=decode,
        normalisation=normalisation,
        from_shards=from_shards,
        **options,
    )


def build(pipeline: Any, *, on_gpu: bool) -> None:
    """Build a pipeline; on a CPU its threads get a lower priority than the network's.

    On Linux priority belongs to a thread, and the threads that it starts inherit it: so a thread of its own builds.
    """

    def build_nicely() -> None:
        with suppress(OSError):  # a sandbox may forbid it; the graph also runs at normal priority
            os.nice(NICENESS)
        pipeline.build()

    if on_gpu:
        pipeline.build()
        return
    with ThreadPoolExecutor(1) as builder:
        builder.submit(build_nicely).result()


def build_decoder(*, from_shards: bool) -> Any:
    """Build a CPU pipeline that reads and decodes a region of one image: ``run(file=[…], start=[…], end=[…])``.

    It raises RuntimeError if the region cannot be decoded, and can be run again all the same.

    Args:
        from_shards: Whether it is given an encoded image instead of a path.
    """
    pipeline: Any = _decoder(from_shards, device_id=None, batch_size=1, num_threads=1, prefetch_queue_depth=1)
    pipeline.build()
    return pipeline


@pipeline_def
def _decoder(from_shards: bool) -> Any:
    file = fn.external_source(name="file", dtype=UINT8, ndim=1)
    start, end = (fn.external_source(name=name, dtype=INT32, ndim=1) for name in ("start", "end"))
    return decoded(read(file, from_shards), start, end)


@pipeline_def(enable_conditionals=True)
def _fused_graph(source: Callable[[], Sequence[Any]], compiled: Entries, gives_bytes: bool, from_shards: bool) -> Any:
    files, decode_start, decode_end, *others = inputs(source, FUSED_INPUTS, copied=False)
    canvas, box, colour, erased, options, has_operations, operations, magnitudes = others
    images = decoded(read(files, from_shards), decode_start, decode_end)
    if has_operations:
        crops = fused(compiled, canvas, images, box, colour, erased, options, gives_bytes=True)
        crops = operated(crops, operations, magnitudes)
        batch = fused(compiled, canvas, crops, WHOLE * box, colour, erased, options, gives_bytes=gives_bytes)
    else:
        batch = fused(compiled, canvas, images, box, colour, erased, options, gives_bytes=gives_bytes)
    return batch


@pipeline_def(enable_conditionals=True)
def _operator_graph(
    source: Callable[[], Sequence[Any]],
    on_gpu: bool,
    decode: Decoder,
    normalisation: Normalisation | None,
    from_shards: bool,
) -> Any:
    if decode == "gpu":  # whole images: DALI would warn of inputs that are not used
        files, *others = inputs(source, (OPERATOR_INPUTS[0], *OPERATOR_INPUTS[3:]))
        images = decoded_on_gpu(read(files, from_shards))
    else:
        files, decode_start, decode_end, *others = inputs(source, OPERATOR_INPUTS)
        images = decoded(read(files, from_shards), decode_start, decode_end)
    if on_gpu:
        images = images.gpu()  # which leaves those alone that the GPU has decoded
    box_start, box_end, interpolation, size, jittered, colour, has_erased, *planned = others
    erased_start, erased_size, has_operations, operations, magnitudes = planned
    crops = resized(images, box_start, box_end, interpolation, size)
    if has_operations:
        crops = operated(crops, operations, magnitudes)
    output = UINT8 if normalisation is None else FLOAT16 if on_gpu else FLOAT
    batch = coloured(crops, jittered, colour, normalisation or BYTES, output)
    if has_erased:  # in float32, as DALI's operator has no float16 on a GPU
        boxes = {"anchor": erased_start, "shape": erased_size, "axes": [0, 1]}
        batch = fn.cast(fn.erase(fn.cast(batch, dtype=FLOAT), **boxes, fill_value=0.0), dtype=output)
    return batch


def inputs(
    source: Callable[[], Sequence[Any]], fields: Sequence[tuple[types.DALIDataType, int]], *, copied: bool = True
) -> Any:
    """Take the arrays that a function returns, one batch per call, as the nodes of a graph.

    What is not copied, such as images in memory-mapped shards, must stay unchanged until the batch is done.
    """
    dtypes, ndims = [dtype for dtype, _ in fields], [ndim for _, ndim in fields]
    return fn.external_source(
        source=source, num_outputs=len(fields), dtype=dtypes, ndim=ndims, batch=True, no_copy=not copied
    )


def read(files: Any, from_shards: bool) -> Any:
    """Return the encoded images."""
    # With memory-mapped reading an empty file fails outside the decoder, with an error that names no image.
    return files if from_shards else fn.io.file.read(files, dont_use_mmap=True)


def decoded(encoded: Any, start: Any, end: Any) -> Any:
    """Return a region of each image, decoded by CPU threads; its pixels are PIL's."""
    # Like PIL and torchvision's ImageFolder, this ignores EXIF orientation, on any device.
    return fn.decoders.image_slice(encoded, start=start, end=end, axes=[0, 1], adjust_orientation=False)


def decoded_on_gpu(encoded: Any) -> Any:
    """Return whole images, decoded by the GPU: nvJPEG decodes no region with the upsampling that keeps colours."""
    # DALI's default on a GPU enlarges chroma by repeating pixels; the CPU, like PIL, interpolates.
    return fn.decoders.image(encoded, device="mixed", adjust_orientation=False, jpeg_fancy_upsampling=True)


def resized(images: Any, box_start: Any, box_end: Any, interpolation: Any, size: Any) -> Any:
    """Return the crop boxes of the images, resized."""
    return fn.resize(
        images,
        size=size,
        roi_start=box_start,
        roi_end=box_end,
        interp_type=fn.reinterpret(interpolation, dtype=types.DALIDataType.INTERP_TYPE),
        antialias=True,
        subpixel_scale=False,
    )


def coloured(crops: Any, jittered: Any, colour: Any, normalisation: Normalisation, output: types.DALIDataType) -> Any:
    """Return the network's input, of crops in bytes."""
    # Jitter mixes channels, which costs more than scaling them, so batches without it take the other branch.
    if jittered:
        batch = fn.cast(fn.coord_transform(crops, MT=colour, dtype=FLOAT), dtype=output)
    else:
        batch = normalised(crops, normalisation, output)
    return batch


def normalised(crops: Any, normalisation: Normalisation, output: types.DALIDataType) -> Any:
    """Return the network's input, of crops whose colours are not jittered."""
    return fn.crop_mirror_normalize(
        crops,
        dtype=output,
        mean=[255 * value for value in normalisation.mean],
        std=[255 * value for value in normalisation.std],
        output_layout="HWC",
    )
