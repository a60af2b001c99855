r"""How far test images are from PIL's and torchvision's, pixel by pixel, and what that does to an accuracy.

    uv run python bench/parity.py
    uv run python bench/parity.py --checkpoint RUN --res 128,192
    uv run python bench/parity.py --data DIR --model timm/mobilenetv2_100 --model-arg pad_type=same --weights FILE \
      --mean .5 .5 .5 --std .5 .5 .5 --res 192,224

Images as they are tested, through our graph on the CPU and, where there is one, on a GPU, against PIL's image with
torchvision's resize and centre crop. Pixels are compared on --num-batches batches, spread over the training images,
which are more than those to test on; of data without any, on test images. Given a network, it answers for every test
image: top-1 of each way, and how many answers differ from those on PIL's images. The network runs in the same
precision on all of them. Nothing is timed, and nothing repeated: it would come out the same.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from dali_fixres.runtime.system import prepare_host

prepare_host()  # as the command line does, before torch is loaded

import numpy as np
import torch
from cyclopts import App, Parameter
from harness import Flags, open_bench_data, report, start
from matplotlib.figure import Figure
from numpy.typing import NDArray
from reference import torchvision_test_image
from rich.table import Table

from dali_fixres.config import Device, EvaluateConfig
from dali_fixres.errors import UserError
from dali_fixres.models import Model
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.decoding import decoding_for
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.precision import forward_precision
from dali_fixres.runtime.progress import Reporter
from dali_fixres.checkpoints.model_source import build_to_test, find_start
from dali_fixres.training.setup import prepare
from pipelines import Loader
from pipelines.dataset import TRAIN, VAL, Dataset
from pipelines.plan import EvalPlan
from pipelines.plan.colour import Normalisation
from pipelines.processes import loader_threads, usable_cores
from pipelines.resolution import DEFAULT_CROP_RATIO, Resolution, parse_resolutions

PIL, DALI_CPU, DALI_GPU = "pil", "dali cpu", "dali gpu"

PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

BINS_PER_LEVEL = 100
"""Of the histogram of differences, for each of the 255 levels."""

Source = Callable[[Resolution], Iterator[torch.Tensor]]
"""All images of a plan at a resolution, batch by batch, (n, 3, h, w)."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Flags):
    """Flags."""

    checkpoint: Path | None = None
    """A run or checkpoint to answer, and its data set if --data is left out."""

    model: str | None = None
    """Or a network by name, as for `dali-fixres evaluate`; so are the next six."""

    pretrained: bool = False
    """The library's weights."""

    weights: Path | None = None
    """Weights from a file."""

    class_map: Path | None = None
    """Names of the network's outputs."""

    model_arg: tuple[str, ...] = ()
    """KEY=VALUE for the network's constructor."""

    mean: tuple[float, float, float] | None = None
    """Of the normalisation."""

    std: tuple[float, float, float] | None = None
    """Of the normalisation."""

    device: Device = "auto"
    """Where the network runs."""

    @property
    def network(self) -> EvaluateConfig:
        """What says which network it is."""
        names = ("checkpoint", "model", "pretrained", "weights", "class_map", "model_arg", "mean", "std")
        return EvaluateConfig(**{name: getattr(self, name) for name in names})


