"""Tries a way to decode in a process of its own, as it may crash: ``python -m pipelines.trial DECODING GPU``.

DECODING is a `Decoding` as JSON and GPU its number; ``null null`` tries the CPU. First, pictures of all kinds that are
drawn on the spot are decoded and compared with PIL's, while nvImageCodec writes a log; then the loader's own graph is
timed without a log, on pictures of the most usual kind. The last line it prints is JSON: ``difference`` and
``images_per_s``, as in `pipelines.decoding.Attempt`.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from io import BytesIO
from itertools import cycle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dali_fixres.colour import IMAGENET
from dali_fixres.processes import loader_threads
from pipelines.decoding import WHOLE, Decoding, takes_regions
from pipelines.feed import GraphInputs
from pipelines.graph import build_graph, build_probe

NUM_PICTURES = 32
"""Different ones."""

BATCH_SIZE = 128
"""Of the most usual kind; each picture comes several times."""

NUM_MIXED = 8
"""Batches with pictures of all kinds; one of the most usual kind follows."""

WARM_UP, TIMED_S = 6, 1.5
"""Batches before the clock starts, which is when CUDA starts and memory is taken, and how long it then runs, s."""

RES = 224
"""Pixels that the timed graph resizes to."""

MIN_VALUES = 16 * 16 * 3
"""A picture of fewer values is judged as if it had so many: in a few pixels, rounding alone may be more than 1."""

LOG_LEVEL = "DALI_NVIMGCODEC_LOG_LEVEL"
"""At level 4 nvImageCodec names the hardware engines that it finds, and what it does not decode on the GPU."""

USUAL: dict[str, Any] = {"format": "jpeg", "subsampling": "4:2:0"}

KINDS: tuple[dict[str, Any], ...] = (
    USUAL,
    {"format": "jpeg", "subsampling": "4:4:4"},
    {"format": "jpeg", "subsampling": "4:2:2"},
    {"format": "jpeg", "subsampling": "4:2:0", "progressive": True},
)

Picture = NDArray[np.uint8]

Regions = NDArray[np.int32]
"""Start (y, x) and end of the region of each picture, (n, 2, 2)."""


def main(decoding: Decoding | None, device_id: int | None) -> dict[str, float]:
    """Decode, compare with PIL, and take the time."""
    rng = np.random.default_rng(0)
    drawn = [_draw(rng) for _ in range(NUM_PICTURES)]
    usual = [_saved(picture, **USUAL) for picture in drawn] * (BATCH_SIZE // NUM_PICTURES)
    os.environ[LOG_LEVEL] = "4"
    difference = _compared([*[_of_all_kinds(drawn)] * NUM_MIXED, usual], rng, decoding, device_id)
    del os.environ[LOG_LEVEL]  # DALI looks at it whenever it builds a pipeline
    images_per_s = _timed(usual, rng, decoding, device_id)
    return {"difference": round(difference, 4), "images_per_s": round(images_per_s, 1)}


def _compared(
    batches: Sequence[list[bytes]], rng: np.random.Generator, decoding: Decoding | None, device_id: int | None
) -> float:
    """Decode regions of encoded pictures, or all of them; return the largest mean difference of one, of 255."""
    pipeline = build_probe(
        from_shards=True,
        device_id=device_id,
        decoding=decoding,
        max_batch_size=BATCH_SIZE,
        num_threads=loader_threads(),
    )
    worst = 0.0
    for files in batches:
        wanted = _by_pil(files)
        where: dict[str, Any] = {}
        if takes_regions(decoding):
            regions = _regions(rng, wanted)
            where = {"start": list(regions[:, 0]), "end": list(regions[:, 1])}
            wanted = [
                picture[top:bottom, left:right]
                for picture, ((top, left), (bottom, right)) in zip(wanted, regions, strict=True)
            ]
        (outputs,) = pipeline.run(file=_as_arrays(files), **where)
        decoded = outputs.as_cpu()
        found = (np.asarray(decoded.at(number)) for number in range(len(files)))
        worst = max(worst, *map(_difference, found, wanted))
    return worst


def _timed(files: list[bytes], rng: np.random.Generator, decoding: Decoding | None, device_id: int | None) -> float:
    """Return how many pictures the loader's graph makes in a second."""
    regions = [_regions(rng, _by_pil(files)) for _ in range(4)]
    inputs = cycle([_inputs(_as_arrays(files), places, decoding) for places in regions])
    pipeline = build_graph(
        lambda: next(inputs),
        device_id=device_id,
        decoding=decoding or WHOLE,
        max_batch_size=len(files),
        num_threads=loader_threads(),
        prefetch=2,
        normalisation=IMAGENET,
        from_shards=True,
    )
    stream = None if device_id is None else torch.cuda.current_stream(device_id)
    for _ in range(WARM_UP):
        pipeline.run(stream)
    _wait(device_id)
    num_batches, started = 0, time.perf_counter()
    while time.perf_counter() - started < TIMED_S:
        pipeline.run(stream)
        num_batches += 1
    _wait(device_id)
    return num_batches * len(files) / (time.perf_counter() - started)


