"""The one DALI graph: read → decode → resize the crop box → colour and normalise.

It knows no stage and no resolution; both arrive with each batch. This is the only file with DALI operators,
and the casts that their untyped results need. Each step is a function, so that the benches can run a part of the graph.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from nvidia.dali import fn as _fn
from nvidia.dali import types
from nvidia.dali.pipeline import pipeline_def

from pipelines.dali.decoding import Decoding, decodes_regions
from pipelines.plan.colour import Normalisation

__all__ = ["build", "build_decoder", "build_graph", "decoded", "inputs", "normalised", "read", "resized"]

fn: Any = _fn
"""DALI's operators; its stubs lack some, and type the results of others as unions that no operator takes."""

NICENESS = 10
"""Niceness of DALI's threads over that of the process, on a CPU, where they share the cores with the network.

torch's threads wait for one another after each operator of the network, so whatever stops one of them stops all, while
the graph's work may be done at any time before the batch is wanted. Of a core that both want, the graph still gets a
tenth. More would make training a little faster, and starve the graph where other programs keep the cores busy.
"""

_INPUT_TYPES = [
    types.DALIDataType.UINT8,
    types.DALIDataType.INT32,
    types.DALIDataType.INT32,
    types.DALIDataType.FLOAT,
    types.DALIDataType.FLOAT,
    types.DALIDataType.FLOAT,
    types.DALIDataType.BOOL,
    types.DALIDataType.FLOAT,
]
_INPUT_NDIMS = [1, 1, 1, 1, 1, 1, 0, 2]
"""Types and dimensions per sample of `pipelines.dali.inputs.GraphInputs`, field by field."""


def build_graph(
    source: Callable[[], Sequence[Any]],
    *,
    device_id: int | None,
    decoding: Decoding,
    max_batch_size: int,
    num_threads: int,
    prefetch: int,
    normalisation: Normalisation,
    from_shards: bool,
) -> Any:
    """Build the pipeline.

    Args:
        source: Returns the `GraphInputs` of the next batch, without regions where whole images are decoded, or
            raises StopIteration.
        from_shards: Whether it is given encoded images instead of paths.
        device_id: The GPU, or None for DALI's CPU backend.
        decoding: How the GPU decodes; the CPU always decodes just the region.
        max_batch_size: No batch is larger.
        num_threads: CPU threads that read and decode.
        prefetch: Batches in flight.
        normalisation: Of batches whose colours are not jittered.
    """
    gpu = None if device_id is None else decoding
    pipeline: Any = _graph(
        source,
        gpu=gpu,
        normalisation=normalisation,
        from_shards=from_shards,
        device_id=device_id,
        batch_size=max_batch_size,
        num_threads=num_threads,
        prefetch_queue_depth=prefetch,
    )
    build(pipeline, on_gpu=device_id is not None)
    return pipeline


def build(pipeline: Any, *, on_gpu: bool) -> None:
    """Build a pipeline; on a CPU so that its threads give way to the network's.

    The threads that it starts inherit the priority of the one that builds it, which on Linux is a thread's own.
    """

    def build_nicely() -> None:
        with suppress(OSError):  # a sandbox may forbid it, and the graph runs without
            os.nice(NICENESS)
        pipeline.build()

    if on_gpu:
        pipeline.build()
        return
    with ThreadPoolExecutor(1) as builder:
        builder.submit(build_nicely).result()


def build_decoder(
    *,
    from_shards: bool,
    device_id: int | None = None,
    decoding: Decoding | None = None,
    max_batch_size: int = 1,
    num_threads: int = 1,
) -> Any:
    """Build a pipeline that reads and decodes, and no more: ``run(file=…, start=…, end=…)``.

    One that decodes whole images takes no start and no end.

    On a CPU, a batch with a region that cannot be decoded raises RuntimeError, and the next is decoded all the same.

    Args:
        from_shards: Whether it is given encoded images instead of paths.
        device_id: The GPU, or None for DALI's CPU backend.
        decoding: How the GPU decodes; None without one.
        max_batch_size: No batch is larger.
        num_threads: CPU threads that read and decode.
    """
    pipeline: Any = _decodability(
        from_shards,
        decoding,
        device_id=device_id,
        batch_size=max_batch_size,
        num_threads=num_threads,
        prefetch_queue_depth=1,
    )
    pipeline.build()
    return pipeline


