"""What the FixRes stage costs, by method and epochs, in training epochs at the low resolution.

The first of --res is the low resolution. Timed are the loader alone, and steps on batches in memory. The cost of an
epoch is put together from these for the same number of images:

* train: each image loaded, and a training step for it;
* sgd: in each epoch each image loaded, and a step for the classifier and the last norm;
* cached-features: some images loaded for the last norm's statistics, each image loaded once and run forward, and in
  each epoch a step of the classifier on its features, which loads nothing;
* frechet: some images loaded and run forward at both resolutions; the fit itself is not counted.

On a CPU the loader and the network share the cores, so their times add up; on a GPU a pass takes as long as the slower.

    uv run python -m bench.finetune_cost
    uv run python -m bench.finetune_cost --model resnet50 --res 128,224,320 --epochs 1,8,30
"""

import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import nn

from bench.harness import OURS, Bench, Flags, Key, Table, in_rounds, row_of
from bench.saved import Content
from bench.workloads import (
    build_setup,
    endless,
    open_loader,
    running,
    steps,
    synthetic_batch,
    timed,
    training_plan,
)
from dali_fixres.models import ModelSpec, find_head
from dali_fixres.runtime import Reporter, auto_precision, run_network
from pipelines import Batch, Dataset, Loader, TrainPlan, UserError

LOADER, TRAIN, SGD = "loader", "train step", "sgd step"
FEATURES, CLASSIFIER = "features", "classifier step"
STAGES = {LOADER, TRAIN, SGD, FEATURES, CLASSIFIER}

STATISTICS_IMAGES = 4096
"""Images over which statistics are measured; as for `dali-fixres finetune`."""

NUM_CLASSES = 1000
"""Outputs of the classifier, or as many as the data has classes if these are more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostFlags(Flags):
    """Flags."""

    res: str = "128,160,224"
    """Pixels: the low resolution, and those to fix for, separated by commas."""

    batch_size: int = 32
    """Images per batch."""

    model: str = "timm/mobilenetv2_100"
    """The network, with random weights."""

    epochs: str = "1,2,4,8"
    """Of fine-tuning, separated by commas."""

    num_images: int = 1_281_167
    """Images of an epoch; ImageNet's if left out."""

    def __post_init__(self) -> None:
        super(CostFlags, self).__post_init__()
        if len(self.resolutions) < 2:
            raise UserError(f"--res must name a low resolution and at least one to fix for; found {self.res}")
        if not all(word.isdecimal() and int(word) >= 1 for word in self.epochs.split(",")):
            raise UserError(f"--epochs takes whole numbers from 1, separated by commas; found {self.epochs}")


def measure(flags: CostFlags, dataset: Dataset, reporter: Reporter) -> dict[str, Any]:
    """Measure the parts, and put the costs together."""
    num_classes = max(NUM_CLASSES, len(dataset.classes))
    with open_loader(dataset, flags.batch_size, flags.torch_device) as loader:
        found = in_rounds(_work(flags, loader, dataset, num_classes), flags.effort.repeats, reporter)
    costs = put_together(
        {(key.stage, key.res): statistics.median(speeds) for key, speeds in found.items()},
        [int(word) for word in flags.epochs.split(",")],
        statistics_share=min(1.0, STATISTICS_IMAGES / flags.num_images),
        shares_cores=flags.torch_device.type == "cpu",
    )
    return {
        "model": flags.model,
        "num_classes": num_classes,
        "num_images": flags.num_images,
        "results": [row_of(key, speeds) for key, speeds in found.items()],
        "costs": costs,
    }


def put_together(
    speeds: Mapping[tuple[str, int], float], epochs: Collection[int], *, statistics_share: float, shares_cores: bool
) -> list[dict[str, Any]]:
    """Return what each method costs, in training epochs at the low resolution.

    Args:
        speeds: Images/s by stage and resolution.
        epochs: Numbers of epochs.
        statistics_share: Images that statistics are measured over, of those of an epoch (0-1).
        shares_cores: Whether the network runs on the cores that the loader runs on.
    """

    def a_pass(stage: str, res: int) -> float:
        """Return the seconds that an image takes in a pass over images, loading included."""
        both = 1 / speeds[LOADER, res], 1 / speeds[stage, res]
        return sum(both) if shares_cores else max(both)

    low = min(res for _, res in speeds)
    rows = []
    for res in sorted(res for stage, res in speeds if stage == SGD):
        train, sgd, features = (a_pass(stage, res) for stage in (TRAIN, SGD, FEATURES))
        costs = {("frechet", 0): statistics_share * (a_pass(FEATURES, low) + features)}
        for number in epochs:
            costs["train", number] = number * train
            costs["sgd", number] = number * sgd
            costs["cached-features", number] = (1 + statistics_share) * features + number / speeds[CLASSIFIER, res]
        rows += [
            {"method": method, "res": res, "epochs": number, "low_epochs": round(cost / a_pass(TRAIN, low), 5)}
            for (method, number), cost in costs.items()
        ]
    return rows


