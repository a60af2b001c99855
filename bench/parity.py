"""How far test images are from PIL's and torchvision's, pixel by pixel, and whether a network's answers change.

Images come through our graph on the CPU, and on a GPU where there is one, and from PIL with torchvision's resize and
centre crop. Pixels are compared on --num-batches batches spread over the training images (over the test images of data
without any). With --checkpoint, a trained network answers for every test image: top-1 of each way, and how many answers
differ from those on PIL's images. Nothing is timed.

    uv run python -m bench.parity
    uv run python -m bench.parity --data DIR --checkpoint RUN --res 128,192
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.harness import Bench, Flags, Table
from bench.reference import torchvision_test_image
from bench.saved import Content
from dali_fixres.checkpoints import load_checkpoint, rebuild
from dali_fixres.runtime import Reporter, run_network
from pipelines import (
    AUGMENTATIONS,
    TRAIN,
    VAL,
    Dataset,
    EvalPlan,
    Loader,
    Normalisation,
    Resolution,
    UserError,
    loader_threads,
    usable_cores,
)

PIL, DALI_CPU, DALI_GPU = "pil", "dali cpu", "dali gpu"

PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

BINS_PER_LEVEL = 100
"""Of the histogram of differences, for each of the 255 levels."""

Source = Callable[[Resolution], Iterator[torch.Tensor]]
"""All images of a plan at a resolution, batch by batch, (n, 3, h, w)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityFlags(Flags):
    """Flags."""

    checkpoint: Path | None = None
    """A run or checkpoint of `dali-fixres`, trained on the classes of the data."""


def measure(flags: ParityFlags, dataset: Dataset, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001 - of all benches
    """Compare pixels, and answers."""
    if dataset.in_shards:
        raise UserError("PIL reads single files here; give --data a folder or a manifest")
    pixels = _some_images(dataset, flags.batch_size, flags.effort.num_batches)
    with ThreadPoolExecutor(usable_cores()) as pool:
        sources = _sources(pixels, PLAIN, pool)
        differences = [row for resolution in flags.resolutions for row in _compared(sources, resolution)]
        found = {} if flags.checkpoint is None else _answered(flags, flags.checkpoint, dataset, pool)
    return {"model": None, "results": [], **found, "num_images": pixels.num_images, "differences": differences}


def _some_images(dataset: Dataset, batch_size: int, num_batches: int) -> EvalPlan:
    """Plan tests of some images that are spread over all classes."""
    split = TRAIN if dataset.num_train else VAL
    every = -(-len(dataset.rows(split)) // (num_batches * batch_size))
    return EvalPlan(dataset, batch_size, split=split, every=max(1, every))


def _sources(plan: EvalPlan, normalisation: Normalisation, pool: ThreadPoolExecutor) -> dict[str, Source]:
    """Return the ways to the same images; PIL's last."""
    devices = {DALI_CPU: "cpu", **({DALI_GPU: "cuda"} if torch.cuda.is_available() else {})}
    ours: dict[str, Source] = {name: partial(_from_graph, plan, normalisation, at) for name, at in devices.items()}
    return {**ours, PIL: partial(_from_pil, plan, normalisation, pool)}


def _from_graph(
    plan: EvalPlan, normalisation: Normalisation, device: str, resolution: Resolution
) -> Iterator[torch.Tensor]:
    with Loader(
        plan.dataset,
        max_batch_size=plan.batch_size,
        device=device,
        num_threads=loader_threads(),
        normalisation=normalisation,
    ) as loader:
        for batch in loader.run(plan.batches(resolution)):
            yield batch.images.float()


def _from_pil(
    plan: EvalPlan, normalisation: Normalisation, pool: ThreadPoolExecutor, resolution: Resolution
) -> Iterator[torch.Tensor]:
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalisation.mean, normalisation.std))
    for batch in plan.batches(resolution):
        paths = [plan.dataset.path(row) for row in batch.ids.tolist()]
        interpolation = str(plan.augmentation.interpolation)
        read = partial(torchvision_test_image, resolution=resolution, interpolation=interpolation)
        images = list(pool.map(read, paths))
        yield (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255 - mean) / std