def _wait(device_id: int | None) -> None:
    if device_id is not None:
        torch.cuda.synchronize(device_id)


def _inputs(files: list[Picture], regions: Regions, decoding: Decoding | None) -> tuple[Any, ...]:
    """Order the regions, resized, from the loader's graph."""
    starts, ends = np.ascontiguousarray(regions[:, 0]), np.ascontiguousarray(regions[:, 1])
    parts = takes_regions(decoding)
    corner = starts if parts else np.zeros_like(starts)  # of what is decoded
    inputs = GraphInputs(
        files=files,
        decode_start=starts,
        decode_end=ends,
        window_start=(starts - corner).astype(np.float32),
        window_end=(ends - corner).astype(np.float32),
        size=np.full((len(files), 2), RES, np.float32),
        jittered=np.zeros(len(files), np.bool_),
        colour=np.zeros((len(files), 3, 4), np.float32),
    )
    return inputs if parts else inputs.without_regions()


def _draw(rng: np.random.Generator) -> Image.Image:
    """Draw a picture of about 500 x 400 pixels: smooth colours, half as strong as can be, under grain."""
    height, width = (int(side) for side in rng.integers((320, 380), (420, 520)))
    coarse = rng.integers(0, 256, (height // 40, width // 40, 3))
    grey = coarse.mean(axis=2, keepdims=True)
    smooth = Image.fromarray(((coarse + grey) / 2).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(scale=12, size=(height, width, 1))
    return Image.fromarray(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8))


def _of_all_kinds(pictures: Sequence[Image.Image]) -> list[bytes]:
    """Encode pictures in one kind of JPEG after the other, and one of them in rare ones and as PNG, and tiny parts."""
    usual = [_saved(picture, **KINDS[number % len(KINDS)]) for number, picture in enumerate(pictures)]
    first = pictures[0]
    tiny = [_saved(first.crop((0, 0, side, side)), **USUAL) for side in (1, 32)]
    rare = [_saved(first.convert(mode), format="jpeg") for mode in ("L", "CMYK")]
    return [*usual, *tiny, *rare, _four_one_one(first), _saved(first, format="png")]


def _saved(picture: Image.Image, **settings: Any) -> bytes:
    stream = BytesIO()
    picture.save(stream, **{"quality": 90, **settings})
    return stream.getvalue()


def _four_one_one(picture: Image.Image) -> bytes:
    """Return a JPEG with colour at a quarter of the width, which PIL does not write.

    It is one of 4:2:0 whose header lays the four blocks of brightness for each of colour side by side. The picture is
    made grey, since decoders do not agree on how to interpolate such colour.
    """
    width, height = (side // 16 * 16 for side in picture.size)
    file = bytearray(_saved(picture.convert("L").convert("RGB").crop((0, 0, width, height)), **USUAL))
    frame = file.index(b"\xff\xc0")  # then length (2 bytes), precision, height (2), width (2), components, id, factors
    file[frame + 5 : frame + 9] = (height // 2).to_bytes(2) + (2 * width).to_bytes(2)
    file[frame + 11] = 0x41
    return bytes(file)


def _as_arrays(files: Sequence[bytes]) -> list[Picture]:
    return [np.frombuffer(file, np.uint8) for file in files]


def _by_pil(files: Sequence[bytes]) -> list[Picture]:
    return [np.asarray(Image.open(BytesIO(file)).convert("RGB")) for file in files]


def _regions(rng: np.random.Generator, pictures: Sequence[Picture]) -> Regions:
    """Draw a part of each picture, of three tenths of its sides to all of them."""
    sides = np.array([picture.shape[:2] for picture in pictures])
    sizes = np.maximum(1, (sides * rng.uniform(0.3, 1, sides.shape)).astype(int))
    starts = rng.integers(0, sides - sizes + 1)
    return np.stack([starts, starts + sizes], axis=1).astype(np.int32)


def _difference(found: Picture, wanted: Picture) -> float:
    """Return the mean difference of a picture, of 255; that of another size is as wrong as can be."""
    if found.shape != wanted.shape:
        return 255.0
    return float(np.abs(found.astype(int) - wanted).sum()) / max(found.size, MIN_VALUES)


if __name__ == "__main__":
    way, gpu = (json.loads(word) for word in sys.argv[1:])
    print(json.dumps(main(None if way is None else Decoding(**way), gpu)))  # noqa: T201 - the result
