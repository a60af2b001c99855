"""`dali-fixres train`: train at a low resolution."""

import time
from dataclasses import replace
from typing import Any

import torch

from dali_fixres.config import TrainConfig
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.models import Model
from dali_fixres.models.head import run_once
from dali_fixres.report.dry_run import dry_run_of_train
from dali_fixres.report.plots import plot_curves
from dali_fixres.report.tables import accuracy_table, print_table
from dali_fixres.runtime.data import Data, open_data, open_loader
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import World, joined
from dali_fixres.runtime.environment import environment
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import RunFolder
from dali_fixres.runtime.signals import StopSignals, obeying_signals
from dali_fixres.training.checkpoint import Checkpoint, CheckpointClock, load_checkpoint
from dali_fixres.training.model_source import build_source, find_source
from dali_fixres.training.resume import resume, run_folder, run_to_go_on_with
from dali_fixres.training.setup import build_learner, compile_learner, initial_state, prepare, training_plan
from dali_fixres.training.stage import Stage, measure, run_stage
from dali_fixres.training.unreadable import Unreadable
from pipelines.plan import EvalPlan
from pipelines.storage.files import write_json

__all__ = ["DEFAULT_MODEL", "train", "train_among"]

DEFAULT_MODEL = "resnet50"


def train(config: TrainConfig) -> None:
    """Train a network, test it after every epoch, and leave a run folder.

    Raises:
        UserError: If something the user gave cannot be used.
        RunError: If the run cannot go on.
        Interrupted: If a signal has stopped it; it can be resumed.
    """
    if config.dry_run:
        dry_run_of_train(_without_defaults(config))
        return
    device = choose_device(config.device)
    with joined(device) as world:
        train_among(config, device, world)


def train_among(
    config: TrainConfig, device: torch.device, world: World, stop_signals: StopSignals | None = None
) -> None:
    """Train as one of the processes of `world`; `orders` are those of what this is a part of."""
    config = _without_defaults(config)
    with run_to_go_on_with(config, "train", world) as resumed:
        _train(config, resumed, device, world, stop_signals)


def _without_defaults(config: TrainConfig) -> TrainConfig:
    """Return settings in which nothing is left to a default: the run folder says all."""
    return replace(
        config,
        model=config.model or (None if config.weights else DEFAULT_MODEL),
        test_res=config.test_resolution.crop_px,
        crop_ratio=config.ratio,
        base_lr=config.rate,
    )


def _train(
    config: TrainConfig, resumed: RunFolder | None, device: torch.device, world: World, outer: StopSignals | None
) -> None:
    started = time.perf_counter()
    reporter = Reporter(quiet=not world.is_main)
    torch.manual_seed(config.seed)
    data = open_data(config.data, config.val_fraction, reporter, world)
    if resumed:
        data, built, start = resume(resumed, config, data, reporter)
    plan = training_plan(config, data, "train", config.schedule, world, config.repeats)
    evaluation = EvalPlan(data.dataset, config.batch_size, world.rank, world.size, copies=config.copies)
    if not resumed:
        config, built, start = _begin(config, data, reporter)
    for resolution in {config.test_resolution, *(config.schedule.at(epoch) for epoch in range(config.epochs))}:
        run_once(built.network, resolution)
    network = prepare(built.network, device, sync_bn=config.sync_bn)
    size = max(plan.max_batch_size, config.batch_size)
    with (
        run_folder(config, "train", resumed, start, data, world) as run,
        open_loader(config, data, built.normalisation, device, world, reporter, size) as loader,
        obeying_signals(world, outer) as stop_signals,
    ):
        listed_in = run.unreadable if run else None
        unreadable = Unreadable(data, start.unreadable, strict=config.strict, reporter=reporter, listed_in=listed_in)
        learner = build_learner(config, network, plan, start, network.train, world, device)
        if config.compile:
            learner = compile_learner(learner, plan, device, reporter)
        stage = Stage(
            "train", learner, loader, plan, evaluation, config.test_resolution, config.epochs,
            evaluates=True, unreadable=unreadable, clock=CheckpointClock(*config.checkpoint_interval), stop_signals=stop_signals,
            world=world, run=run, reporter=reporter,
        )  # fmt: skip
        stage.announce(device, start)
        state, last = run_stage(stage, start)
        tested = sorted({config.schedule.last, config.test_resolution})
        known = {last.resolution: last} if last else {}
        results = [known.get(resolution) or measure(stage, resolution, state) for resolution in tested]
        unreadable.summarise()
        if run is not None:
            _report(config, run, data, state, results, time.perf_counter() - started)


def _begin(config: TrainConfig, data: Data, reporter: Reporter) -> tuple[TrainConfig, Model, Checkpoint]:
    """Build the network of a new run, and the state before its first epoch."""
    named = find_source(config, reporter)
    config = replace(config, model=named.name)
    spec, built = build_source(config, named, data.dataset, reporter)
    state = initial_state("train", config, config.schedule.last.crop_px, spec, built, data.dataset)
    return config, built, state


def _report(
    config: TrainConfig,
    run: RunFolder,
    data: Data,
    state: Checkpoint,
    results: list[Accuracy],
    seconds: float,
) -> None:
    """Print the table, write results.json and the plot, and say what comes next."""
    content: dict[str, Any] = {
        "results": [accuracy.as_json() for accuracy in results],
        "best_top1": state.best_top1,
        "seconds": round(seconds, 1),
        "synthetic": data.synthetic,
        "fingerprint": data.dataset.fingerprint,
        "environment": environment(),
    }
    title = f"{state.model.name} trained at {config.train_res} px on {data.title}"
    print_table(title, accuracy_table(results))
    write_json(run.results, content)
    if config.json is not None:
        write_json(config.json, content)
    plot_curves(run.curves, run.records(), title)
    reporter = Reporter()
    reporter.line(f"{seconds / 60:.1f} minutes; checkpoints, records and plot in {run.path}")
    best = load_checkpoint(run.best)
    reporter.line(f"best was epoch {best.epoch} with {best.top1:.2f} %: {run.best}, which the next commands take")
    low = config.schedule.last.crop_px
    sides = ",".join(str(low + more) for more in (0, 32, 64, 96))
    reporter.line(f"next: dali-fixres evaluate --checkpoint {run.path} --test-res {sides} to find the best resolution")
    reporter.line(f"      dali-fixres finetune --checkpoint {run.path} --test-res PIXELS to fix it for a higher one")