def main(bench: Bench) -> None:
    """Compare, print the tables, write JSON and the plot."""
    reporter = Reporter()
    answering = any(given is not None for given in (bench.checkpoint, bench.model, bench.weights))
    start = find_start(bench.network, None, reporter) if answering else None
    if start is not None and bench.data is None:
        bench = replace(bench, data=start.data, val_fraction=bench.val_fraction or start.val_fraction)
    opened = open_bench_data(bench)
    dataset = opened.dataset
    if dataset.in_shards:
        raise UserError("PIL's side of this bench reads single files; give --data a folder or a manifest")
    resolutions = parse_resolutions(bench.res, start.checkpoint.crop_ratio if start else DEFAULT_CROP_RATIO)
    pixels, network, results = _some_images(dataset, bench.batch_size, bench.effort.num_batches), None, []
    with ThreadPoolExecutor(usable_cores()) as pool:
        sources = _sources(pixels, PLAIN, pool)
        differences = [row for resolution in resolutions for row in _compared(sources, resolution)]
        if answering:
            network, built, class_map = build_to_test(bench.network, start, dataset, reporter)
            tested = EvalPlan(dataset, bench.batch_size)
            labels = class_map.right_outputs(torch.from_numpy(dataset.labels[tested.rows])).numpy()
            answered = _sources(tested, built.normalisation, pool)
            results = [row for one in resolutions for row in _accuracies(bench, built, answered, one, labels)]
    content = {"model": network, "num_images": pixels.num_images, "differences": differences, "results": results}
    for title, table in tables(content).items():
        print_table(title, table)
    reporter.line(f"figures in {report('parity', bench, opened, content, _figure(differences))}")


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
    decoding = decoding_for(torch.device(device), World(), Reporter())
    with Loader(
        plan.dataset,
        max_batch_size=plan.batch_size,
        device=device,
        decoding=decoding,
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
        images = list(pool.map(torchvision_test_image, paths, [resolution] * len(paths)))
        yield (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255 - mean) / std


def _compared(sources: Mapping[str, Source], resolution: Resolution) -> Iterator[dict[str, Any]]:
    for one, other in combinations(sources, 2):
        found = differences_of(zip(sources[one](resolution), sources[other](resolution), strict=True))
        yield {"loader": one, "against": other, "res": resolution.crop_px, **found}


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


@torch.inference_mode()
def _accuracies(
    bench: Bench, built: Model, sources: Mapping[str, Source], resolution: Resolution, labels: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Return a row for each way to the images: how the network answers."""
    device = choose_device(bench.device)
    network = prepare(built.network, device, sync_bn=False).eval()
    answers = {}
    for loader, source in sources.items():
        chosen = []
        for images in source(resolution):
            with forward_precision(device):
                chosen.append(network(images.to(device, memory_format=torch.channels_last)).argmax(1).cpu())
        answers[loader] = torch.cat(chosen).numpy()
    return [
        {
            "stage": "answers",
            "loader": loader,
            "res": resolution.crop_px,
            # What every bench's rows carry; nothing is timed here.
            "images_per_s": None,
            "repeats": [],
            "top1": round(100 * float((given == labels).mean()), 4),
            "num_images": len(labels),
            "num_other_answers": int((given != answers[PIL]).sum()),
        }
        for loader, given in answers.items()
    ]


def tables(content: Mapping[str, Any]) -> dict[str, Table]:
    """Return the tables of a results file by their titles."""
    differences = _difference_table(content["differences"])
    found = {f"differences of {content['num_pictures']} images, in 1/255": differences}
    if content["model"] is not None:
        found[f"answers of {content['model']} on the test images"] = _answer_table(content["results"])
    return found


def _difference_table(rows: list[dict[str, Any]]) -> Table:
    table = Table()
    for heading in ("res, px", "", "against", "mean", "99.9 %", "max"):
        table.add_column(heading, justify="right")
    for row in rows:
        figures = (f"{row[name]:.2f}" for name in ("mean", "p99_9", "max"))
        table.add_row(str(row["res"]), row["loader"], row["against"], *figures)
    return table


def _answer_table(rows: list[dict[str, Any]]) -> Table:
    table = Table()
    for heading in ("res, px", "", "top-1 %", "other answers than on PIL's", "of"):
        table.add_column(heading, justify="right")
    for row in rows:
        counts = (str(row[name]) for name in ("num_other_answers", "num_images"))
        table.add_row(str(row["res"]), row["loader"], f"{row['top1']:.2f}", *counts)
    return table


def _figure(rows: list[dict[str, Any]]) -> Figure:
    """Draw the mean differences against the resolution."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for loader, against in dict.fromkeys((row["loader"], row["against"]) for row in rows):
        same = [row for row in rows if (row["loader"], row["against"]) == (loader, against)]
        points = [row["res"] for row in same], [row["mean"] for row in same]
        axes.plot(*points, marker="o", label=f"{loader} against {against}")
    axes.set(xlabel="resolution, px", ylabel="mean difference, 1/255", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


app = App(name="parity.py", help=__doc__, help_format="plaintext")


@app.default
def _run(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
