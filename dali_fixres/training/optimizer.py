"""The optimiser and its learning rate at each step."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import SGD

__all__ = ["REFERENCE_BATCH", "LearningRate", "build_optimizer", "load_optimizer", "scaled_lr"]

REFERENCE_BATCH = 256
"""Base learning rates are stated for this global batch and scaled in proportion (Goyal et al., 2017)."""


@dataclass(frozen=True, slots=True)
class LearningRate:
    """The learning rate as a pure function of the step.

    Attributes:
        peaks: Pairs (first step, peak): what the rate reaches at the end of the warm-up, changed by the schedule's
            phases.
        num_steps: Of the whole run.
        warmup_steps: Linear rise from 0; step 0 already takes one share of it.
        decay: ``cosine`` to 0, or ``step``: to a tenth at each of `drops`.
        drops: First steps of the falls to a tenth; if None, the ends of the first and second third after the warm-up.
    """

    peaks: tuple[tuple[int, float], ...]
    num_steps: int
    warmup_steps: int
    decay: Literal["cosine", "step"]
    drops: tuple[int, ...] | None = None

    def at(self, step: int) -> float:
        """Return the learning rate of a step (from 0)."""
        peak = next(peak for first, peak in reversed(self.peaks) if first <= step)
        if step < self.warmup_steps:
            return peak * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        if self.decay == "cosine":
            return peak * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        num_drops = int(3 * min(done, 1.0)) if self.drops is None else sum(drop <= step for drop in self.drops)
        return peak * 0.1**num_drops


def scaled_lr(base_lr: float, global_batch: int) -> float:
    """Return ``base_lr * global_batch / 256``."""
    return base_lr * global_batch / REFERENCE_BATCH


def load_optimizer(optimizer: SGD, state: dict[str, Any]) -> None:
    """Give an optimiser what a checkpoint says, but how it is computed: that goes with the device, which may change.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: If it is the state of another network, or none.
    """
    optimizer.load_state_dict(state)
    for group in optimizer.param_groups:
        group |= {name: optimizer.defaults[name] for name in ("fused", "foreach")}


def build_optimizer(network: nn.Module, *, momentum: float, weight_decay: float) -> SGD:
    """Return SGD with Nesterov momentum over the trainable parameters; those of norms, and biases, do not decay."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in learning if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in learning if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    # On a GPU one kernel for all parameters; on a CPU as ever, to the bit.
    fused = all(parameter.is_cuda for parameter in learning)
    # The rate is set before every step from `LearningRate`; a zero here would show if it were not.
    return SGD(
        [group for group in groups if group["params"]],
        lr=0.0,
        momentum=momentum,
        nesterov=momentum > 0,
        fused=fused or None,
    )