def _compared(sources: Mapping[str, Source], resolution: Resolution) -> Iterator[dict[str, Any]]:
    for name, source in sources.items():
        if name != PIL:
            found = differences_of(zip(source(resolution), sources[PIL](resolution), strict=True))
            yield {"loader": name, "against": PIL, "res": resolution.crop_px, **found}


def differences_of(pairs: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """Return mean, 99.9th percentile and maximum of the differences of images in 0-1, in 1/255.

    The percentile is read off a histogram, to a hundredth: the images of a large data set are not kept.
    """
    counts = np.zeros(255 * BINS_PER_LEVEL + 1, np.int64)
    total = largest = 0.0
    for one, other in pairs:
        difference = 255 * (one.cpu() - other.cpu()).abs().double().numpy().ravel()
        total += float(difference.sum())
        largest = max(largest, float(difference.max()))
        bins = np.minimum(np.rint(difference * BINS_PER_LEVEL).astype(np.int64), len(counts) - 1)
        counts += np.bincount(bins, minlength=len(counts))
    percentile = np.searchsorted(np.cumsum(counts), 0.999 * counts.sum()) / BINS_PER_LEVEL
    return {
        "mean": round(total / int(counts.sum()), 4),
        "p99_9": round(float(percentile), 2),
        "max": round(largest, 3),
    }


def _answered(flags: ParityFlags, path: Path, dataset: Dataset, pool: ThreadPoolExecutor) -> dict[str, Any]:
    """Let a checkpoint's network answer for all test images, from each way."""
    checkpoint = load_checkpoint(path)
    if checkpoint.classes != dataset.classes:
        raise UserError(f"{path} was trained on other classes than those of {dataset.root}")
    model = rebuild(checkpoint, path)
    network = model.network.to(flags.torch_device).eval()
    plan = EvalPlan(dataset, flags.batch_size, augmentation=model.data_config.planned(AUGMENTATIONS["v1"]))
    labels, sources = dataset.labels[plan.rows], _sources(plan, model.normalisation, pool)
    rows: list[dict[str, Any]] = []
    for crop in flags.resolutions:
        resolution = Resolution(crop.crop_px, checkpoint.crop_ratio)
        answers = {name: _answers(network, source(resolution), flags.torch_device) for name, source in sources.items()}
        rows += [
            {
                "stage": "answers",
                "loader": name,
                "res": resolution.crop_px,
                "images_per_s": None,
                "repeats": [],
                "top1": round(100 * float((found == labels).mean()), 4),
                "num_images": len(labels),
                "num_other_answers": int((found != answers[PIL]).sum()),
            }
            for name, found in answers.items()
        ]
    return {"model": checkpoint.model.name, "results": rows}


@torch.inference_mode()
def _answers(network: nn.Module, batches: Iterator[torch.Tensor], device: torch.device) -> NDArray[np.int64]:
    chosen = []
    for images in batches:
        logits = run_network(network, images.to(device, memory_format=torch.channels_last), "fp32")
        chosen.append(logits.argmax(1).cpu())
    found: NDArray[np.int64] = torch.cat(chosen).numpy()
    return found


def tables(content: Content) -> list[Table]:
    """Return the differences, and the answers where a network has given some."""
    rows = [
        [
            f"{row['res']} px",
            row["loader"],
            *(f"{row[name]:.2f}" for name in ("mean", "p99_9", "max")),
        ]
        for row in content["differences"]
    ]
    title = f"Differences of {content['num_images']} images from PIL's, in 1/255"
    differences = Table(title, ("", "images from", "mean", "99.9 %", "maximum"), rows)
    if not content["results"]:
        return [differences]
    answers = [
        [f"{row['res']} px", row["loader"], f"{row['top1']:.2f}", f"{row['num_other_answers']} of {row['num_images']}"]
        for row in content["results"]
    ]
    headings = ("", "images from", "top-1 %", "answers that differ from PIL's")
    return [differences, Table(f"Answers of {content['model']} for the test images", headings, answers)]


BENCH = Bench("parity", __doc__, ParityFlags, measure, tables)

if __name__ == "__main__":
    BENCH.main()
