"""What `train` and `finetune` put together before the loop runs: plan, network, optimiser, first state."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from dali_fixres.checkpoints import Checkpoint, EpochStatistics
from dali_fixres.config import FinetuneConfig, NetworkConfig, OptimizerSettings, Precision, TrainConfig
from dali_fixres.errors import CheckpointError, ConfigError
from dali_fixres.models import DataConfig, Model, ModelSpec
from dali_fixres.runtime.data import Data
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import LAST
from dali_fixres.training.compile import compiled
from dali_fixres.training.optimizer import LearningRate, build_optimizer, build_scaler, load_optimizer, scaled_lr
from dali_fixres.training.run_log import RunLog
from dali_fixres.training.step import TrainingSetup
from pipelines.dataset import Dataset
from pipelines.plan import AUGMENTATIONS, Augmentation, EvalPlan, TrainPlan, step_seed
from pipelines.plan.interpolation import TrainInterpolation
from pipelines.resolution import Schedule

__all__ = [
    "announce",
    "announce_drawn_filter",
    "augmentation",
    "build_setup",
    "compile_setup",
    "evaluation_plan",
    "initial_state",
    "learning_rate",
    "move_network",
    "training_plan",
]


def augmentation(config: TrainConfig | FinetuneConfig, data_config: DataConfig, name: str) -> Augmentation:
    """Return a named augmentation for a network, with the settings' colour jitter, if any, and interpolation."""
    drawn: TrainInterpolation | None = "random" if config.interpolation == "random" else None
    planned = data_config.planned(AUGMENTATIONS[name], drawn)
    return planned if config.color_jitter is None else replace(planned, jitter=config.color_jitter)


def training_plan(
    config: TrainConfig | FinetuneConfig,
    data_config: DataConfig,
    data: Data,
    name: str,
    schedule: Schedule,
    world: World,
    repeats: int = 1,
) -> TrainPlan:
    """Plan the batches of a run, with the augmentation of that name."""
    return TrainPlan(
        data.dataset,
        augmentation(config, data_config, name),
        schedule,
        config.batch_size,
        config.seed,
        world.rank,
        world.size,
        repeats=repeats,
        copies=config.copies,
    )


def evaluation_plan(config: NetworkConfig, data_config: DataConfig, data: Data, world: World) -> EvalPlan:
    """Plan a network's tests."""
    tested = data_config.planned(AUGMENTATIONS["v1"])
    return EvalPlan(data.dataset, config.batch_size, world.rank, world.size, copies=config.copies, augmentation=tested)


def initial_state(
    command: str,
    config: TrainConfig | FinetuneConfig,
    spec: ModelSpec,
    model: Model,
    dataset: Dataset,
    before: DataConfig | None = None,
) -> Checkpoint:
    """Return the state of a run before its first epoch; `before` are the images of a network that is to be fixed."""
    return Checkpoint(
        command=command,
        model=spec,
        state_dict=model.network.state_dict(),
        data_config=model.data_config,
        before=before,
        classes=dataset.classes,
        fingerprint=dataset.fingerprint,
        config=config.stored(),
        epoch=0,
        global_batch=0,
        num_done=0,
        statistics=EpochStatistics(),
        step=0,
        optimizer={},
        scaler={},
        unreadable={},
        top1=None,
        best_top1=None,
    )


def move_network(network: nn.Module, device: torch.device, *, sync_bn: bool) -> nn.Module:
    """Move a network to its device, in the memory format of its images.

    Raises:
        ConfigError: If batch norm is to be synchronised on a CPU, which torch cannot.
    """
    if sync_bn:
        if device.type != "cuda":
            raise ConfigError("--sync-bn needs GPUs; leave it out with --device cpu")
        from timm.layers.norm_act import convert_sync_batchnorm  # noqa: PLC0415 - slow to import

        convert: Callable[[nn.Module], nn.Module] = convert_sync_batchnorm  # knows timm's own norms too
        network = convert(network)
    return network.to(device).to(memory_format=torch.channels_last)


