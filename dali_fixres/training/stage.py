"""What `train` and `finetune` share: a stage of epochs, with its records and checkpoints."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from dali_fixres.errors import Interrupted
from dali_fixres.evaluation.evaluate import evaluate, total
from dali_fixres.evaluation.metrics import Accuracy, EpochStatistics
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import BEST, LAST, RunFolder
from dali_fixres.runtime.signals import StopSignals
from dali_fixres.training.checkpoint import Checkpoint, CheckpointClock, save_checkpoint
from dali_fixres.training.loop import EpochMeter, Learner, train
from dali_fixres.training.resume import resume_hint
from dali_fixres.training.stream import Epoch, Stream, Test
from dali_fixres.training.unreadable import Unreadable
from pipelines import Loader
from pipelines.plan import EvalPlan, TrainPlan
from pipelines.resolution import Resolution

__all__ = ["Stage", "measure", "record_epoch", "run_stage"]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """A stage, put together and ready to run.

    Attributes:
        command: ``train`` or ``finetune``.
        learner: What learns.
        loader: Executes the plans.
        plan: Of training.
        evaluation: Of testing.
        test_resolution: What is tested at.
        num_epochs: Of the whole stage; 0 if nothing learns.
        evaluates: Whether every epoch ends with an evaluation.
        unreadable: Images that are passed over.
        clock: Says when checkpoints are due.
        orders: Signals, and what all processes agree on.
        world: All processes.
        run: Where records and checkpoints go; None in all processes but the first.
        reporter: Where progress goes.
    """

    command: str
    learner: Learner
    loader: Loader
    plan: TrainPlan
    evaluation: EvalPlan
    test_resolution: Resolution
    num_epochs: int
    evaluates: bool
    unreadable: Unreadable
    clock: CheckpointClock
    stop_signals: StopSignals
    world: World
    run: RunFolder | None
    reporter: Reporter

    def save(self, name: str, state: Checkpoint) -> None:
        """Write a checkpoint, if this process is the one that writes; the others wait until that is done."""
        if self.run is not None:
            save_checkpoint(self.run.path / name, state)
        self.world.barrier()

    def record(self, event: str, **values: object) -> None:
        """Append to the records, if this process is the one that writes."""
        if self.run is not None:
            self.run.record(event, **values)

    def announce(self, device: torch.device, start: Checkpoint) -> None:
        """Say where the run is, on what, and what the learning rate of each phase is made of."""
        if self.run is not None:
            processes = f", {self.world.size} processes" if self.world.size > 1 else ""
            self.reporter.line(f"run: {self.run.path} on {device}{processes}")
        if self.num_epochs == 0:
            return
        phases = self.plan.schedule.phases
        for phase, (_, peak) in zip(phases, self.learner.learning_rate.peaks, strict=True):
            batch = self.plan.global_batch(phase.first_epoch)
            share = f" ({self.world.size} x {batch // self.world.size})" if self.world.size > 1 else ""
            of_phase = f" from epoch {phase.first_epoch + 1} on" if len(phases) > 1 else ""
            self.reporter.line(f"learning rate{of_phase}: {peak:.4g} at its peak, for a global batch of {batch}{share}")
        batch = self.plan.global_batch(start.epoch)
        if start.num_done and start.global_batch != batch:
            self.reporter.warn(
                f"the global batch was {start.global_batch} before and is {batch} now; without --lr the learning rate "
                "changes with it"
            )

    def stopped(self, signal_name: str, step: int | None) -> Interrupted:
        """Say what has happened and how to go on, if this process is the one that reports.

        Args:
            signal_name: What has asked for it.
            step: The last one, whose state is saved; None within what runs once, of which nothing is kept.
        """
        if self.run is None:
            return Interrupted()
        how = resume_hint(self.command, self.run.path, self.world)
        where = "before its one pass has ended, which begins anew" if step is None else f"after step {step}, and saved"
        return Interrupted(f"stopped by {signal_name} {where}; resume: {how}")


def run_stage(stage: Stage, start: Checkpoint) -> tuple[Checkpoint, Accuracy | None]:
    """Run what `start` has not done yet of the stage; return the state and the evaluation after the last epoch.

    Raises:
        Interrupted: If a signal asks for it; the state has been saved.
    """
    state, accuracy = start, None
    stream = Stream(stage.loader, _parts(stage, state), stage.unreadable)
    for epoch in range(state.epoch, stage.num_epochs):
        label = f"epoch {epoch + 1}/{stage.num_epochs} at {stage.plan.schedule.at(epoch).crop_px} px"
        state = _train_epoch(stage, state, stream, label)
        line = record_epoch(stage, state)
        if stage.evaluates:
            accuracy = _test_epoch(stage, state, stream)
            line += f"  top-1 {accuracy.top1:.2f} % at {accuracy.resolution.crop_px} px"
            if accuracy.num_unreadable:
                line += f" of {accuracy.num_images} images ({accuracy.num_unreadable} unreadable)"
            state = replace(state, top1=accuracy.top1)
        stream.share(stage.world)
        state = replace(
            state, epoch=epoch + 1, num_done=0, statistics=EpochStatistics(), unreadable=dict(stage.unreadable.reasons)
        )
        if state.top1 is not None and (state.best_top1 is None or state.top1 > state.best_top1):
            state = replace(state, best_top1=state.top1)
            stage.save(BEST, state)
        stage.save(LAST, state)
        stage.reporter.line(f"{label}  {line}")
    return state, accuracy


def _parts(stage: Stage, state: Checkpoint) -> Sequence[Epoch | Test]:
    parts: list[Epoch | Test] = []
    for epoch in range(state.epoch, stage.num_epochs):
        parts.append(Epoch(stage.plan, epoch, state.num_done if epoch == state.epoch else 0))
        if stage.evaluates:
            parts.append(Test(stage.evaluation, stage.test_resolution))
    return parts


def _train_epoch(stage: Stage, state: Checkpoint, stream: Stream, label: str) -> Checkpoint:
    """Train what is left of the state's epoch; save on the way when it is due or a signal asks for it."""
    plan, epoch = stage.plan, state.epoch
    first_step = plan.steps_before(epoch, state.num_done)

    def at(step: int, meter: EpochMeter) -> Checkpoint:
        return _snapshot(stage, replace(state, step=step), (step - first_step) * plan.global_batch(epoch), meter)

    with stage.reporter.bar(label, plan.num_steps(epoch, state.num_done)) as bar:
        meter = EpochMeter(bar, state.statistics if stage.world.is_main else EpochStatistics())
        step = first_step
        for step in train(stage.learner, stream.part(), first_step, meter):
            agreed = stage.stop_signals.agree(save=stage.world.is_main and stage.clock.due(step))
            if agreed.stop or agreed.save:
                stage.save(LAST, at(step, meter))
            if agreed.stop:
                raise stage.stopped(agreed.signal_name, step)
        return at(step, meter)


