"""The one DALI graph: read → decode → resize the window → colour and normalise.

It knows no stage and no resolution; both arrive with each batch. This is the only file with DALI operators,
and the casts that their untyped results need. Each step is a function, so that the benches can run a part of the graph.
"""

from collections.abc import Callable, Sequence
from typing import Any

from nvidia.dali import fn as _fn
from nvidia.dali import types
from nvidia.dali.pipeline import pipeline_def

from dali_fixres.colour import Normalisation

__all__ = ["build_graph", "build_probe", "decoded", "inputs", "normalised", "read", "resized"]

fn: Any = _fn
"""DALI's operators; its stubs lack some, and type the results of others as unions that no operator takes."""

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
"""Types and dimensions per sample of `pipelines.feed.GraphInputs`, field by field."""


def build_graph(
    source: Callable[[], Sequence[Any]],
    *,
    device_id: int | None,
    max_batch_size: int,
    num_threads: int,
    prefetch: int,
    normalisation: Normalisation,
    from_shards: bool,
) -> Any:
    """Build the pipeline.

    Args:
        source: Returns the `GraphInputs` of the next batch, or raises StopIteration.
        from_shards: Whether it is given encoded pictures instead of paths.
        device_id: The GPU, or None for DALI's CPU backend.
        max_batch_size: No batch is larger.
        num_threads: CPU threads that read and decode.
        prefetch: Batches in flight.
        normalisation: Of batches whose colours are not jittered.
    """
    pipeline: Any = _graph(
        source,
        on_gpu=device_id is not None,
        normalisation=normalisation,
        from_shards=from_shards,
        device_id=device_id,
        batch_size=max_batch_size,
        num_threads=num_threads,
        prefetch_queue_depth=prefetch,
    )
    pipeline.build()
    return pipeline


def build_probe(*, from_shards: bool) -> Any:
    """Build a pipeline that decodes one region at a time on one CPU thread: ``run(file=…, start=…, end=…)``.

    A region that cannot be decoded raises RuntimeError; the next ones are decoded all the same.
    """
    pipeline: Any = _probe(from_shards, batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    pipeline.build()
    return pipeline


@pipeline_def
def _probe(from_shards: bool) -> Any:
    files = fn.external_source(name="file", dtype=types.DALIDataType.UINT8, ndim=1)
    start, end = (fn.external_source(name=name, dtype=types.DALIDataType.INT32, ndim=1) for name in ("start", "end"))
    return decoded(read(files, from_shards), start, end, on_gpu=False)


@pipeline_def(enable_conditionals=True)
def _graph(source: Callable[[], Sequence[Any]], on_gpu: bool, normalisation: Normalisation, from_shards: bool) -> Any:
    files, decode_start, decode_end, window_start, window_end, size, jittered, colour = inputs(source)
    pictures = decoded(read(files, from_shards), decode_start, decode_end, on_gpu)
    squares = resized(pictures, window_start, window_end, size)
    # Jitter mixes channels, which costs more than scaling them, so batches without it take the other branch.
    if jittered:
        images = fn.coord_transform(squares, MT=colour, dtype=types.DALIDataType.FLOAT)
        if on_gpu:
            images = fn.cast(images, dtype=_output_type(on_gpu))  # coord_transform has no float16 output of its own
    else:
        images = normalised(squares, normalisation, on_gpu)
    return images


def inputs(source: Callable[[], Sequence[Any]]) -> Any:
    """Take the `GraphInputs` that a function returns, one batch per call, as the nodes of a graph."""
    return fn.external_source(
        source=source, num_outputs=len(_INPUT_TYPES), dtype=_INPUT_TYPES, ndim=_INPUT_NDIMS, batch=True
    )


def read(files: Any, from_shards: bool) -> Any:
    """Return the encoded pictures."""
    # Memory-mapped reading turns an empty file into an error that names nothing.
    return files if from_shards else fn.io.file.read(files, dont_use_mmap=True)


def decoded(encoded: Any, start: Any, end: Any, on_gpu: bool) -> Any:
    """Return the region of each picture that is decoded; on a GPU the whole picture."""
    # PIL does not rotate by EXIF, and neither does ImageFolder: nor do we, on any device.
    if on_gpu:
        # Decoding only a window may crash nvImageCodec 0.9 on hardware decoders, so decode all.
        return fn.decoders.image(encoded, device="mixed", adjust_orientation=False, jpeg_fancy_upsampling=True)
    return fn.decoders.image_slice(encoded, start=start, end=end, axes=[0, 1], adjust_orientation=False)


def resized(pictures: Any, window_start: Any, window_end: Any, size: Any) -> Any:
    """Return the windows of the pictures, resized."""
    return fn.resize(
        pictures,
        size=size,
        roi_start=window_start,
        roi_end=window_end,
        interp_type=types.DALIInterpType.INTERP_LINEAR,
        antialias=True,
        subpixel_scale=False,
    )


def normalised(squares: Any, normalisation: Normalisation, on_gpu: bool) -> Any:
    """Return the network's input, of pictures whose colours are not jittered."""
    return fn.crop_mirror_normalize(
        squares,
        dtype=_output_type(on_gpu),
        mean=[255 * value for value in normalisation.mean],
        std=[255 * value for value in normalisation.std],
        output_layout="HWC",
    )


def _output_type(on_gpu: bool) -> types.DALIDataType:
    return types.DALIDataType.FLOAT16 if on_gpu else types.DALIDataType.FLOAT
