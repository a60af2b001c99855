"""The one DALI graph: read → decode → resize the crop box → colour and normalise.

Stage and resolution are not built in: all that depends on them arrives with each batch. This is the only file with DALI
operators. Each step is a function, so that a part of the graph can be measured by itself.
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
from pipelines.plan.colour import Normalisation

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

_INPUT_TYPES = [
    types.DALIDataType.UINT8,
    types.DALIDataType.INT32,
    types.DALIDataType.INT32,
    types.DALIDataType.FLOAT,
    types.DALIDataType.FLOAT,
    types.DALIDataType.INT32,
    types.DALIDataType.FLOAT,
    types.DALIDataType.BOOL,
    types.DALIDataType.FLOAT,
]
_INPUT_NDIMS = [1, 1, 1, 1, 1, 0, 1, 0, 2]
"""Types and dimensions per sample of `pipelines.dali.inputs.GraphInputs`, field by field."""


def define_graph(
    source: Callable[[], Sequence[Any]],
    *,
    device_id: int | None,
    decode: Decoder,
    max_batch_size: int,
    num_threads: int,
    prefetch: int,
    normalisation: Normalisation,
    from_shards: bool,
) -> Any:
    """Return the pipeline, not yet built.

    Args:
        source: Returns the `GraphInputs` of the next batch, without regions where the GPU decodes, or raises
            StopIteration.
        device_id: The GPU, or None for DALI's CPU backend.
        decode: Whether the GPU decodes whole images or CPU threads decode regions; without a GPU, ``cpu``.
        max_batch_size: No batch is larger.
        num_threads: CPU threads that read and decode.
        prefetch: Batches in flight.
        normalisation: Of batches whose colours are not jittered.
        from_shards: Whether `source` returns encoded images instead of paths.
    """
    return _graph(
        source,
        on_gpu=device_id is not None,
        decode=decode,
        normalisation=normalisation,
        from_shards=from_shards,
        device_id=device_id,
        batch_size=max_batch_size,
        num_threads=num_threads,
        prefetch_queue_depth=prefetch,
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
    file = fn.external_source(name="file", dtype=types.DALIDataType.UINT8, ndim=1)
    start, end = (fn.external_source(name=name, dtype=types.DALIDataType.INT32, ndim=1) for name in ("start", "end"))
    return decoded(read(file, from_shards), start, end)


@pipeline_def(enable_conditionals=True)
def _graph(
    source: Callable[[], Sequence[Any]], on_gpu: bool, decode: Decoder, normalisation: Normalisation, from_shards: bool
) -> Any:
    files, decode_start, decode_end, box_start, box_end, interpolation, size, jittered, colour = inputs(
        source, regions=decode == "cpu"
    )
    encoded = read(files, from_shards)
    images = decoded_on_gpu(encoded) if decode == "gpu" else decoded(encoded, decode_start, decode_end)
    if on_gpu:
        images = images.gpu()  # which leaves those alone that the GPU has decoded
    crops = resized(images, box_start, box_end, interpolation, size)
    # Jitter mixes channels, which costs more than scaling them, so batches without it take the other branch.
    if jittered:
        batch = fn.coord_transform(crops, MT=colour, dtype=types.DALIDataType.FLOAT)
        if on_gpu:
            batch = fn.cast(batch, dtype=_output_type(on_gpu))  # coord_transform has no float16 output of its own
    else:
        batch = normalised(crops, normalisation, on_gpu)
    return batch


def inputs(source: Callable[[], Sequence[Any]], *, regions: bool = True) -> Any:
    """Take the `GraphInputs` that a function returns, one batch per call, as the nodes of a graph.

    Without regions, the function returns what `GraphInputs.without_regions` does, and None stands for the two missing
    nodes: DALI warns of inputs that are not used.
    """
    if regions:
        return fn.external_source(
            source=source, num_outputs=len(_INPUT_TYPES), dtype=_INPUT_TYPES, ndim=_INPUT_NDIMS, batch=True
        )
    dtypes, ndims = [_INPUT_TYPES[0], *_INPUT_TYPES[3:]], [_INPUT_NDIMS[0], *_INPUT_NDIMS[3:]]
    files, *others = fn.external_source(source=source, num_outputs=len(dtypes), dtype=dtypes, ndim=ndims, batch=True)
    return [files, None, None, *others]


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


def normalised(crops: Any, normalisation: Normalisation, on_gpu: bool) -> Any:
    """Return the network's input, of crops whose colours are not jittered."""
    return fn.crop_mirror_normalize(
        crops,
        dtype=_output_type(on_gpu),
        mean=[255 * value for value in normalisation.mean],
        std=[255 * value for value in normalisation.std],
        output_layout="HWC",
    )


def _output_type(on_gpu: bool) -> types.DALIDataType:
    return types.DALIDataType.FLOAT16 if on_gpu else types.DALIDataType.FLOAT
