"""The evaluation loop: every image once over all processes, right answers counted as integers on the device."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from dali_fixres.errors import DataError
from dali_fixres.evaluation.metrics import Accuracy, count_correct
from dali_fixres.evaluation.predictions import Outputs
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.precision import forward_precision
from dali_fixres.runtime.progress import Bar
from dali_fixres.runtime.signals import StopSignals
from pipelines.batch import Batch
from pipelines.plan import EvalPlan
from pipelines.resolution import Resolution

__all__ = ["collect", "evaluate", "total"]


def evaluate(
    network: nn.Module, batches: Iterator[Batch], num_rounds: int, bar: Bar, stop_signals: StopSignals | None = None
) -> torch.Tensor:
    """Count right answers over this process' batches, with the network in evaluation mode.

    Args:
        network: Left in evaluation mode.
        batches: Each image once.
        num_rounds: The most batches that any process has; those with less ask for orders all the same.
        bar: Shows how many rounds are done.
        orders: May ask to stop; None where signals end the process.

    Returns:
        Numbers of images right in the first and in the first five answers, and of all images, (3,) int64.

    Raises:
        Interrupted: If orders say so.
    """
    counts = torch.zeros(3, dtype=torch.int64)
    for batch, logits in _answers(network, batches, range(1, num_rounds + 1), bar, stop_signals):
        num_images = torch.full((1,), len(batch), device=logits.device)  # a copy from the host would wait
        counts = counts.to(logits.device) + torch.cat([count_correct(logits, batch.labels), num_images])
    return counts.cpu()


def collect(
    network: nn.Module,
    views: Sequence[Iterator[Batch]],
    plan: EvalPlan,
    num_outputs: int,
    classifier: nn.Module | None,
    bar: Bar,
    stop_signals: StopSignals | None = None,
) -> Outputs:
    """Keep what a network answers to this process' images; several looks at one are averaged.

    What is averaged are probabilities, the softmax of each look's logits.

    Args:
        network: Left in evaluation mode.
        looks: The batches of each look, the same images every time.
        plan: Of this process.
        num_outputs: Of the network.
        classifier: The part of it whose input is kept, too; None to keep none.
        bar: Shows how many rounds are done, over all looks.
        orders: As in `evaluate`.

    Returns:
        Those of the images that could be read in every look.

    Raises:
        Interrupted: If orders say so.
    """
    rows, rounds, num_views = plan.rows, plan.num_rounds, len(views)
    sums = torch.zeros(len(rows), num_outputs)
    features: torch.Tensor | None = None
    num_seen = np.zeros(len(rows), dtype=np.int64)
    with _inputs_of(classifier) as caught:
        for number, batches in enumerate(views):
            numbers = range(number * rounds + 1, (number + 1) * rounds + 1)
            for batch, logits in _answers(network, batches, numbers, bar, stop_signals):
                places = np.searchsorted(rows, batch.ids)
                answers = logits.float() if num_views == 1 else logits.float().softmax(dim=1)
                sums[places] += answers.cpu()
                num_seen[places] += 1
                if caught:
                    vectors = caught[-1]
                    caught.clear()
                    features = torch.zeros(len(rows), vectors.shape[1]) if features is None else features
                    features[places] += vectors.cpu() / num_views
    seen = num_seen == num_views
    logits = sums if num_views == 1 else (sums / num_views).clamp_min(torch.finfo(torch.float32).tiny).log()
    rows = rows[seen]
    return Outputs(
        rows=rows,
        paths=np.array([plan.dataset.relative_path(row) for row in rows.tolist()], dtype=np.bytes_),
        labels=plan.dataset.labels[rows],
        logits=logits.numpy()[seen],
        features=None if features is None else features.numpy()[seen],
    )


@torch.inference_mode()
def _answers(
    network: nn.Module, batches: Iterator[Batch], numbers: range, bar: Bar, stop_signals: StopSignals | None = None
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Yield this process' batches and the network's logits for each; in rounds, as many in all processes."""
    network.eval()
    for number in numbers:
        batch = next(batches, None)
        if batch is not None:
            with forward_precision(batch.images.device):
                logits = network(batch.images)
            yield batch, logits
        bar.update(number)
        if stop_signals is not None:
            stop_signals.agree().raise_if_stopped()


@contextmanager
def _inputs_of(classifier: nn.Module | None) -> Iterator[list[torch.Tensor]]:
    """Catch what a classifier is given, (n, channels) float32; the mean over positions where it runs at each."""
    caught: list[torch.Tensor] = []

    def catch(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        channels_first = inputs[0].movedim(1 if isinstance(module, nn.Conv2d) else -1, 1)
        caught.append(channels_first.float().reshape(*channels_first.shape[:2], -1).mean(dim=2))

    handle = classifier.register_forward_pre_hook(catch) if classifier is not None else None
    try:
        yield caught
    finally:
        if handle is not None:
            handle.remove()


def total(counts: torch.Tensor, plan: EvalPlan, resolution: Resolution, world: World, started: float) -> Accuracy:
    """Sum what all processes have counted, and make sure that no image is missing or counted twice.

    Args:
        counts: From `evaluate`.
        plan: This process', without the images that could not be read.
        resolution: What the result is labelled with.
        world: All processes.
        started: When the evaluation began, of ``time.perf_counter``.

    Raises:
        DataError: If no image could be read.
        RuntimeError: If the images do not add up to the data set; that would be a defect of this program.
    """
    num_unreadable = plan.num_dealt - len(plan.rows)
    top1, top5, num_images, num_unreadable = world.sum(torch.cat([counts, torch.tensor([num_unreadable])])).tolist()
    if num_images + num_unreadable != plan.num_images:
        raise RuntimeError(f"tested {num_images} images and {num_unreadable} unreadable ones of {plan.num_images}")
    if num_images == 0:
        raise DataError(f"none of the {plan.num_images} test images of {plan.dataset.root} can be read")
    return Accuracy(resolution, top1, top5, num_images, num_unreadable, time.perf_counter() - started)
