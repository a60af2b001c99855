"""The training loop. It takes an iterator of batches and never learns where they come from."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from dali_fixres.errors import TrainingDivergedError
from dali_fixres.evaluation.metrics import EpochStatistics
from dali_fixres.runtime.precision import forward_precision
from dali_fixres.runtime.progress import Bar
from dali_fixres.training.optimizer import LearningRate
from pipelines.batch import Batch

__all__ = ["EpochMeter", "Learner", "train"]

LOOK_EVERY_S = 1.0
"""Seconds between looks at the loss: each makes the host wait for the device."""


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """What learns, and how.

    Attributes:
        network: The network.
        forward: The network as it is called while learning: itself, or in DistributedDataParallel.
        optimizer: Over the parameters that learn.
        learning_rate: At each step of the whole stage.
        seed_of: The seed of what the network draws in a step.
        set_mode: Puts the network into the stage's mode before each epoch.
        label_smoothing: Share of each label spread over all classes.
        clip_grad: Largest norm of the gradient, or None.
    """

    network: nn.Module
    forward: nn.Module
    optimizer: Optimizer
    learning_rate: LearningRate
    seed_of: Callable[[int], int]
    set_mode: Callable[[], object]
    label_smoothing: float
    clip_grad: float | None


def train(learner: Learner, batches: Iterable[Batch], first_step: int, meter: "EpochMeter") -> Iterator[int]:
    """Take one optimiser step per batch, and yield the number of steps done after each.

    Args:
        learner: What learns.
        batches: Of one epoch.
        first_step: Steps done before, over the whole stage.
        meter: Sums up.

    Raises:
        TrainingDivergedError: If the loss is no finite number; the message names the step.
    """
    learner.set_mode()
    criterion = nn.CrossEntropyLoss(label_smoothing=learner.label_smoothing)
    parameters = [parameter for parameter in learner.network.parameters() if parameter.requires_grad]
    step = first_step
    for batch in meter.timed(batches):
        _seed(learner.seed_of(step), batch.images.device)
        for group in learner.optimizer.param_groups:
            group["lr"] = learner.learning_rate.at(step)
        with forward_precision(batch.images.device):
            loss = criterion(learner.forward(batch.images), batch.labels)
        learner.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if learner.clip_grad is not None:
            nn.utils.clip_grad_norm_(parameters, learner.clip_grad)
        learner.optimizer.step()
        step += 1
        meter.add(loss.detach(), len(batch), step)
        yield step


def _seed(seed: int, device: torch.device) -> None:
    """Seed what the network draws from, as ``torch.manual_seed`` does.

    That also notes a stack trace for every kind of device that is not in use, which takes a quarter of a millisecond.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


class EpochMeter:
    """Sums up an epoch without making the host wait: losses stay on the device between looks.

    Args:
        bar: Shows loss, throughput and waiting.
        before: What the epoch has come to before it was resumed.
    """

    def __init__(self, bar: Bar, before: EpochStatistics) -> None:
        self._bar = bar
        self._before = before
        self._loss_sum = before.loss_sum
        self._bad_step: int | None = None
        self._unseen: list[tuple[torch.Tensor, int, int]] = []
        self._num_images = before.num_images
        self._num_steps = 0
        self._waited_s = 0.0
        self._started = self._looked = time.perf_counter()

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on, noting how long each was waited for."""
        source = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(source, None)
            self._waited_s += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def add(self, loss: torch.Tensor, num_images: int, step: int) -> None:
        """Count a step, `step` of the stage (from 1)."""
        self._unseen.append((loss, num_images, step))
        self._num_images += num_images
        self._num_steps += 1
        if time.perf_counter() - self._looked >= LOOK_EVERY_S:
            self._bar.update(self._num_steps, self._text())
            self._looked = time.perf_counter()

    def statistics(self) -> EpochStatistics:
        """Return the sums so far; makes the host wait for the device.

        Raises:
            TrainingDivergedError: If a loss was no finite number.
        """
        self._look()
        if self._bad_step is not None:
            raise TrainingDivergedError(
                f"the loss is not finite at step {self._bad_step}; the last good checkpoint is kept; lower --lr, or "
                "limit the gradient with --clip-grad 1"
            )
        seconds = time.perf_counter() - self._started
        return EpochStatistics(
            loss_sum=self._loss_sum,
            num_images=self._num_images,
            seconds=self._before.seconds + seconds,
            waited_s=self._before.waited_s + self._waited_s,
        )

    def _look(self) -> None:
        """Fetch the losses since the last look, all at once."""
        if not self._unseen:
            return
        values = torch.stack([loss for loss, _, _ in self._unseen]).tolist()
        for value, (_, num_images, step) in zip(values, self._unseen, strict=True):
            self._loss_sum += value * num_images
            if self._bad_step is None and not math.isfinite(value):
                self._bad_step = step
        self._unseen.clear()

    def _text(self) -> str:
        statistics = self.statistics()
        seconds = statistics.seconds - self._before.seconds
        speed = (statistics.num_images - self._before.num_images) / seconds
        return f"loss {statistics.loss_sum / statistics.num_images:.3f}  {speed:.0f} img/s  waiting {self._waited_s / seconds:.0%}"
