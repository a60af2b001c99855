"""Pooled features: computed once, for a classifier to learn from (fine-tuning in one pass) or to see how they lie."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dali_fixres.errors import ConfigError, ModelError
from dali_fixres.models.head import run_once
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.precision import forward_precision
from dali_fixres.runtime.progress import Bar
from dali_fixres.runtime.signals import StopSignals
from dali_fixres.training.loop import EpochMeter, Learner
from pipelines.batch import Batch
from pipelines.plan import EvalPlan
from pipelines.resolution import Resolution

__all__ = [
    "FeatureBank",
    "FeatureEpoch",
    "Rounds",
    "check_features",
    "collect_features",
    "learn_from_features",
    "measure_statistics",
    "sample_features",
]

MAX_SAMPLE = 2**22
"""Activations that all processes together keep of one way to look at images: 16 MiB."""


@torch.inference_mode()
def measure_statistics(
    network: nn.Module, norm: _BatchNorm, batches: Iterator[Batch], rounds: "Rounds", world: World
) -> None:
    """Give a batch norm the exact mean and variance of what reaches it, over the images of all processes.

    Unlike a running average they do not depend on how images are put into batches or dealt to processes.
    """
    sums = torch.zeros(3, norm.num_features, dtype=torch.float64)

    def add(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal sums
        values = inputs[0].double().transpose(0, 1).flatten(1)  # (channels, positions)
        counts = torch.full_like(values[:, 0], values.shape[1])
        sums = sums.to(values.device) + torch.stack([values.sum(1), values.square().sum(1), counts])

    handle = norm.register_forward_pre_hook(add)
    try:
        for _ in rounds.of(network, batches):
            pass
    finally:
        handle.remove()
    total, squares, count = world.sum(sums)
    mean = total / count
    variance = (squares / count - mean.square()) * count / (count - 1)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance.clamp(min=0))


@dataclass(frozen=True, slots=True, eq=False)
class FeatureBank:
    """What reaches the classifier, for this process' training images, in one or several views of each.

    Attributes:
        features: (views, images, channels) float16.
        labels: (images,) int64.
        places: Where a row of the data set lies in `features`, for each view, (views, rows) int64; -1 if it does not.
    """

    features: torch.Tensor
    labels: torch.Tensor
    places: torch.Tensor

    def find(self, view: int, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return features (n, channels) float32 and labels (n,) of those of some rows that lie here, and which do."""
        places = self.places[view, rows]
        here = places >= 0
        places = places[here].to(self.features.device)
        return self.features[view, places].float(), self.labels[places], here


