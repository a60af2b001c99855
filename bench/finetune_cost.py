"""What the FixRes stage costs, by method and epochs, against a full training epoch at low and at high resolution.

    uv run python bench/finetune_cost.py
    uv run python bench/finetune_cost.py --model resnet50 --res 128,224,320 --epochs 1,8,30 --json out.json

The first of --res is the low resolution. Timed in turn are the loader alone, and a few steps of each of the package's
own loops on batches that it has made before; features are random numbers of the network's width. The cost of an epoch
is put together from these for the same number of images:

* a training epoch: each image loaded, and a train step for it;
* sgd: in each epoch each image loaded, and a step for it with the policy classifier+norm;
* one-pass: some images loaded for the last norm's statistics, each image loaded once for its features, and in each
  epoch a step of the classifier on them, which loads nothing;
* frechet: some images loaded and run through the network as in training, low, and as in testing; the fit itself is
  not counted.

On a CPU the loader and the network share the cores, so what they take adds up; on a GPU a pass takes as long as the
slower of both.
"""

import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any

from dali_fixres.runtime.system import prepare_host

prepare_host()  # as the command line does, before torch is loaded

import numpy as np
import torch
from cyclopts import App, Parameter
from harness import Flags, Key, Measure, in_turns, open_bench_data, report, row_of, start
from learners import Tuning, build_tuning
from loaders import WARM_UP, training_plan
from matplotlib.figure import Figure
from rich.table import Table
from stages import OURS, Stopwatch, epochs_of, worked_off
from torch.nn.modules.batchnorm import _BatchNorm

from dali_fixres.config import Device, FinetuneConfig, Policy
from dali_fixres.errors import UserError
from dali_fixres.training.statistics import EpochStatistics
from dali_fixres.finetuning.features import (
    FeatureBank,
    FeatureEpoch,
    Rounds,
    collect_features,
    learn_from_features,
    measure_statistics,
)
from dali_fixres.models import ModelSpec
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.decoding import decoding_for
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.signals import StopSignals
from dali_fixres.training.loop import EpochMeter, Learner, train
from pipelines import Loader
from pipelines.batch import Batch
from pipelines.dataset import Dataset
from pipelines.plan import TrainPlan
from pipelines.processes import loader_threads

LOADER = "loader"
TRAIN, SGD, STATISTICS, FEATURES, CLASSIFIER = "train step", "sgd step", "statistics", "features", "classifier step"

POLICIES: tuple[Policy, ...] = ("all", "classifier+norm", "classifier")
"""Of training, of sgd, and of the classifier that learns from features."""

QUIET = Reporter(quiet=True)

MADE_BEFORE = 2
"""Batches per resolution that are kept in memory and gone over again and again."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Flags):
    """Flags."""

    res: str = "128,160,224"
    """Pixels: the low resolution, and those to fix for, with commas between."""

    batch_size: int = 32
    """Images per batch."""

    model: str = "timm/mobilenetv2_100"
    """The network, with random weights."""

    num_classes: int = 1000
    """Outputs of its classifier."""

    epochs: str = "1,2,4,8"
    """Of fine-tuning, with commas between."""

    num_images: int = 1_281_167
    """Images of an epoch; ImageNet's if left out."""

    device: Device = "auto"
    """Where to compute."""

    def __post_init__(self) -> None:
        Flags.__post_init__(self)
        if len(self.resolutions) < 2:
            raise UserError(f"--res must name a low resolution and at least one to fix for; found {self.res}")
        if not all(word.isdecimal() and int(word) >= 1 for word in self.epochs.split(",")):
            raise UserError(f"--epochs must be whole numbers from 1 on with commas between; found {self.epochs}")

    @property
    def epoch_numbers(self) -> list[int]:
        """Numbers of epochs whose costs are put together."""
        return [int(word) for word in self.epochs.split(",")]


def main(bench: Bench) -> None:
    """Measure, put the costs together, print the tables, write JSON and the plot of cost against epochs."""
    reporter = Reporter()
    opened = open_bench_data(bench)
    device = choose_device(bench.device)
    if len(opened.dataset.classes) > bench.num_classes:
        raise UserError(f"{opened.dataset.root} has {len(opened.dataset.classes)} classes; raise --num-classes")
    found = _measured(bench, opened.dataset, device, reporter)
    speeds = {(key.stage, key.res): statistics.median(values) for key, values in found.items()}
    statistics_images = FinetuneConfig(test_res=bench.resolutions[-1].crop_px).statistics_images
    costs = put_together(
        speeds,
        bench.epoch_numbers,
        statistics_share=min(1.0, statistics_images / bench.num_images),
        shares_cores=device.type == "cpu",
    )
    content = {
        "device": device.type,
        "model": bench.model,
        "num_classes": bench.num_classes,
        "num_images": bench.num_images,
        "results": [row_of(key, values) for key, values in found.items()],
        "costs": costs,
    }
    for title, table in tables(content).items():
        print_table(title, table)
    reporter.line(f"figures in {report('finetune_cost', bench, opened, content, _figure(costs))}")


