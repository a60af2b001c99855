"""A training run: from settings to a finished run folder."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from dali_fixres.checkpoints import Checkpoint, CheckpointClock
from dali_fixres.checkpoints.model_source import build_source, find_source
from dali_fixres.config import TrainConfig
from dali_fixres.errors import Interrupted
from dali_fixres.evaluation.evaluate import Evaluator
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.models import Model
from dali_fixres.models.head import run_once
from dali_fixres.runtime.data import Data, open_data
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.precision import choose_precisions
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import RunFolder
from dali_fixres.runtime.signals import StopSignals, obeying_signals
from dali_fixres.runtime.skipped import open_batches, share_skipped
from dali_fixres.training.loop import train
from dali_fixres.training.resume import resume, resumed_run, run_folder
from dali_fixres.training.run_log import RunLog
from dali_fixres.training.setup import (
    announce,
    build_setup,
    compile_setup,
    evaluation_plan,
    initial_state,
    move_network,
    training_plan,
)
from pipelines import Resolution

__all__ = ["DEFAULT_MODEL", "TrainingResult", "resolve_defaults", "run_training"]

DEFAULT_MODEL = "resnet50"


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """Result of a training run.

    Attributes:
        config: Its settings, with nothing left to a default.
        folder: The run folder; None in all processes but the first.
        data: What it was trained on.
        state: After the last epoch.
        accuracies: At the last training resolution and at the test resolution.
        seconds: Wall time of the call.
    """

    config: TrainConfig
    folder: RunFolder | None
    data: Data
    state: Checkpoint
    accuracies: list[Accuracy]
    seconds: float


def resolve_defaults(config: TrainConfig) -> TrainConfig:
    """Return settings in which nothing is left to a default but what is said about images: its source counts."""
    return replace(config, model=config.model or (None if config.weights else DEFAULT_MODEL), base_lr=config.rate)


def run_training(
    config: TrainConfig,
    device: torch.device,
    world: World,
    report: Callable[[TrainingResult], None],
    outer_signals: StopSignals | None = None,
) -> None:
    """Train a network as one of the processes of `world`, test it after every epoch, and leave a run folder.

    Args:
        config: Its settings.
        device: Of this process.
        world: All processes.
        report: Called at the end in all processes, while the run folder is held and signals are obeyed.
        outer_signals: Those of the run that this is a part of.

    Raises:
        UserError: If something the user gave cannot be used.
        RunError: If the run cannot continue.
        Interrupted: If a signal has stopped it; it can be resumed.
    """
    started = time.perf_counter()
    reporter = Reporter(quiet=not world.is_main)
    warns = reporter if outer_signals is None else None  # the run that this is a part of has warned
    precision, eval_precision = choose_precisions(config, device, warns)
    config = replace(resolve_defaults(config), precision=precision)
    torch.manual_seed(config.seed)
    with resumed_run(config, "train", world) as resumed:
        data = open_data(config.data, config.val_fraction, reporter, world)
        if resumed:
            config, data, model, start = resume(resumed, _with_test_res(config), data, reporter)
        else:
            config, model, start = _begin(config, data, reporter)
        plan = training_plan(config, model.data_config, data, "train", config.schedule, world, config.aug_repeats)
        eval_plan = evaluation_plan(config, model.data_config, data, world)
        for resolution in {config.test_resolution, *(config.schedule.at(epoch) for epoch in range(config.epochs))}:
            run_once(model.network, resolution)
        network = move_network(model.network, device, sync_bn=config.sync_bn)
        with (
            run_folder(config, "train", resumed, start, data, world) as folder,
            open_batches(
                config, data, model.normalisation, device, world, reporter,
                max_batch_size=max(plan.max_batch_size, config.batch_size), known=start.unreadable,
                listed_in=folder.unreadable if folder else None,
            ) as batches,
            obeying_signals(world, outer_signals) as signals,
        ):  # fmt: skip
            setup = build_setup(config, network, plan, start, network.train, world, device, precision)
            if config.compile:
                setup = compile_setup(setup, plan, device, reporter)
            log = RunLog("train", folder, world, reporter)
            evaluator = Evaluator(network, batches, eval_plan, world, reporter, signals, eval_precision)
            announce(log, setup, plan, config.epochs, device, eval_precision, start)
            state, last = train(
                setup, batches, plan, config.epochs, start, log, signals, CheckpointClock(*config.checkpoint_interval),
                evaluate=lambda label: evaluator.at(config.test_resolution, label),
            )  # fmt: skip
            known = {last.resolution: last} if last else {}
            accuracies = [
                known.get(resolution) or evaluate_after(log, evaluator, resolution, state)
                for resolution in sorted({config.schedule.last, config.test_resolution})
            ]
            report(TrainingResult(config, folder, data, state, accuracies, time.perf_counter() - started))


def evaluate_after(log: RunLog, evaluator: Evaluator, resolution: Resolution, state: Checkpoint) -> Accuracy:
    """Test the network of a state outside of the epochs, and record it.

    Raises:
        Interrupted: If a signal asks for it; `state` has been saved before.
    """
    try:
        accuracy = evaluator.at(resolution)
    except Interrupted as interruption:
        raise log.stopped(str(interruption), state.step) from None
    log.record_evaluation(state.epoch, accuracy)
    share_skipped(evaluator.batches.skipped, log.world)
    return accuracy


def _begin(config: TrainConfig, data: Data, reporter: Reporter) -> tuple[TrainConfig, Model, Checkpoint]:
    """Build the network of a new run, and the state before its first epoch."""
    source = find_source(config, reporter)
    config = replace(config, model=source.name, model_arg=source.model_arg)
    spec, model = build_source(config, source, data.dataset, reporter)
    config = _with_test_res(replace(config, crop_ratio=model.data_config.crop_ratio))
    state = initial_state("train", config, spec, model, data.dataset)
    return config, model, state


def _with_test_res(config: TrainConfig) -> TrainConfig:
    """Return the settings of a run folder, in which the test resolution is named."""
    return replace(config, test_res=config.test_resolution.crop_px)
