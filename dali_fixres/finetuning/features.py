"""Pooled features: what reaches a network's classifier, computed once."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dali_fixres.errors import ConfigError, ModelError
from dali_fixres.evaluation.forward import ForwardPass
from dali_fixres.models.head import run_once
from dali_fixres.runtime.distributed import World
from pipelines import Batch, EvalPlan, Resolution

__all__ = ["FeatureBank", "FeaturePass", "check_features", "collect_features", "measure_statistics", "sample_features"]

MAX_SAMPLE = 2**22
"""Activations that all processes together keep of one kind of view: 16 MiB."""


class FeaturePass(NamedTuple):
    """Images that run through the network once, and at which size."""

    plan: EvalPlan
    resolution: Resolution


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
def measure_statistics(norm: _BatchNorm, batches: Iterator[Batch], forward: ForwardPass, world: World) -> None:
    """Give a batch norm the exact mean and variance of what reaches it, over the images of all processes.

    Unlike a running average they do not depend on how images are put into batches or assigned to processes.
    """
    sums = torch.zeros(3, norm.num_features, dtype=torch.float64)

    def add(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal sums
        values = inputs[0].double().transpose(0, 1).flatten(1)  # (channels, positions)
        counts = torch.full_like(values[:, 0], values.shape[1])
        sums = sums.to(values.device) + torch.stack([values.sum(1), values.square().sum(1), counts])

    handle = norm.register_forward_pre_hook(add)
    try:
        for _ in forward.over(batches):
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


@torch.inference_mode()
def collect_features(
    classifier: nn.Module,
    views: Sequence[Iterator[Batch]],
    size: tuple[int, int],
    forward: ForwardPass,
    limit_gib: float,
) -> FeatureBank:
    """Run every view of every image through a frozen network and keep what its classifier gets.

    Args:
        classifier: The layer that will be trained.
        views: Batches of each view.
        size: How many images this process has at most, and how many rows the index has to train on.
        forward: Runs the network.
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
            for batch, _ in forward.over(batches):
                vectors = _vectors(caught.pop(), forward.network).half()
                fits = fits.to(vectors.device) & torch.isfinite(vectors).all()
                if features is None:
                    _refuse_unless(fits, forward.network)
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
            _refuse_unless(fits, forward.network)  # not after each batch: the host would wait for the device
    finally:
        handle.remove()
    if features is None:
        raise ModelError("this process has no readable training image; run fewer processes")
    return FeatureBank(features, labels.to(features.device), places)


@torch.inference_mode()
def sample_features(
    classifier: nn.Module, batches: Iterator[Batch], plan: EvalPlan, forward: ForwardPass, world: World
) -> NDArray[np.float32]:
    """Return activations that reach the classifier, of all channels and all processes' images.

    Where there are more than `MAX_SAMPLE`, each image gives every k-th channel, and the plan's next image the
    channels after these. So which are taken does not depend on how many processes there are; their order does.

    Args:
        classifier: Its last layer.
        batches: This process' images.
        plan: Theirs.
        forward: Runs the network.
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
        for batch, _ in forward.over(batches):
            vectors = _vectors(caught.pop(), forward.network).float().cpu().numpy()
            if not np.isfinite(vectors).all():
                raise ModelError(f"the features of {type(forward.network).__name__} are not finite")
            stride = -(-plan.num_images * vectors.shape[1] // MAX_SAMPLE)
            first = batch.ids[:, None] // plan.every % stride
            taken = np.arange(vectors.shape[1]) % stride == first  # (images, channels)
            sample.append(vectors[taken])
    finally:
        handle.remove()
    mine = np.concatenate([*sample, np.empty(0, np.float32)])
    return np.concatenate(world.gather(mine))


def check_features(network: nn.Module, classifier: nn.Module, resolution: Resolution) -> None:
    """Make sure, before any image is read, that a network has features to cache.

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
            f"the classifier of {type(network).__name__} runs before the pooling, so there are no features to cache; "
            "use --method sgd"
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
