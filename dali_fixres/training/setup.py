"""What `train` and `finetune` put together before a stage runs: plan, network, optimiser, first state."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from dali_fixres.config import FinetuneConfig, TrainConfig
from dali_fixres.errors import CheckpointError, ConfigError
from dali_fixres.evaluation.metrics import EpochStatistics
from dali_fixres.finetuning.features import check_features
from dali_fixres.finetuning.trainable import Tuned, tune
from dali_fixres.models import Head, Model, ModelSpec, find_head
from dali_fixres.runtime.data import Data
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import LAST
from dali_fixres.training.checkpoint import Checkpoint
from dali_fixres.training.compile import compiled
from dali_fixres.training.loop import Learner
from dali_fixres.training.optimizer import LearningRate, build_optimizer, load_optimizer, scaled_lr
from pipelines.dataset import Dataset
from pipelines.plan import AUGMENTATIONS, Augmentation, TrainPlan, step_seed
from pipelines.resolution import Phase, Schedule

__all__ = [
    "augmentation",
    "build_learner",
    "compile_learner",
    "freeze_network",
    "initial_state",
    "learning_rate",
    "prepare",
    "training_plan",
    "tuning_plan",
]


def augmentation(config: TrainConfig | FinetuneConfig, name: str) -> Augmentation:
    """Return a named augmentation, with the jitter asked for instead of its own."""
    named = AUGMENTATIONS[name]
    return named if config.jitter is None else replace(named, jitter=config.jitter)


def training_plan(
    config: TrainConfig | FinetuneConfig,
    data: Data,
    view: str,
    schedule: Schedule,
    world: World,
    repeats: int = 1,
) -> TrainPlan:
    """Plan a stage's batches, with the augmentation of that name."""
    return TrainPlan(
        data.dataset,
        augmentation(config, view),
        schedule,
        config.batch_size,
        config.seed,
        world.rank,
        world.size,
        repeats=repeats,
        copies=config.copies,
    )


def tuning_plan(config: FinetuneConfig, data: Data, world: World) -> TrainPlan:
    """Plan the batches of a fine-tuning, all at the test resolution."""
    schedule = Schedule((Phase(0, config.test_res),), config.ratio)
    return training_plan(config, data, config.augmentation, schedule, world)


def initial_state(
    command: str,
    config: TrainConfig | FinetuneConfig,
    trained_at: int,
    spec: ModelSpec,
    built: Model,
    dataset: Dataset,
) -> Checkpoint:
    """Return the state of a stage before its first epoch, of a network trained at `trained_at` pixels."""
    return Checkpoint(
        command=command,
        model=spec,
        state_dict=built.network.state_dict(),
        normalisation=built.normalisation,
        classes=dataset.classes,
        fingerprint=dataset.fingerprint,
        train_res=trained_at,
        test_res=config.test_resolution.crop_px,
        crop_ratio=config.ratio,
        config=config.stored(),
        epoch=0,
        global_batch=0,
        num_done=0,
        statistics=EpochStatistics(),
        step=0,
        optimizer={},
        unreadable={},
        top1=None,
        best_top1=None,
    )


def prepare(network: nn.Module, device: torch.device, *, sync_bn: bool) -> nn.Module:
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


def freeze_network(config: FinetuneConfig, network: nn.Module) -> tuple[Head, Tuned, str]:
    """Freeze all of a network but what is to be tuned; return its parts, what learns, and what that is in words.

    Raises:
        ModelError: If it cannot take images of the test resolution, or not be tuned so.
    """
    if config.chosen in {"one-pass", "frechet"}:
        check_features(network, find_head(network, config.test_resolution).classifier, config.test_resolution)
    head, tuned, what_learns = tune(network, config.test_resolution, config.tuned, config.blocks)
    if config.chosen == "frechet":
        what_learns = f"mapping what reaches {head.classifier_name}; nothing learns"
    return head, tuned, what_learns


def build_learner(
    config: TrainConfig | FinetuneConfig,
    network: nn.Module,
    plan: TrainPlan,
    start: Checkpoint,
    set_mode: Callable[[], object],
    world: World,
    device: torch.device,
) -> Learner:
    """Put the optimiser, its state so far and the learning rate of every step to a network."""
    optimizer = build_optimizer(network, momentum=config.momentum, weight_decay=config.weight_decay)
    if start.optimizer:
        try:
            load_optimizer(optimizer, start.optimizer)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"the optimiser's state in {LAST} does not fit the network: {error}") from error
    return Learner(
        network,
        world.wrap(network, device),
        optimizer,
        learning_rate(config, plan),
        partial(step_seed, config.seed, world.rank),
        set_mode,
        config.label_smoothing,
        config.clip_grad,
    )


def compile_learner(learner: Learner, plan: TrainPlan, device: torch.device, reporter: Reporter) -> Learner:
    """Let the network learn as torch.compile makes it; all the code is made now, before a clock starts."""
    shapes = ", ".join(f"{number} x {side} px" for number, side in plan.shapes)
    with reporter.bar(f"compiling for batches of {shapes}", total=1) as bar:
        called = compiled(learner.network, learner.forward, plan.shapes, device)
        bar.update(1)
    return replace(learner, forward=called)


def learning_rate(config: TrainConfig | FinetuneConfig, plan: TrainPlan) -> LearningRate:
    """Return the learning rate of every step of a stage."""
    num_steps, every = plan.steps_before(config.epochs), config.decay_epochs
    return LearningRate(
        peaks=_peaks(config, plan),
        num_steps=num_steps,
        warmup_steps=round(config.warmup_ratio * num_steps),
        decay=config.lr_decay,
        drops=None if every is None else tuple(map(plan.steps_before, range(every, config.epochs, every))),
    )


def _peaks(config: TrainConfig | FinetuneConfig, plan: TrainPlan) -> tuple[tuple[int, float], ...]:
    """Return the peak learning rate from the first step of each phase on."""
    return tuple(
        (
            plan.steps_before(phase.first_epoch),
            phase.lr or config.lr or scaled_lr(config.rate, plan.global_batch(phase.first_epoch)),
        )
        for phase in plan.schedule.phases
    )