def _work(flags: CostFlags, loader: Loader, dataset: Dataset, num_classes: int) -> dict[Key, Callable[[], float]]:
    spec, highest, device = ModelSpec(flags.model, num_classes), flags.resolutions[-1], flags.torch_device
    whole, tuned = (build_setup(spec, highest, device, learns) for learns in ("all", "head"))
    width = next(find_head(tuned.network, highest).classifier.parameters()).shape[1]
    clock = partial(timed, batch_size=flags.batch_size, effort=flags.effort, device=device)

    def load(plan: TrainPlan) -> float:
        with running(loader, endless(plan)) as batches:
            return clock(batches).images_per_s

    def run(stage: str, batch: Batch) -> float:
        work: dict[str, Callable[[], Iterator[object]]] = {
            TRAIN: partial(steps, whole, repeat(batch)),
            SGD: partial(steps, tuned, repeat(batch)),
            FEATURES: partial(_forward, tuned.network, batch),
            CLASSIFIER: partial(_classifier_steps, width, num_classes, batch),
        }
        return clock(work[stage](), ahead=1).images_per_s

    work: dict[Key, Callable[[], float]] = {}
    for resolution in flags.resolutions:
        plan, res = training_plan(dataset, resolution, flags.batch_size), resolution.crop_px
        stages = (TRAIN, FEATURES) if resolution == flags.resolutions[0] else (TRAIN, FEATURES, SGD, CLASSIFIER)
        work[Key(LOADER, OURS, res)] = partial(load, plan)
        batch = synthetic_batch(plan, device)
        work |= {Key(stage, "batches in memory", res): partial(run, stage, batch) for stage in stages}
    return work


@torch.inference_mode()
def _forward(network: nn.Module, batch: Batch) -> Iterator[None]:
    """Run forward as passes for features and statistics do."""
    network.eval()
    precision = auto_precision(batch.images.device)
    while True:
        run_network(network, batch.images, precision)
        yield


def _classifier_steps(width: int, num_classes: int, batch: Batch) -> Iterator[None]:
    """Train a layer of the classifier's size on random features."""
    device = batch.labels.device
    features = torch.randn(len(batch.labels), width, device=device)
    layer = nn.Linear(width, num_classes, device=device)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-6, momentum=0.9, nesterov=True)
    while True:
        loss = nn.functional.cross_entropy(layer(features), batch.labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield


def tables(content: Content) -> list[Table]:
    """Return the costs of each method, and the speeds that they are put together from."""
    results, costs = content["results"], content["costs"]
    sides = sorted({row["res"] for row in results})
    speeds = {(row["stage"], row["res"]): f"{row['images_per_s']:.0f}" for row in results}
    stages = dict.fromkeys(row["stage"] for row in results)
    fixed = list(dict.fromkeys(row["res"] for row in costs))
    found = {(row["method"], row["epochs"], row["res"]): f"{row['low_epochs']:.3g}" for row in costs}
    ways = sorted({(method, epochs) for method, epochs, _ in found})
    return [
        Table(
            f"Cost in training epochs at {sides[0]} px, {content['num_images']:,} images",
            ("", "epochs", *(f"fixed for {side} px" for side in fixed)),
            [[name, str(epochs), *(found.get((name, epochs, side), "") for side in fixed)] for name, epochs in ways],
        ),
        Table(
            f"Images/s of the loader, and of {content['model']} on batches in memory",
            ("", *(f"{side} px" for side in sides)),
            [[stage, *(speeds.get((stage, side), "") for side in sides)] for stage in stages],
        ),
    ]


BENCH = Bench("finetune_cost", __doc__, CostFlags, measure, tables)

if __name__ == "__main__":
    BENCH.main()
