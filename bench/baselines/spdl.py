"""A baseline: SPDL, whose threads decode, crop, flip and resize with FFmpeg; NumPy normalises whole batches."""

import math
import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import spdl.io
from numpy.typing import NDArray
from spdl.pipeline import PipelineBuilder

from bench.baselines.protocol import Settings, serve


class Loader:
    """One epoch over the files at a resolution."""

    def __init__(self, settings: Settings, res: int) -> None:
        self._files = settings["files"]
        self._batch_size, self._workers = settings["batch_size"], settings["workers"]
        self._res = res
        self._scale = (1 / (255 * np.array(settings["std"]))).astype(np.float32)
        self._offset = (-np.array(settings["mean"]) / np.array(settings["std"])).astype(np.float32)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches."""
        pipeline = (
            PipelineBuilder()
            .add_source(random.sample(self._files, len(self._files)))
            .pipe(self._decoded, concurrency=self._workers)
            .aggregate(self._batch_size, drop_last=True)
            .pipe(self._batch)
            .add_sink(2)
            .build(num_threads=self._workers)
        )
        with pipeline.auto_stop():
            yield from pipeline.get_iterator()

    def _decoded(self, sample: tuple[str, int]) -> tuple[Any, int]:
        """Return the frames of a random resized crop, and its class."""
        path, label = sample
        packets = spdl.io.demux_image(path)
        left, top, width, height = random_crop_box(packets.codec.width, packets.codec.height)
        flip = ",hflip" if random.random() < 0.5 else ""
        view = f"crop={width}:{height}:{left}:{top},scale={self._res}:{self._res}:flags=bilinear{flip},format=rgb24"
        return spdl.io.decode_packets(packets, filter_desc=view), label

    def _batch(self, samples: list[tuple[Any, int]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        frames, labels = zip(*samples, strict=True)
        pixels = spdl.io.to_numpy(spdl.io.convert_frames(frames))
        images = pixels.astype(np.float32)
        images *= self._scale
        images += self._offset
        return images, np.array(labels)


def random_crop_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Draw left, top, width and height as torchvision's RandomResizedCrop does."""
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1)
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, width - w), random.randint(0, height - h), w, h
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side, side


def loader(settings: Settings, res: int) -> Iterable[Any]:
    """Return SPDL's loader at a resolution."""
    return Loader(settings, res)


if __name__ == "__main__":
    serve(loader, ("spdl", "numpy"))