def build_setup(
    settings: OptimizerSettings,
    network: nn.Module,
    plan: TrainPlan,
    start: Checkpoint,
    set_mode: Callable[[], object],
    world: World,
    device: torch.device,
    precision: Precision,
) -> TrainingSetup:
    """Put the optimiser, its state so far, the learning rate of every step and the number format to a network."""
    optimizer = build_optimizer(
        network, momentum=settings.momentum, weight_decay=settings.weight_decay, precision=precision
    )
    scaler = build_scaler(precision, device)
    if start.optimizer:
        try:
            load_optimizer(optimizer, start.optimizer)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"the optimiser's state in {LAST} does not fit the network: {error}") from error
    if start.scaler:
        try:
            scaler.load_state_dict(start.scaler)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the gradient scaler's state in {LAST} cannot be used: {error}") from error
    return TrainingSetup(
        network,
        world.wrap(network, device),
        optimizer,
        learning_rate(settings, plan),
        partial(step_seed, plan.seed, world.rank),
        set_mode,
        settings.label_smoothing,
        settings.clip_grad,
        precision,
        scaler,
    )


def compile_setup(setup: TrainingSetup, plan: TrainPlan, device: torch.device, reporter: Reporter) -> TrainingSetup:
    """Return a setup whose network is compiled for every planned shape now, before a clock starts."""
    shapes = ", ".join(f"{number} x {side} px" for number, side in plan.shapes)
    with reporter.bar(f"compiling for batches of {shapes}", total=1) as bar:
        called = compiled(setup.network, setup.forward, plan.shapes, device, setup.precision)
        bar.update(1)
    return replace(setup, forward=called)


def learning_rate(settings: OptimizerSettings, plan: TrainPlan) -> LearningRate:
    """Return the learning rate of every step of a run."""
    num_steps, every = plan.steps_before(settings.epochs), settings.decay_epochs
    return LearningRate(
        peaks=_peaks(settings, plan),
        num_steps=num_steps,
        warmup_steps=round(settings.warmup_ratio * num_steps),
        decay=settings.lr_decay,
        drops=None if every is None else tuple(map(plan.steps_before, range(every, settings.epochs, every))),
    )


def _peaks(settings: OptimizerSettings, plan: TrainPlan) -> tuple[tuple[int, float], ...]:
    """Return the peak learning rate from the first step of each phase on."""
    return tuple(
        (
            plan.steps_before(phase.first_epoch),
            phase.lr or settings.lr or scaled_lr(settings.rate, plan.global_batch(phase.first_epoch)),
        )
        for phase in plan.schedule.phases
    )


def announce(
    log: RunLog,
    setup: TrainingSetup,
    plan: TrainPlan,
    num_epochs: int,
    device: torch.device,
    eval_precision: Precision,
    state: Checkpoint,
) -> None:
    """Say where the run is, on what device, in which number formats, with which filter and learning rates."""
    size, reporter = log.world.size, log.reporter
    if log.folder is not None:
        processes = f", {size} processes" if size > 1 else ""
        reporter.line(
            f"run: {log.folder.path} on {device}{processes}; network in {setup.precision}, tests in {eval_precision}"
        )
    announce_drawn_filter(plan, reporter)
    if num_epochs == 0:
        return
    phases = plan.schedule.phases
    for phase, (_, peak) in zip(phases, setup.learning_rate.peaks, strict=True):
        batch = plan.global_batch(phase.first_epoch)
        share = f" ({size} x {batch // size})" if size > 1 else ""
        of_phase = f" from epoch {phase.first_epoch + 1} on" if len(phases) > 1 else ""
        reporter.line(f"learning rate{of_phase}: {peak:.4g} at its peak, for a global batch of {batch}{share}")
    batch = plan.global_batch(state.epoch)
    if state.num_done and state.global_batch != batch:
        reporter.warn(
            f"the global batch was {state.global_batch} before and is {batch} now; without --lr the learning rate "
            "changes with it"
        )


def announce_drawn_filter(plan: TrainPlan, reporter: Reporter) -> None:
    """Say that the filter of training images is drawn, which a network's own images do not say."""
    if plan.augmentation.interpolation == "random":
        reporter.line("images in training: random of bilinear and bicubic")
