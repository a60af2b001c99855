"""A network as a policy tunes it, with random weights, for benches that time its steps."""

from dataclasses import dataclass

import torch
from torch import nn

from dali_fixres.config import Policy
from dali_fixres.finetuning.trainable import freeze_for_tuning
from dali_fixres.models import Head, ModelSpec, build_model, find_head
from dali_fixres.runtime.distributed import World
from dali_fixres.training.loop import Learner
from dali_fixres.training.optimizer import LearningRate, build_optimizer
from dali_fixres.training.setup import prepare
from pipelines.resolution import Resolution

__all__ = ["Tuning", "build_tuning"]

LR = 1e-3
"""Small, so that random weights go over a few batches again and again without harm."""


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """A network as one policy tunes it, on its device."""

    network: nn.Module
    head: Head
    learner: Learner


def build_tuning(
    spec: ModelSpec, policy: Policy, resolution: Resolution, device: torch.device, world: World | None = None
) -> Tuning:
    """Build a network for images of a resolution, and what its training loop needs."""
    torch.manual_seed(0)
    network = prepare(build_model(spec).network, device, sync_bn=False)
    head = find_head(network, resolution)
    tuned = freeze_for_tuning(network, head, policy)
    optimizer = build_optimizer(network, momentum=0.9, weight_decay=1e-4)
    rate = LearningRate(((0, LR),), num_steps=1, warmup_steps=0, decay="step")
    forward = (world or World()).wrap(network, device)
    learner = Learner(network, forward, optimizer, rate, lambda step: step, tuned.set_mode, 0.0, clip_grad=None)
    return Tuning(network, head, learner)
