"""`dali-fixres train`: train at a low resolution."""

import time
from dataclasses import replace
from typing import Any

import torch

from dali_fixres.checkpoint import Checkpoint
from dali_fixres.commands.dataset import Dataset, open_dataset, open_loader
from dali_fixres.commands.network import build_named
from dali_fixres.commands.stage import Stage, build_learner, measure, resume, run_stage, training_plan, untrained
from dali_fixres.config import TrainConfig
from dali_fixres.devices import choose_device
from dali_fixres.metrics import Accuracy
from dali_fixres.models import BuiltModel
from dali_fixres.models.anatomy import run_once
from dali_fixres.plan import EvaluationPlan
from dali_fixres.report.environment import environment
from dali_fixres.report.plots import plot_curves
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import accuracy_table, print_table
from dali_fixres.runs import RunFolder, create_run, newest_run, open_run, write_json

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
    # From here on nothing is left to a default: the run folder says all.
    config = replace(
        config,
        model=config.model or DEFAULT_MODEL,
        test_res=config.test_resolution.crop_px,
        crop_ratio=config.ratio,
    )
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    resumed = (open_run(config.out) if config.out else newest_run("train")) if config.resume else None
    dataset = open_dataset(config.data, config.val_fraction, reporter)
    plan = training_plan(config, dataset, "train", config.schedule)
    evaluation = EvaluationPlan(dataset.index, config.batch_size)
    built, start = resume(resumed, config, dataset, reporter) if resumed else _begin(config, dataset, reporter)
    for resolution in {config.test_resolution, *(config.schedule.at(epoch) for epoch in range(config.epochs))}:
        run_once(built.network, resolution)
    network = built.network.to(device).to(memory_format=torch.channels_last)
    run = resumed or create_run(config.out, "train", config.stored())
    run.list_left_out(dataset.left_out)
    reporter.line(f"run: {run.path} on {device}")
    with open_loader(config, dataset, built.normalisation, device) as loader:
        learner = build_learner(config, network, plan, start, network.train)
        stage = Stage(
            learner, loader, plan, evaluation, config.test_resolution, config.epochs,
            evaluates=True, run=run, reporter=reporter,
        )  # fmt: skip
        state, last = run_stage(stage, start)
        tested = sorted({config.schedule.last, config.test_resolution})
        known = {last.resolution: last} if last else {}
        results = [known.get(resolution) or measure(stage, resolution, state.epoch) for resolution in tested]
    _report(config, run, dataset, state, results, time.perf_counter() - started)


def _begin(config: TrainConfig, dataset: Dataset, reporter: Reporter) -> tuple[BuiltModel, Checkpoint]:
    """Build the network of a new run, and the state before its first epoch."""
    assert config.model is not None, "train fills it in"
    spec, built = build_named(config, config.model, dataset.index, reporter)
    state = untrained("train", config, config.schedule.last.crop_px, spec, built, dataset.index)
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
    title = f"{state.model.name} trained at {config.train_res} px on {dataset.title}"
    print_table(title, accuracy_table(results))
    write_json(run.results, content)
    if config.json is not None:
        write_json(config.json, content)
    plot_curves(run.curves, run.records(), title)
    reporter = Reporter()
    reporter.line(f"{seconds / 60:.1f} minutes; checkpoints, records and plot in {run.path}")
    reporter.line("next: dali-fixres evaluate --test-res 128,160,… to find the best test resolution as it is")
    reporter.line("      dali-fixres finetune --test-res PIXELS to fix the network for a higher one")
