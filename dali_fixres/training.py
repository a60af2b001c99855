"""The training loop. It takes an iterator of batches and never learns where they come from."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim import Optimizer

from dali_fixres.batch import Batch
from dali_fixres.errors import TrainingDivergedError
from dali_fixres.optim import LearningRate
from dali_fixres.precision import forward_precision
from dali_fixres.report.progress import Bar

__all__ = ["EpochResult", "Learner", "train_epoch"]

LOOK_EVERY_S = 1.0
"""Seconds between looks at the loss: each makes the host wait for the device."""


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """What learns, and how.

    Attributes:
        network: The network.
        optimizer: Over the parameters that learn.
        learning_rate: At each step of the whole stage.
        set_mode: Puts the network into the stage's mode before each epoch.
        label_smoothing: Share of each label spread over all classes.
        clip_grad: Largest norm of the gradient, or None.
    """

    network: nn.Module
    optimizer: Optimizer
    learning_rate: LearningRate
    set_mode: Callable[[], object]
    label_smoothing: float
    clip_grad: float | None


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What an epoch came to.

    Attributes:
        loss: Mean over its pictures.
        images_per_s: Wall-clock throughput.
        wait_share: Share of the time spent waiting for a batch, 0-1.
        seconds: Wall time.
        next_step: Optimiser steps done since the stage began.
    """

    loss: float
    images_per_s: float
    wait_share: float
    seconds: float
    next_step: int


@dataclass(slots=True)
class _Meter:
    """Sums up an epoch without making the host wait: the loss stays on the device between looks."""

    bar: Bar
    loss_sum: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    num_images: int = 0
    num_steps: int = 0
    waited_s: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    looked: float = field(default_factory=time.perf_counter)

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on, noting how long each was waited for."""
        source = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(source, None)
            self.waited_s += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def add(self, loss: torch.Tensor, num_images: int, step: int) -> None:
        """Count a step."""
        self.loss_sum = self.loss_sum.to(loss.device) + loss.detach() * num_images
        self.num_images += num_images
        self.num_steps += 1
        if time.perf_counter() - self.looked >= LOOK_EVERY_S:
            self.bar.update(self.num_steps, self.text(step))
            self.looked = time.perf_counter()

    def text(self, step: int) -> str:
        """Return the figures so far; the one place where the host waits for the device."""
        loss = self.mean_loss(step)
        return f"loss {loss:.3f}  {self.num_images / self.elapsed_s:.0f} img/s  waiting {self.wait_share:.0%}"

    def mean_loss(self, step: int) -> float:
        """Return the mean loss.

        Raises:
            TrainingDivergedError: If it is no finite number.
        """
        loss = self.loss_sum.item() / max(self.num_images, 1)
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"the loss is {loss} by step {step}; lower --lr, or limit the gradient with --clip-grad 1"
            )
        return loss

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self.started

    @property
    def wait_share(self) -> float:
        return self.waited_s / self.elapsed_s


def train_epoch(learner: Learner, batches: Iterable[Batch], first_step: int, bar: Bar) -> EpochResult:
    """Take one optimiser step per batch.

    Args:
        learner: What learns.
        batches: Of one epoch.
        first_step: Steps done before, over the whole stage.
        bar: Shows loss, throughput and waiting.

    Raises:
        TrainingDivergedError: If the loss is no finite number; the message names the step.
    """
    learner.set_mode()
    criterion = nn.CrossEntropyLoss(label_smoothing=learner.label_smoothing)
    parameters = [parameter for parameter in learner.network.parameters() if parameter.requires_grad]
    meter = _Meter(bar)
    step = first_step
    for batch in meter.timed(batches):
        for group in learner.optimizer.param_groups:
            group["lr"] = learner.learning_rate.at(step)
        with forward_precision(batch.images.device):
            loss = criterion(learner.network(batch.images), batch.labels)
        learner.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if learner.clip_grad is not None:
            nn.utils.clip_grad_norm_(parameters, learner.clip_grad)
        learner.optimizer.step()
        meter.add(loss, len(batch), step)
        step += 1
    loss_mean = meter.mean_loss(step - 1)
    return EpochResult(loss_mean, meter.num_images / meter.elapsed_s, meter.wait_share, meter.elapsed_s, step)