def put_together(
    speeds: Mapping[tuple[str, int], float], epochs: Collection[int], *, statistics_share: float, shares_cores: bool
) -> list[dict[str, Any]]:
    """Return what each way costs, in training epochs at the low and at its own resolution.

    Args:
        speeds: Images/s by stage and resolution, not rounded.
        epochs: Numbers of epochs.
        statistics_share: Images that statistics are measured over, of those of an epoch (0-1).
        shares_cores: Whether the network runs on the cores that the loader runs on.
    """

    def a_pass(stage: str, res: int) -> float:
        """Return the seconds that an image takes in a pass of a stage over images, loading included."""
        both = 1 / speeds[LOADER, res], 1 / speeds[stage, res]
        return sum(both) if shares_cores else max(both)

    low = min(res for _, res in speeds)
    rows = []
    for res in sorted(res for stage, res in speeds if stage == SGD):
        train, sgd, features = (a_pass(stage, res) for stage in (TRAIN, SGD, FEATURES))
        once = features + (statistics_share * a_pass(STATISTICS, res) if (STATISTICS, res) in speeds else 0.0)
        ways = {("frechet", 0): statistics_share * (a_pass(FEATURES, low) + features)}
        for number in epochs:
            ways["train", number] = number * train
            ways["sgd", number] = number * sgd
            ways["one-pass", number] = once + number / speeds[CLASSIFIER, res]
        rows += [
            {
                "method": method,
                "res": res,
                "epochs": number,
                "low_epochs": round(cost / a_pass(TRAIN, low), 5),
                "high_epochs": round(cost / train, 5),
            }
            for (method, number), cost in ways.items()
        ]
    return rows


def _measured(bench: Bench, dataset: Dataset, device: torch.device, reporter: Reporter) -> dict[Key, list[float]]:
    """Return images/s of the loader and of each kind of step at each resolution, all repeats."""
    with Loader(
        dataset,
        max_batch_size=bench.batch_size,
        device=device,
        num_threads=loader_threads(),
        decoding=decoding_for(device, World(), reporter),
    ) as loader:
        measures = _measures(bench, loader, dataset, device)
        return in_turns(measures, bench.effort.repeats, reporter, _told)


def _told(key: Key, speed: float) -> str:
    return f"{key.stage} at {key.res} px: {speed:.0f} img/s"


def _measures(bench: Bench, loader: Loader, dataset: Dataset, device: torch.device) -> dict[Key, Measure]:
    number, size = bench.effort.num_batches, bench.batch_size
    spec, highest = ModelSpec(bench.model, bench.num_classes), bench.resolutions[-1]
    whole, tuned, frozen = (build_tuning(spec, policy, highest, device) for policy in POLICIES)
    measures: dict[Key, Measure] = {}
    for resolution in bench.resolutions:
        plan, res = training_plan(dataset, resolution, size), resolution.crop_px
        batches = list(loader.run(islice(epochs_of(plan), MADE_BEFORE)))
        of_stage: dict[str, Callable[[], object]] = {TRAIN: partial(_steps, whole.learner, batches, number)}
        of_stage[FEATURES] = partial(_features, frozen, batches, number, dataset.num_train)
        if resolution != bench.resolutions[0]:
            of_stage[SGD] = partial(_steps, tuned.learner, batches, number)
            if isinstance(frozen.head.norm, _BatchNorm):
                of_stage[STATISTICS] = partial(_statistics, frozen, frozen.head.norm, batches, number)
            of_stage[CLASSIFIER] = partial(_classifier_steps, frozen, _random_bank(frozen, number * size), number)
        measures[Key(LOADER, OURS, res)] = partial(_loader_speed, loader, plan, number, device)
        measures |= {
            Key(stage, "batches in memory", res): partial(_speed, work, number * size, device)
            for stage, work in of_stage.items()
        }
    return measures