@torch.inference_mode()
def collect_features(
    network: nn.Module,
    classifier: nn.Module,
    views: list[Iterator[Batch]],
    size: tuple[int, int],
    rounds: "Rounds",
    limit_gib: float,
) -> FeatureBank:
    """Run every view of every image through a frozen network and keep what its classifier gets.

    Args:
        network: In evaluation mode.
        classifier: The part of it that will learn.
        views: Batches of each view.
        size: How many images this process has at most, and how many rows the index has to train on.
        rounds: Shows progress and obeys orders.
        limit_gib: Features that take more memory than this go to a file.

    Raises:
        ModelError: If the classifier does not get one vector per image, or half precision cannot hold it.
    """
    num_images, num_rows = size
    caught: list[torch.Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    places = torch.full((len(views), num_rows), -1)
    features: torch.Tensor | None = None
    labels = torch.zeros(num_images, dtype=torch.int64)
    place_of = torch.full((num_rows,), -1)  # the same for all views; an image may be unreadable in one alone
    num_found = 0
    fits = torch.tensor(True)
    try:
        for view, batches in enumerate(views):
            for batch in rounds.of(network, batches):
                vectors = _vectors(caught.pop(), network).half()
                fits = fits.to(vectors.device) & torch.isfinite(vectors).all()
                if features is None:
                    _refuse_unless(fits, network)
                    labels = labels.to(vectors.device)
                    features = _room((len(views), num_images, vectors.shape[1]), vectors.device, limit_gib)
                rows = torch.from_numpy(batch.ids)
                new = rows[place_of[rows] < 0]
                place_of[new] = torch.arange(num_found, num_found + len(new))
                num_found += len(new)
                there = place_of[rows].to(features.device)
                features[view, there] = vectors.to(features.device)
                labels[there.to(labels.device)] = batch.labels
                places[view, rows] = place_of[rows]
            _refuse_unless(fits, network)  # not after each batch: the host would wait for the device
    finally:
        handle.remove()
    if features is None:
        raise ModelError("this process has no readable training image; run fewer processes")
    return FeatureBank(features, labels.to(features.device), places)


@torch.inference_mode()
def sample_features(
    network: nn.Module,
    classifier: nn.Module,
    batches: Iterator[Batch],
    plan: EvalPlan,
    rounds: "Rounds",
    world: World,
) -> NDArray[np.float32]:
    """Return activations that reach the classifier, of all channels and all processes' images.

    Where there are more than `MAX_SAMPLE`, each image gives every k-th channel, and the plan's next image the
    channels after these. So which are taken does not depend on how many processes there are; their order does.

    Args:
        network: In evaluation mode.
        classifier: Its last layer.
        batches: This process' images.
        plan: Theirs.
        rounds: Shows progress and obeys orders.
        world: All processes.

    Returns:
        (n,) float32.

    Raises:
        ModelError: If the classifier does not get one vector per image, or a feature is not finite.
    """
    caught: list[torch.Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    sample: list[NDArray[np.float32]] = []
    try:
        for batch in rounds.of(network, batches):
            vectors = _vectors(caught.pop(), network).float().cpu().numpy()
            if not np.isfinite(vectors).all():
                raise ModelError(f"the features of {type(network).__name__} are not finite")
            stride = -(-plan.num_images * vectors.shape[1] // MAX_SAMPLE)
            first = batch.ids[:, None] // plan.every % stride
            taken = np.arange(vectors.shape[1]) % stride == first  # (images, channels)
            sample.append(vectors[taken])
    finally:
        handle.remove()
    mine = np.concatenate([*sample, np.empty(0, np.float32)])
    return np.concatenate(world.gather(mine))


def check_features(network: nn.Module, classifier: nn.Module, resolution: Resolution) -> None:
    """Make sure, before any image is read, that a network has features to learn from.

    Raises:
        ModelError: If its classifier does not get one vector per image.
    """
    caught: list[torch.Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        run_once(network, resolution)
    finally:
        handle.remove()
    _check_pooled(caught.pop(), network)


def _check_pooled(inputs: torch.Tensor, network: nn.Module) -> None:
    if inputs.ndim > 2 and inputs.shape[2:].numel() > 1:
        raise ModelError(
            f"the classifier of {type(network).__name__} runs before the pooling, so there are no features to learn "
            "from; use --method sgd"
        )


def _vectors(inputs: torch.Tensor, network: nn.Module) -> torch.Tensor:
    """Return what a classifier got as (n, channels)."""
    _check_pooled(inputs, network)
    return inputs.flatten(1)


def _refuse_unless(fits: torch.Tensor, network: nn.Module) -> None:
    """Raise ModelError if half precision has not held all features."""
    if not fits:
        raise ModelError(
            f"the features of {type(network).__name__} do not fit half precision or are not finite; use --method sgd"
        )


def _room(shape: tuple[int, int, int], device: torch.device, limit_gib: float) -> torch.Tensor:
    """Return room for features: on the device, or above the limit in a file that goes when the process does."""
    num_bytes = 2 * int(np.prod(shape))
    if num_bytes <= limit_gib * 2**30:
        return torch.empty(shape, dtype=torch.float16, device=device)
    folder = tempfile.gettempdir()
    if num_bytes > shutil.disk_usage(folder).free:
        raise ConfigError(
            f"the features take {num_bytes / 2**30:.1f} GiB, more than --feature-memory {limit_gib:g} and than is free "
            f"in {folder}; set TMPDIR to a folder with more room"
        )
    with tempfile.TemporaryFile() as file:  # the mapping keeps it until it is no longer used
        mapped: Any = np.memmap(file, dtype=np.float16, mode="w+", shape=shape)
    return torch.from_numpy(mapped)


def learn_from_features(
    learner: Learner, classifier: nn.Module, bank: FeatureBank, epoch: "FeatureEpoch", meter: EpochMeter, world: World
) -> Iterator[int]:
    """Take an epoch's optimiser steps on the classifier alone, and yield the number of steps done after each.

    Every process takes its own images of the same global batch, so the steps are those of a single process.

    Raises:
        TrainingDivergedError: If the loss is no finite number; the message names the step.
    """
    criterion = nn.CrossEntropyLoss(label_smoothing=learner.label_smoothing, reduction="sum")
    parameters = list(classifier.parameters())
    device = parameters[0].device
    step = epoch.first_step
    for rows in epoch.batches:
        for group in learner.optimizer.param_groups:
            group["lr"] = learner.learning_rate.at(step)
        vectors, labels, here = bank.find(epoch.view, torch.from_numpy(rows))
        vectors = vectors.to(device)
        if epoch.dropout > 0:
            vectors = vectors * _kept(epoch, step, (len(rows), vectors.shape[1]))[here].to(device)
        if isinstance(classifier, nn.Conv2d):
            vectors = vectors[:, :, None, None]
        loss = criterion(classifier(vectors).flatten(1), labels.to(device))
        learner.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        count, loss_sum = len(labels), loss.detach()
        if world.size > 1:
            total = world.sum(torch.stack([torch.tensor(float(count)), loss_sum.cpu()]))
            count, loss_sum = int(total[0]), total[1]
        for parameter in parameters:
            assert parameter.grad is not None
            summed = world.sum(parameter.grad).to(device) if world.size > 1 else parameter.grad
            parameter.grad = summed / max(count, 1)
        if learner.clip_grad is not None:
            nn.utils.clip_grad_norm_(parameters, learner.clip_grad)
        learner.optimizer.step()
        step += 1
        meter.add(loss_sum / max(count, 1), count, step)
        yield step


@dataclass(frozen=True, slots=True)
class FeatureEpoch:
    """An epoch of the classifier.

    Attributes:
        view: Which view of the images it looks at.
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


def _kept(epoch: FeatureEpoch, step: int, shape: tuple[int, int]) -> torch.Tensor:
    """Return what the features of a global batch are multiplied by: 0, or what makes up for those left out.

    Drawn for all images of the batch in every process, so that it does not matter which process has an image.
    """
    generator = torch.Generator().manual_seed(epoch.seed_of(step))
    kept = torch.rand(shape, generator=generator) >= epoch.dropout
    return kept / (1 - epoch.dropout)


@dataclass(slots=True)
class Rounds:
    """Runs a network over batches for the sake of what hooks see, with progress, as many rounds in all processes."""

    num_rounds: int
    bar: Bar
    stop_signals: StopSignals | None = None  # where signals end the process
    done: int = field(default=0)

    def of(self, network: nn.Module, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield each batch once it has gone through the network.

        Raises:
            Interrupted: If orders say so.
        """
        network.eval()
        for _ in range(self.num_rounds):
            batch = next(batches, None)
            if batch is not None:
                with forward_precision(batch.images.device):
                    network(batch.images)
                yield batch
            self.done += 1
            self.bar.update(self.done)
            if self.stop_signals is not None:
                self.stop_signals.agree().raise_if_stopped()
