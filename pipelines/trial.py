"""Tries a way to decode in a process of its own, as it may crash: ``python -m pipelines.trial DECODING GPU``.

DECODING is a `Decoding` as JSON and GPU its number; ``null null`` tries the CPU. The pictures are drawn on the spot, of
several sizes and kinds of JPEG, and the result is compared with PIL's. The last line it prints is JSON: ``difference``
and ``images_per_s``, as in `pipelines.decoding.Attempt`.
"""

import json
import sys
import time
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipelines.decoding import Decoding, takes_regions
from pipelines.graph import build_probe

NUM_PICTURES = 64
NUM_COMPARED, NUM_TIMED = 3, 24
"""Batches; the first ones are compared."""

NUM_THREADS = 4

KINDS: tuple[dict[str, Any], ...] = (
    {"subsampling": "4:2:0"},
    {"subsampling": "4:4:4"},
    {"subsampling": "4:2:2"},
    {"subsampling": "4:2:0", "progressive": True},
)

Regions = NDArray[np.int32]
"""Start (y, x) and end of the region of each picture, (n, 2, 2)."""


def main(decoding: Decoding | None, device_id: int | None) -> dict[str, float]:
    """Decode, compare with PIL, and take the time."""
    rng = np.random.default_rng(0)
    encoded = [_draw(rng, number) for number in range(NUM_PICTURES)]
    expected = [np.asarray(Image.open(BytesIO(file)).convert("RGB")) for file in encoded]
    files = [np.frombuffer(file, np.uint8) for file in encoded]
    batches = [_regions(rng, expected) for _ in range(NUM_COMPARED + NUM_TIMED)]
    pipeline = build_probe(
        from_shards=True,
        device_id=device_id,
        decoding=decoding,
        max_batch_size=NUM_PICTURES,
        num_threads=NUM_THREADS,
    )

    parts = takes_regions(decoding)

    def decode(regions: Regions) -> Any:
        where = {"start": list(regions[:, 0]), "end": list(regions[:, 1])} if parts else {}
        (outputs,) = pipeline.run(file=files, **where)
        return outputs

    compared = batches[:NUM_COMPARED]
    difference = max(_difference(decode(regions), expected, regions if parts else None) for regions in compared)
    started = time.perf_counter()
    for regions in batches[NUM_COMPARED:]:
        decode(regions)
    if device_id is not None:
        torch.cuda.synchronize(device_id)
    return {
        "difference": round(difference, 4),
        "images_per_s": round(NUM_PICTURES * NUM_TIMED / (time.perf_counter() - started), 1),
    }


def _draw(rng: np.random.Generator, number: int) -> bytes:
    """Return a JPEG of about 500 x 400 pixels: smooth colours under grain, now and then a grey one."""
    height, width = (int(side) for side in rng.integers((320, 380), (420, 520)))
    coarse = rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(scale=12, size=(height, width, 1))
    picture = Image.fromarray(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8))
    stream = BytesIO()
    if number % 16 == 0:
        picture.convert("L").save(stream, "jpeg", quality=90)
    else:
        picture.save(stream, "jpeg", quality=90, **KINDS[number % len(KINDS)])
    return stream.getvalue()


def _regions(rng: np.random.Generator, pictures: list[NDArray[np.uint8]]) -> Regions:
    """Draw a part of each picture, of a tenth of its sides to all of them."""
    sides = np.array([picture.shape[:2] for picture in pictures])
    sizes = np.maximum(1, (sides * rng.uniform(0.1, 1, sides.shape)).astype(int))
    starts = rng.integers(0, sides - sizes + 1)
    return np.stack([starts, starts + sizes], axis=1).astype(np.int32)


def _difference(outputs: Any, expected: list[NDArray[np.uint8]], regions: Regions | None) -> float:
    """Return the largest mean difference of a picture."""
    decoded = outputs.as_cpu()
    worst = 0.0
    for number, picture in enumerate(expected):
        wanted = picture
        if regions is not None:
            (top, left), (bottom, right) = regions[number]
            wanted = picture[top:bottom, left:right]
        found = np.asarray(decoded.at(number))
        if found.shape != wanted.shape:
            return 255.0
        worst = max(worst, float(np.abs(found.astype(int) - wanted).mean()))
    return worst


if __name__ == "__main__":
    way, gpu = (json.loads(word) for word in sys.argv[1:])
    print(json.dumps(main(None if way is None else Decoding(**way), gpu)))  # noqa: T201 - the result
