"""One optimiser step, and all that it needs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from dali_fixres.config import Precision
from dali_fixres.runtime.precision import run_network
from dali_fixres.training.optimizer import LearningRate
from pipelines import Batch

__all__ = ["TrainingSetup", "train_step"]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSetup:
    """What is trained, and how.

    Attributes:
        network: The network.
        forward: The network as it is called in training: itself, compiled, or in DistributedDataParallel.
        optimizer: Over the trainable parameters.
        learning_rate: At each step of the whole run.
        seed_of: The seed of what the network draws in a step.
        set_mode: Puts the network into its training mode before each epoch.
        label_smoothing: Share of each label spread over all classes.
        clip_grad: Largest norm of the gradient, or None.
        precision: What the network runs in.
        scaler: Scales the loss, if that is float16.
    """

    network: nn.Module
    forward: nn.Module
    optimizer: Optimizer
    learning_rate: LearningRate
    seed_of: Callable[[int], int]
    set_mode: Callable[[], object]
    label_smoothing: float = 0.0
    clip_grad: float | None = None
    precision: Precision = "fp32"
    scaler: GradScaler = field(default_factory=partial(GradScaler, enabled=False))


def train_step(setup: TrainingSetup, batch: Batch, step: int) -> torch.Tensor:
    """Take one optimiser step (counted from 0 over the whole run).

    Returns:
        The loss, not scaled, detached and on the device. It is finite also where the gradient has overflowed float16
        and the scaler has skipped the step, which counts as one all the same.
    """
    _seed(setup.seed_of(step), batch.images.device)
    for group in setup.optimizer.param_groups:
        group["lr"] = setup.learning_rate.at(step)
    logits = run_network(setup.forward, batch.images, setup.precision).float()
    loss = nn.functional.cross_entropy(logits, batch.labels, label_smoothing=setup.label_smoothing)
    setup.optimizer.zero_grad(set_to_none=True)
    scaled: Any = setup.scaler.scale(loss)
    scaled.backward()
    if setup.clip_grad is not None:
        setup.scaler.unscale_(setup.optimizer)
        trainable = [parameter for parameter in setup.network.parameters() if parameter.requires_grad]
        nn.utils.clip_grad_norm_(trainable, setup.clip_grad)
    setup.scaler.step(setup.optimizer)
    setup.scaler.update()
    return loss.detach()


def _seed(seed: int, device: torch.device) -> None:
    """Seed what the network draws from, as ``torch.manual_seed`` does.

    That also notes a stack trace for every kind of device that is not in use, which takes a quarter of a millisecond.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
