"""The evaluation loop: every picture once over all processes, right answers counted as integers on the device."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from dali_fixres.batch import Batch
from dali_fixres.distributed import World
from dali_fixres.errors import DataError
from dali_fixres.interruption import Orders
from dali_fixres.metrics import Accuracy, count_correct
from dali_fixres.outputs import Outputs
from dali_fixres.plan import EvaluationPlan
from dali_fixres.precision import forward_precision
from dali_fixres.report.progress import Bar
from dali_fixres.resolution import Resolution

__all__ = ["collect", "evaluate", "total"]


def evaluate(
    network: nn.Module, batches: Iterator[Batch], num_rounds: int, bar: Bar, orders: Orders | None = None
) -> torch.Tensor:
    """Count right answers over this process' batches, with the network in evaluation mode.

    Args:
        network: Left in evaluation mode.
        batches: Each picture once.
        num_rounds: The most batches that any process has; those with less ask for orders all the same.
        bar: Shows how many rounds are done.
        orders: May ask to stop; None where signals end the process.

    Returns:
        Numbers of pictures right in the first and in the first five answers, and of all pictures, (3,) int64.

    Raises:
        Interrupted: If orders say so.
    """
    counts = torch.zeros(3, dtype=torch.int64)
    for batch, logits in _answers(network, batches, range(1, num_rounds + 1), bar, orders):
        num_images = torch.full((1,), len(batch), device=logits.device)  # a copy from the host would wait
        counts = counts.to(logits.device) + torch.cat([count_correct(logits, batch.labels), num_images])
    return counts.cpu()


def collect(
    network: nn.Module,
    looks: Sequence[Iterator[Batch]],
    plan: EvaluationPlan,
    num_outputs: int,
    classifier: nn.Module | None,
    bar: Bar,
    orders: Orders | None = None,
) -> Outputs:
    """Keep what a network answers to this process' pictures; several looks at one are averaged.

    What is averaged are probabilities, the softmax of each look's logits.

    Args:
        network: Left in evaluation mode.
        looks: The batches of each look, the same pictures every time.
        plan: Of this process.
        num_outputs: Of the network.
        classifier: The part of it whose input is kept, too; None to keep none.
        bar: Shows how many rounds are done, over all looks.
        orders: As in `evaluate`.

    Returns:
        Those of the pictures that could be read in every look.

    Raises:
        Interrupted: If orders say so.
    """
    rows, rounds, num_looks = plan.rows, plan.num_rounds, len(looks)
    sums = torch.zeros(len(rows), num_outputs)
    features: torch.Tensor | None = None
    num_seen = np.zeros(len(rows), dtype=np.int64)
    with _inputs_of(classifier) as caught:
        for number, batches in enumerate(looks):
            numbers = range(number * rounds + 1, (number + 1) * rounds + 1)
            for batch, logits in _answers(network, batches, numbers, bar, orders):
                places = np.searchsorted(rows, batch.ids)
                answers = logits.float() if num_looks == 1 else logits.float().softmax(dim=1)
                sums[places] += answers.cpu()
                num_seen[places] += 1
                if caught:
                    vectors = caught[-1]
                    caught.clear()
                    features = torch.zeros(len(rows), vectors.shape[1]) if features is None else features
                    features[places] += vectors.cpu() / num_looks
    seen = num_seen == num_looks
    logits = sums if num_looks == 1 else (sums / num_looks).clamp_min(torch.finfo(torch.float32).tiny).log()
    rows = rows[seen]
    return Outputs(
        rows=rows,
        paths=np.array([plan.index.relative_path(row) for row in rows.tolist()], dtype=np.bytes_),
        labels=plan.index.labels[rows],
        logits=logits.numpy()[seen],
        features=None if features is None else features.numpy()[seen],
    )


@torch.inference_mode()
def _answers(
    network: nn.Module, batches: Iterator[Batch], numbers: range, bar: Bar, orders: Orders | None = None
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
        if orders is not None:
            orders.agree().raise_if_stopped()


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


def total(counts: torch.Tensor, plan: EvaluationPlan, resolution: Resolution, world: World, started: float) -> Accuracy:
    """Sum what all processes have counted, and make sure that no picture is missing or counted twice.

    Args:
        counts: From `evaluate`.
        plan: This process', without the pictures that could not be read.
        resolution: What the result is labelled with.
        world: All processes.
        started: When the evaluation began, of ``time.perf_counter``.

    Raises:
        DataError: If no picture could be read.
        RuntimeError: If the pictures do not add up to the data set; that would be a defect of this program.
    """
    num_unreadable = plan.num_dealt - len(plan.rows)
    top1, top5, num_images, num_unreadable = world.sum(torch.cat([counts, torch.tensor([num_unreadable])])).tolist()
    if num_images + num_unreadable != plan.num_pictures:
        raise RuntimeError(f"tested {num_images} pictures and {num_unreadable} unreadable ones of {plan.num_pictures}")
    if num_images == 0:
        raise DataError(f"none of the {plan.num_pictures} test pictures of {plan.index.root} can be read")
    return Accuracy(resolution, top1, top5, num_images, num_unreadable, time.perf_counter() - started)