def _loader_speed(loader: Loader, plan: TrainPlan, number: int, device: torch.device) -> float:
    """Return images/s of the loader alone, over the data again where it has fewer batches."""
    with worked_off(loader.run, epochs_of(plan)) as batches:
        for _ in islice(batches, WARM_UP):
            pass
        watch = Stopwatch(device)
        for _ in islice(batches, number):
            pass
        return watch.read(number * plan.batch_size).images_per_s


def _speed(work: Callable[[], object], num_images: int, device: torch.device) -> float:
    """Return images/s of a piece of work, done when the device is."""
    watch = Stopwatch(device)
    work()
    return watch.read(num_images).images_per_s


def _random_bank(tuning: Tuning, num_images: int) -> FeatureBank:
    """Return random features of the width that the classifier takes."""
    weight = next(tuning.head.classifier.parameters())
    features = torch.randn(1, num_images, weight.shape[1], device=weight.device).half()
    labels = torch.randint(weight.shape[0], (num_images,), device=weight.device)
    return FeatureBank(features, labels, torch.arange(num_images)[None])


def _steps(learner: Learner, batches: list[Batch], number: int) -> None:
    with QUIET.bar("", number) as bar:
        for _ in train(learner, islice(cycle(batches), number), 0, EpochMeter(bar, EpochStatistics())):
            pass


def _statistics(tuning: Tuning, norm: _BatchNorm, batches: list[Batch], number: int) -> None:
    with QUIET.bar("", number) as bar:
        rounds = Rounds(number, bar, StopSignals(World()))
        measure_statistics(tuning.network, norm, islice(cycle(batches), number), rounds, World())


def _features(tuning: Tuning, batches: list[Batch], number: int, num_rows: int) -> None:
    num_images = sum(map(len, batches))
    with QUIET.bar("", number) as bar:
        rounds = Rounds(number, bar, StopSignals(World()))
        views: list[Iterator[Batch]] = [islice(cycle(batches), number)]
        size = (num_images, num_rows)
        collect_features(tuning.network, tuning.head.classifier, views, size, rounds, limit_gib=8)


def _classifier_steps(tuning: Tuning, bank: FeatureBank, number: int) -> None:
    rows = np.random.default_rng(0).permutation(len(bank.labels))
    with QUIET.bar("", number) as bar:
        epoch = FeatureEpoch(
            0, 0, iter(np.split(rows, number)), FinetuneConfig(test_res=32).feature_dropout, seed_of=int
        )
        meter = EpochMeter(bar, EpochStatistics())
        for _ in learn_from_features(tuning.learner, tuning.head.classifier, bank, epoch, meter, World()):
            pass


def tables(content: Mapping[str, Any]) -> dict[str, Table]:
    """Return the tables of a results file by their titles."""
    return {
        f"images/s of the loader, and of {content['model']} on batches in memory": _speed_table(content["results"]),
        f"cost in training epochs of {content['num_images']:,} images": _cost_table(content["costs"]),
    }


def _speed_table(results: list[dict[str, Any]]) -> Table:
    sides = sorted({row["res"] for row in results})
    speeds = {(row["stage"], row["res"]): f"{row['images_per_s']:.0f}" for row in results}
    table = Table()
    for heading in ("", *(f"{side} px" for side in sides)):
        table.add_column(heading, justify="right")
    for stage in dict.fromkeys(row["stage"] for row in results):
        table.add_row(stage, *(speeds.get((stage, side), "") for side in sides))
    return table


def _cost_table(costs: list[dict[str, Any]]) -> Table:
    table = Table()
    for heading in ("", "px", "epochs", "in epochs at the low resolution", "in epochs at its own"):
        table.add_column(heading, justify="right")
    for row in costs:
        figures = (f"{row[name]:.3g}" for name in ("low_epochs", "high_epochs"))
        table.add_row(row["method"], str(row["res"]), str(row["epochs"]), *figures)
    return table


def _figure(costs: list[dict[str, Any]]) -> Figure:
    """Draw cost against epochs, a line for each way and resolution."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    styles = {"train": ":", "sgd": "-", "one-pass": "--", "frechet": ""}
    for method, res in dict.fromkeys((row["method"], row["res"]) for row in costs):
        same = [row for row in costs if (row["method"], row["res"]) == (method, res)]
        points = [row["epochs"] for row in same], [row["low_epochs"] for row in same]
        axes.plot(*points, styles[method], marker=".", label=f"{method} at {res} px")
    axes.set(xlabel="epochs", ylabel="cost, training epochs at the low resolution", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


app = App(name="finetune_cost.py", help=__doc__, help_format="plaintext")


@app.default
def _run(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