@pipeline_def
def _decodability(from_shards: bool, gpu: Decoding | None) -> Any:
    files = fn.external_source(name="file", dtype=types.DALIDataType.UINT8, ndim=1)
    if not decodes_regions(gpu):
        return decoded(read(files, from_shards), None, None, gpu)
    start, end = (fn.external_source(name=name, dtype=types.DALIDataType.INT32, ndim=1) for name in ("start", "end"))
    return decoded(read(files, from_shards), start, end, gpu)


@pipeline_def(enable_conditionals=True)
def _graph(
    source: Callable[[], Sequence[Any]], gpu: Decoding | None, normalisation: Normalisation, from_shards: bool
) -> Any:
    on_gpu = gpu is not None
    files, decode_start, decode_end, box_start, box_end, size, jittered, colour = inputs(
        source, regions=decodes_regions(gpu)
    )
    images = decoded(read(files, from_shards), decode_start, decode_end, gpu)
    squares = resized(images, box_start, box_end, size)
    # Jitter mixes channels, which costs more than scaling them, so batches without it take the other branch.
    if jittered:
        images = fn.coord_transform(squares, MT=colour, dtype=types.DALIDataType.FLOAT)
        if on_gpu:
            images = fn.cast(images, dtype=_output_type(on_gpu))  # coord_transform has no float16 output of its own
    else:
        images = normalised(squares, normalisation, on_gpu)
    return images


def inputs(source: Callable[[], Sequence[Any]], *, regions: bool = True) -> Any:
    """Take the `GraphInputs` that a function returns, one batch per call, as the nodes of a graph.

    Without regions, the function returns what `GraphInputs.without_regions` does, and None stands for what is missing:
    DALI warns of inputs that are not used.
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
    # Memory-mapped reading turns an empty file into an error that names nothing.
    return files if from_shards else fn.io.file.read(files, dont_use_mmap=True)


def decoded(encoded: Any, start: Any, end: Any, gpu: Decoding | None) -> Any:
    """Return the region of each image, or the whole image where the GPU is to decode that; None is the CPU."""
    # PIL does not rotate by EXIF, and neither does ImageFolder: nor do we, on any device.
    settings: dict[str, Any] = {"adjust_orientation": False}
    if gpu is not None:
        settings |= {
            "device": "mixed",
            "hw_decoder_load": gpu.hw_decoder_load,
            "jpeg_fancy_upsampling": gpu.fancy_upsampling,
        }
        if not decodes_regions(gpu):
            return fn.decoders.image(encoded, **settings)
    return fn.decoders.image_slice(encoded, start=start, end=end, axes=[0, 1], **settings)


def resized(images: Any, box_start: Any, box_end: Any, size: Any) -> Any:
    """Return the crop boxes of the images, resized."""
    return fn.resize(
        images,
        size=size,
        roi_start=box_start,
        roi_end=box_end,
        interp_type=types.DALIInterpType.INTERP_LINEAR,
        antialias=True,
        subpixel_scale=False,
    )


def normalised(squares: Any, normalisation: Normalisation, on_gpu: bool) -> Any:
    """Return the network's input, of images whose colours are not jittered."""
    return fn.crop_mirror_normalize(
        squares,
        dtype=_output_type(on_gpu),
        mean=[255 * value for value in normalisation.mean],
        std=[255 * value for value in normalisation.std],
        output_layout="HWC",
    )


def _output_type(on_gpu: bool) -> types.DALIDataType:
    return types.DALIDataType.FLOAT16 if on_gpu else types.DALIDataType.FLOAT
