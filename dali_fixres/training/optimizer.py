"""The optimiser and its learning rate at each step."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD

from dali_fixres.config import Precision
from dali_fixres.errors import TrainingDivergedError

__all__ = [
    "REFERENCE_BATCH",
    "LearningRate",
    "build_optimizer",
    "build_scaler",
    "load_optimizer",
    "scaled_lr",
    "scaler_state",
]

REFERENCE_BATCH = 256
"""Base learning rates are stated for this global batch and scaled in proportion (Goyal et al., 2017)."""


LEAST_SCALE = 2.0**-10
"""A gradient that overflows float16 although the loss is scaled down to this has diverged."""


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


def build_optimizer(network: nn.Module, *, momentum: float, weight_decay: float, precision: Precision = "fp32") -> SGD:
    """Return SGD with Nesterov momentum over the trainable parameters; those of norms, and biases, do not decay."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in learning if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in learning if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    # On a GPU one kernel for all parameters; on a CPU as ever, to the bit. Not with gradient scaling: where the first
    # step is skipped, torch's fused SGD leaves the momentum as uninitialised memory, and goes on with that.
    fused = precision != "fp16" and all(parameter.is_cuda for parameter in learning)
    # The rate is set before every step from `LearningRate`; a zero here would show if it were not.
    return SGD(
        [group for group in groups if group["params"]],
        lr=0.0,
        momentum=momentum,
        nesterov=momentum > 0,
        fused=fused or None,
    )


def build_scaler(precision: Precision, device: torch.device) -> GradScaler:
    """Return what scales the loss, so that small gradients do not vanish in float16; in other formats it does nothing.

    A step whose scaled gradient overflows is skipped, and the next ones are scaled by less.
    """
    return GradScaler(device.type, enabled=precision == "fp16")


def scaler_state(scaler: GradScaler) -> dict[str, Any]:
    """Return the state for a checkpoint, empty where nothing is scaled; makes the host wait for the device.

    Raises:
        TrainingDivergedError: If so many steps were skipped that the gradient cannot be finite.
    """
    state = scaler.state_dict()
    if state and state["scale"] < LEAST_SCALE:
        raise TrainingDivergedError(
            f"the gradient is not finite in float16, whatever the loss is scaled by (down to {state['scale']:.2g}); "
            "the last good checkpoint is kept; take --precision bf16 or fp32, or lower --lr"
        )
    return state
