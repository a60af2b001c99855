"""The training loop, in the order in which it runs."""

from collections.abc import Callable
from dataclasses import replace

import torch

from dali_fixres.checkpoints import EpochStatistics
from dali_fixres.checkpoints.checkpoint import Checkpoint, CheckpointClock
from dali_fixres.errors import Interrupted
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.runtime.run_folder import BEST, LAST
from dali_fixres.runtime.signals import StopSignals
from dali_fixres.runtime.skipped import share_skipped
from dali_fixres.training.optimizer import scaler_state
from dali_fixres.training.run_log import RunLog
from dali_fixres.training.statistics import EpochMeter
from dali_fixres.training.step import TrainingSetup, train_step
from pipelines import ReadableBatches, TrainPlan

__all__ = ["train"]


def train(
    setup: TrainingSetup,
    batches: ReadableBatches,
    plan: TrainPlan,
    num_epochs: int,
    state: Checkpoint,
    log: RunLog,
    signals: StopSignals,
    clock: CheckpointClock,
    evaluate: Callable[[str], Accuracy] | None = None,
) -> tuple[Checkpoint, Accuracy | None]:
    """Train what is left of a run; return its state and the accuracy after the last epoch.

    Raises:
        Interrupted: If a signal asks for it; the state has been saved.
        TrainingDivergedError: If the loss is not finite; the message names the step. Or if no scale makes the gradient
            finite in float16.
    """
    accuracy: Accuracy | None = None
    for epoch in range(state.epoch, num_epochs):
        label = f"epoch {epoch + 1}/{num_epochs} at {plan.schedule.at(epoch).crop_px} px"
        done_before, step = state.num_done, plan.steps_before(epoch, state.num_done)
        setup.set_mode()
        with log.reporter.bar(label, plan.num_steps(epoch, done_before)) as bar:
            meter = EpochMeter(bar, state.statistics if log.world.is_main else EpochStatistics())
            for batch in meter.timed(batches.epoch(plan, epoch, done_before)):
                loss = train_step(setup, batch, step)
                step += 1
                meter.add(loss, len(batch), step)
                asked = signals.poll(save=log.world.is_main and clock.due(step))
                if asked.stop or asked.save:
                    log.save(LAST, _state_at(step, state, setup, plan, meter, batches, log))
                if asked.stop:
                    raise log.stopped(asked.signal_name, step)
            state = _state_at(step, state, setup, plan, meter, batches, log)
        last_lr = setup.learning_rate.at(max(step - 1, 0))
        log.record_epoch(epoch + 1, step, plan.schedule.at(epoch).crop_px, last_lr, state.statistics)
        line = f"{label}  {state.statistics}  {state.statistics.seconds:.1f} s"
        if evaluate is not None:
            try:
                accuracy = evaluate(f"testing epoch {epoch + 1}")
            except Interrupted as interruption:
                log.save(LAST, state)
                raise log.stopped(str(interruption), step) from None
            log.record_evaluation(epoch + 1, accuracy)
            state, line = replace(state, top1=accuracy.top1), f"{line}  {accuracy}"
        share_skipped(batches.skipped, log.world)
        state = replace(
            state, epoch=epoch + 1, num_done=0, statistics=EpochStatistics(), unreadable=dict(batches.skipped.reasons)
        )
        if state.top1 is not None and (state.best_top1 is None or state.top1 > state.best_top1):
            state = replace(state, best_top1=state.top1)
            log.save(BEST, state)
        log.save(LAST, state)
        log.reporter.line(line)
    return state, accuracy


def _state_at(
    step: int,
    state: Checkpoint,
    setup: TrainingSetup,
    plan: TrainPlan,
    meter: EpochMeter,
    batches: ReadableBatches,
    log: RunLog,
) -> Checkpoint:
    """Return the state after a step of the epoch that `state` is in; all processes take part."""
    epoch, world, statistics = state.epoch, log.world, meter.statistics()
    world.broadcast_buffers(setup.network)
    sums = torch.tensor([statistics.loss_sum, statistics.num_images], dtype=torch.float64)
    loss_sum, num_images = world.sum(sums)
    unreadable = {row: why for reasons in world.gather(batches.skipped.reasons) for row, why in reasons.items()}
    num_more = (step - plan.steps_before(epoch, state.num_done)) * plan.global_batch(epoch)
    return replace(
        state,
        state_dict=setup.network.state_dict(),
        optimizer=setup.optimizer.state_dict(),
        scaler=scaler_state(setup.scaler),
        global_batch=plan.global_batch(epoch),
        num_done=state.num_done + num_more,
        statistics=replace(statistics, loss_sum=loss_sum.item(), num_images=int(num_images)),
        unreadable=unreadable,
        step=step,
    )