def _snapshot(stage: Stage, state: Checkpoint, num_more: int, meter: EpochMeter) -> Checkpoint:
    """Return the state after `num_more` positions of its epoch; all processes have a part in it."""
    statistics = meter.statistics()
    stage.world.copy_buffers(stage.learner.network)
    loss_sum, num_images = stage.world.sum(
        torch.tensor([statistics.loss_sum, statistics.num_images], dtype=torch.float64)
    )
    unreadable = {row: why for reasons in stage.world.gather(stage.unreadable.reasons) for row, why in reasons.items()}
    return replace(
        state,
        state_dict=stage.learner.network.state_dict(),
        optimizer=stage.learner.optimizer.state_dict(),
        global_batch=stage.plan.global_batch(state.epoch),
        num_done=state.num_done + num_more,
        statistics=replace(statistics, loss_sum=loss_sum.item(), num_images=int(num_images)),
        unreadable=unreadable,
    )


def _test_epoch(stage: Stage, state: Checkpoint, stream: Stream) -> Accuracy:
    try:
        return _test(stage, stream, stage.test_resolution, f"testing epoch {state.epoch + 1}", state.epoch + 1)
    except Interrupted as interruption:
        stage.save(LAST, state)
        raise stage.stopped(str(interruption), state.step) from None


def measure(stage: Stage, resolution: Resolution, state: Checkpoint) -> Accuracy:
    """Evaluate at a resolution outside of the epochs, and record it.

    Raises:
        Interrupted: If a signal asks for it; `state` has been saved before.
    """
    stream = Stream(stage.loader, [Test(stage.evaluation, resolution)], stage.unreadable)
    try:
        accuracy = _test(stage, stream, resolution, f"testing at {resolution.crop_px} px", state.epoch)
    except Interrupted as interruption:
        raise stage.stopped(str(interruption), state.step) from None
    stream.share(stage.world)
    return accuracy


def _test(stage: Stage, stream: Stream, resolution: Resolution, label: str, epoch: int) -> Accuracy:
    started, rounds = time.perf_counter(), stage.evaluation.num_rounds
    with stage.reporter.bar(label, rounds) as bar:
        counts = evaluate(stage.learner.network, stream.part(), rounds, bar, stage.stop_signals)
    plan = replace(stage.evaluation, unreadable=stage.unreadable.rows)
    accuracy = total(counts, plan, resolution, stage.world, started)
    stage.record("evaluation", epoch=epoch, **accuracy.as_json())
    return accuracy


def record_epoch(stage: Stage, state: Checkpoint) -> str:
    """Record what an epoch has come to, and return it in words."""
    statistics = state.statistics
    loss = statistics.loss_sum / statistics.num_images
    images_per_s = statistics.num_images / statistics.seconds
    wait_share = statistics.waited_s / statistics.seconds
    stage.record(
        "epoch",
        epoch=state.epoch + 1,
        step=state.step,
        train_res=stage.plan.schedule.at(state.epoch).crop_px,
        lr=stage.learner.learning_rate.at(max(state.step - 1, 0)),
        loss=round(loss, 5),
        images_per_s=round(images_per_s, 2),
        wait_share=round(wait_share, 4),
        num_images=statistics.num_images,
        seconds=round(statistics.seconds, 3),
    )
    return f"loss {loss:.3f}  {images_per_s:.0f} img/s  waiting for data {wait_share:.0%}  {statistics.seconds:.1f} s"
