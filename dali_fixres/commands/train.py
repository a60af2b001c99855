"""`dali-fixres train`: train at a low resolution."""

import time
from dataclasses import replace
from typing import Any

import torch

from dali_fixres.checkpoint import Checkpoint
from dali_fixres.commands.dataset import Dataset, open_dataset
from dali_fixres.commands.network import build_named
from dali_fixres.commands.stage import Stage, build_learner, measure, resume, run_stage
from dali_fixres.config import TrainConfig
from dali_fixres.devices import choose_device, usable_cores
from dali_fixres.metrics import Accuracy
from dali_fixres.models import BuiltModel
from dali_fixres.models.anatomy import run_once
from dali_fixres.plan import AUGMENTATIONS, EvaluationPlan, TrainPlan
from dali_fixres.report.environment import environment
from dali_fixres.report.plots import plot_curves
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import accuracy_table, print_table
from dali_fixres.resolution import Resolution
from dali_fixres.runs import RunFolder, create_run, newest_run, open_run, write_json
from pipelines import Loader

__all__ = ["train"]

DEFAULT_MODEL = "resnet50"


def train(config: TrainConfig) -> None:
    """Train a network, test it after every epoch, and leave a run folder.

    Raises:
        UserError: If something the user gave cannot be used.
        TrainingDivergedError: If the loss is no finite number.
    """
    started = time.perf_counter()
    reporter = Reporter()
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    resumed = (open_run(config.out) if config.out else newest_run("train")) if config.resume else None
    dataset = open_dataset(config.data, config.val_fraction, reporter)
    plan = _plan(config, dataset)
    evaluation = EvaluationPlan(dataset.index, config.batch_size)
    built, start = resume(resumed, dataset, reporter) if resumed else _begin(config, dataset, reporter)
    for epoch in range(config.epochs):
        run_once(built.network, plan.schedule.at(epoch))
    network = built.network.to(device).to(memory_format=torch.channels_last)
    run = resumed or create_run(config.out, "train", config.stored())
    run.list_left_out(dataset.left_out)
    reporter.line(f"run: {run.path} on {device}")
    with Loader(
        dataset.index,
        max_batch_size=config.batch_size,
        device=device,
        num_threads=config.workers or usable_cores(),
        normalisation=built.normalisation,
    ) as loader:
        learner = build_learner(config, network, plan, start, network.train)
        stage = Stage(
            learner, loader, plan, evaluation, config.test_resolution, config.epochs,
            evaluates=True, run=run, reporter=reporter,
        )  # fmt: skip
        state = run_stage(stage, start)
        tested = sorted({Resolution(plan.schedule.last.crop_px, config.crop_ratio), config.test_resolution})
        results = [measure(stage, resolution, state.epoch) for resolution in tested]
    _report(config, run, dataset, state, results, time.perf_counter() - started)


def _plan(config: TrainConfig, dataset: Dataset) -> TrainPlan:
    augmentation = AUGMENTATIONS["train"]
    if config.jitter is not None:
        augmentation = replace(augmentation, jitter=config.jitter)
    return TrainPlan(dataset.index, augmentation, config.schedule, config.batch_size, config.seed)


def _begin(config: TrainConfig, dataset: Dataset, reporter: Reporter) -> tuple[BuiltModel, Checkpoint]:
    """Build the network of a new run, and the state before its first epoch."""
    spec, built = build_named(config, config.model or DEFAULT_MODEL, dataset.index, reporter)
    state = Checkpoint(
        command="train",
        model=spec,
        state_dict=built.network.state_dict(),
        normalisation=built.normalisation,
        classes=dataset.index.classes,
        fingerprint=dataset.index.fingerprint,
        train_res=config.schedule.last.crop_px,
        test_res=config.test_resolution.crop_px,
        crop_ratio=config.crop_ratio,
        config=config.stored(),
        epoch=0,
        step=0,
        optimizer={},
        rng=torch.get_rng_state(),
        top1=None,
        best_top1=None,
    )
    return built, state


def _report(
    config: TrainConfig,
    run: RunFolder,
    dataset: Dataset,
    state: Checkpoint,
    results: list[Accuracy],
    seconds: float,
) -> None:
    """Print the table, write results.json and the plot, and say what comes next."""
    content: dict[str, Any] = {
        "results": [accuracy.as_json() for accuracy in results],
        "best_top1": state.best_top1,
        "seconds": round(seconds, 1),
        "synthetic": dataset.synthetic,
        "fingerprint": dataset.index.fingerprint,
        "environment": environment(),
    }
    write_json(run.results, content)
    if config.json is not None:
        write_json(config.json, content)
    title = f"{state.model.name} trained at {config.train_res} px on {dataset.title}"
    plot_curves(run.curves, run.records(), title)
    print_table(accuracy_table(title, results))
    reporter = Reporter()
    reporter.line(f"{seconds / 60:.1f} minutes; checkpoints, records and plot in {run.path}")
    reporter.line("next: dali-fixres finetune --test-res PIXELS, higher than the training resolution")
