"""What `train` and `finetune` share: a stage of epochs, with its records and checkpoints."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import nn

from dali_fixres.batch import Batch, BatchPlan
from dali_fixres.checkpoint import Checkpoint, load_checkpoint, rebuild, save_checkpoint
from dali_fixres.commands.dataset import Dataset
from dali_fixres.config import FinetuneConfig, StageConfig, TrainConfig
from dali_fixres.errors import CheckpointError, ConfigError
from dali_fixres.evaluation import evaluate
from dali_fixres.index import Index
from dali_fixres.metrics import Accuracy
from dali_fixres.models import BuiltModel, ModelSpec
from dali_fixres.optim import LearningRate, build_optimizer, scaled_lr
from dali_fixres.plan import AUGMENTATIONS, EvaluationPlan, TrainPlan
from dali_fixres.report.progress import Reporter
from dali_fixres.resolution import Resolution, Schedule
from dali_fixres.runs import RunFolder
from dali_fixres.training import EpochResult, Learner, train_epoch
from pipelines import Loader

CHANGEABLE = {"epochs", "lr", "base_lr", "device", "workers", "data"}
"""Settings that a resumed run may change; the rest decide which batches it has seen and what learned from them.
Where the data lies may change too, because its fingerprint is compared."""

__all__ = ["Stage", "build_learner", "measure", "resume", "run_stage", "training_plan", "untrained"]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """A stage, put together and ready to run.

    Attributes:
        learner: What learns.
        loader: Executes the plans.
        plan: Of training.
        evaluation: Of testing.
        test_resolution: What is tested at.
        num_epochs: Of the whole stage.
        evaluates: Whether every epoch ends with an evaluation.
        run: Where records and checkpoints go.
        reporter: Where progress goes.
    """

    learner: Learner
    loader: Loader
    plan: TrainPlan
    evaluation: EvaluationPlan
    test_resolution: Resolution
    num_epochs: int
    evaluates: bool
    run: RunFolder
    reporter: Reporter


def training_plan(config: StageConfig, dataset: Dataset, augmentation: str, schedule: Schedule) -> TrainPlan:
    """Plan a stage's batches, with the jitter asked for instead of the augmentation's own."""
    look = AUGMENTATIONS[augmentation]
    if config.jitter is not None:
        look = replace(look, jitter=config.jitter)
    return TrainPlan(dataset.index, look, schedule, config.batch_size, config.seed)


def untrained(
    command: str,
    config: TrainConfig | FinetuneConfig,
    trained_at: int,
    spec: ModelSpec,
    built: BuiltModel,
    index: Index,
) -> Checkpoint:
    """Return the state of a stage before its first epoch, of a network trained at `trained_at` pixels."""
    return Checkpoint(
        command=command,
        model=spec,
        state_dict=built.network.state_dict(),
        normalisation=built.normalisation,
        classes=index.classes,
        fingerprint=index.fingerprint,
        train_res=trained_at,
        test_res=config.test_resolution.crop_px,
        crop_ratio=config.ratio,
        config=config.stored(),
        epoch=0,
        step=0,
        optimizer={},
        rng=torch.get_rng_state(),
        cuda_rng=_cuda_rng(),
        top1=None,
        best_top1=None,
    )


def build_learner(
    config: StageConfig,
    network: nn.Module,
    plan: TrainPlan,
    start: Checkpoint,
    set_mode: Callable[[], object],
) -> Learner:
    """Put the optimiser, its state so far and the learning rate of every step to a network."""
    optimizer = build_optimizer(network, momentum=config.momentum, weight_decay=config.weight_decay)
    if start.optimizer:
        optimizer.load_state_dict(start.optimizer)
    torch.set_rng_state(start.rng)
    if start.cuda_rng is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(start.cuda_rng)
    steps = plan.steps_per_epoch
    rate = LearningRate(
        peak=config.lr or scaled_lr(config.base_lr, plan.batch_size * plan.world_size),
        num_steps=config.epochs * steps,
        warmup_steps=round(config.warmup_ratio * config.epochs * steps),
        decay=config.lr_decay,
    )
    return Learner(network, optimizer, rate, set_mode, config.label_smoothing, config.clip_grad)


def resume(run: RunFolder, config: StageConfig, dataset: Dataset, reporter: Reporter) -> tuple[BuiltModel, Checkpoint]:
    """Return the network and the state that a run's last checkpoint holds; note changed settings in the run.

    Raises:
        CheckpointError: If there is none, or the data has changed since.
        ConfigError: If a setting is changed that decides which batches have been seen.
    """
    state = load_checkpoint(run.last)
    settings = config.stored()
    either = settings.keys() | state.config.keys()
    changed = sorted(key for key in either - CHANGEABLE if settings.get(key) != state.config.get(key))
    if changed:
        was = ", ".join(f"{key} = {state.config.get(key, 'unset')}" for key in changed)
        raise ConfigError(f"{run.path} was begun with {was}; a resumed run keeps that, so start a new one")
    if state.fingerprint != dataset.index.fingerprint:
        raise CheckpointError(
            f"the data in {dataset.index.root} has changed since {run.last} (fingerprint "
            f"{dataset.index.fingerprint[:12]}, was {state.fingerprint[:12]}); start a new run"
        )
    run.write_config(state.command, settings)
    reporter.line(f"resuming {run.path} after epoch {state.epoch}")
    return rebuild(state, run.last), replace(state, config=settings)


def run_stage(stage: Stage, start: Checkpoint) -> tuple[Checkpoint, Accuracy | None]:
    """Run the epochs that `start` has not done yet; return the state and the evaluation after the last.

    All epochs and their evaluations are one stream of plans, so the graph never runs dry between them.
    """
    state, accuracy = start, None
    if state.epoch == 0:
        save_checkpoint(stage.run.last, state)  # so that a run killed in its first epoch can be resumed
    batches = stage.loader.run(_plans(stage, state.epoch))
    for epoch in range(state.epoch, stage.num_epochs):
        resolution = stage.plan.schedule.at(epoch)
        steps = stage.plan.steps_per_epoch
        label = f"epoch {epoch + 1}/{stage.num_epochs} at {resolution.crop_px} px"
        with stage.reporter.bar(label, steps) as bar:
            result = train_epoch(stage.learner, islice(batches, steps), state.step, bar)
        line = _record_epoch(stage, epoch, result)
        state = _advance(stage, state, epoch + 1, result.next_step)
        if stage.evaluates:
            accuracy = _evaluate_epoch(stage, epoch, islice(batches, stage.evaluation.num_batches))
            line += f"  top-1 {accuracy.top1:.2f} % at {accuracy.resolution.crop_px} px"
            state = replace(state, top1=accuracy.top1)
            if state.best_top1 is None or accuracy.top1 > state.best_top1:
                state = replace(state, best_top1=accuracy.top1)
                save_checkpoint(stage.run.best, state)
        save_checkpoint(stage.run.last, state)
        stage.reporter.line(f"{label}  {line}")
    return state, accuracy


def measure(stage: Stage, resolution: Resolution, epoch: int) -> Accuracy:
    """Evaluate at a resolution outside of the epochs, and record it."""
    with stage.reporter.bar(f"testing at {resolution.crop_px} px", stage.evaluation.num_batches) as bar:
        batches = stage.loader.run(stage.evaluation.batches(resolution))
        accuracy = evaluate(stage.learner.network, batches, resolution, bar)
    stage.run.record("evaluation", epoch=epoch, **accuracy.as_json())
    return accuracy


def _plans(stage: Stage, first_epoch: int) -> Iterator[BatchPlan]:
    for epoch in range(first_epoch, stage.num_epochs):
        yield from stage.plan.epoch(epoch)
        if stage.evaluates:
            yield from stage.evaluation.batches(stage.test_resolution)


def _record_epoch(stage: Stage, epoch: int, result: EpochResult) -> str:
    learning_rate = stage.learner.learning_rate.at(result.next_step - 1)
    stage.run.record(
        "epoch",
        epoch=epoch + 1,
        step=result.next_step,
        train_res=stage.plan.schedule.at(epoch).crop_px,
        lr=learning_rate,
        loss=round(result.loss, 5),
        images_per_s=round(result.images_per_s, 2),
        wait_share=round(result.wait_share, 4),
        seconds=round(result.seconds, 3),
    )
    return (
        f"loss {result.loss:.3f}  {result.images_per_s:.0f} img/s  waiting for data {result.wait_share:.0%}  "
        f"{result.seconds:.1f} s"
    )


def _evaluate_epoch(stage: Stage, epoch: int, batches: Iterator[Batch]) -> Accuracy:
    with stage.reporter.bar(f"testing epoch {epoch + 1}", stage.evaluation.num_batches) as bar:
        accuracy = evaluate(stage.learner.network, batches, stage.test_resolution, bar)
    stage.run.record("evaluation", epoch=epoch + 1, **accuracy.as_json())
    return accuracy


def _advance(stage: Stage, state: Checkpoint, epoch: int, step: int) -> Checkpoint:
    return replace(
        state,
        state_dict=stage.learner.network.state_dict(),
        optimizer=stage.learner.optimizer.state_dict(),
        rng=torch.get_rng_state(),
        cuda_rng=_cuda_rng(),
        epoch=epoch,
        step=step,
    )


def _cuda_rng() -> torch.Tensor | None:
    """Return the random state of the GPU in use, if there is one."""
    return torch.cuda.get_rng_state() if torch.cuda.is_available() else None
