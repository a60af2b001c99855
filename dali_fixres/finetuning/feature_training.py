"""A classifier trained on cached features: no image is read and no other layer runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dali_fixres.finetuning.features import FeatureBank
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.signals import StopSignals
from dali_fixres.training.statistics import EpochMeter
from dali_fixres.training.step import TrainingSetup

__all__ = ["FeatureEpoch", "train_on_features"]


@dataclass(frozen=True, slots=True)
class FeatureEpoch:
    """An epoch of the classifier.

    Attributes:
        view: Which view of the images is used.
        first_step: Steps done before.
        batches: Rows of the data set of each global batch.
        dropout: Share of features that is left out, others in each step.
        seed_of: Of a step, the same in all processes: decides which.
    """

    view: int
    first_step: int
    batches: Iterator[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]
    dropout: float
    seed_of: Callable[[int], int]


def train_on_features(
    setup: TrainingSetup,
    classifier: nn.Module,
    bank: FeatureBank,
    epoch: FeatureEpoch,
    meter: EpochMeter,
    world: World,
    signals: StopSignals | None = None,
) -> None:
    """Take an epoch's optimiser steps on the classifier alone.

    Every process takes its own images of the same global batch, so the steps are those of a single process.

    Raises:
        Interrupted: If a signal asks to stop.
        TrainingDivergedError: If the loss is not finite; the message names the step.
    """
    criterion = nn.CrossEntropyLoss(label_smoothing=setup.label_smoothing, reduction="sum")
    parameters = list(classifier.parameters())
    device = parameters[0].device
    step = epoch.first_step
    for rows in epoch.batches:
        for group in setup.optimizer.param_groups:
            group["lr"] = setup.learning_rate.at(step)
        vectors, labels, here = bank.find(epoch.view, torch.from_numpy(rows))
        vectors = vectors.to(device)
        if epoch.dropout > 0:
            vectors = vectors * _dropout_mask(epoch, step, (len(rows), vectors.shape[1]))[here].to(device)
        if isinstance(classifier, nn.Conv2d):
            vectors = vectors[:, :, None, None]
        loss = criterion(classifier(vectors).flatten(1), labels.to(device))
        setup.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        count, loss_sum = len(labels), loss.detach()
        if world.size > 1:
            total = world.sum(torch.stack([torch.tensor(float(count)), loss_sum.cpu()]))
            count, loss_sum = int(total[0]), total[1]
        for parameter in parameters:
            assert parameter.grad is not None
            summed = world.sum(parameter.grad).to(device) if world.size > 1 else parameter.grad
            parameter.grad = summed / max(count, 1)
        if setup.clip_grad is not None:
            nn.utils.clip_grad_norm_(parameters, setup.clip_grad)
        setup.optimizer.step()
        step += 1
        meter.add(loss_sum / max(count, 1), count, step)
        if signals is not None:
            signals.poll().raise_if_stopped()


def _dropout_mask(epoch: FeatureEpoch, step: int, shape: tuple[int, int]) -> torch.Tensor:
    """Return what the features of a global batch are multiplied by: 0, or what makes up for those left out.

    Drawn for all images of the batch in every process, so that it does not matter which process has an image.
    """
    generator = torch.Generator().manual_seed(epoch.seed_of(step))
    kept = torch.rand(shape, generator=generator) >= epoch.dropout
    return kept / (1 - epoch.dropout)
