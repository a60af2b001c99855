"""The evaluation loop: every picture once over all processes, right answers counted as integers on the device."""

import time
from collections.abc import Iterator

import torch
from torch import nn

from dali_fixres.batch import Batch
from dali_fixres.distributed import World
from dali_fixres.errors import DataError
from dali_fixres.interruption import Orders
from dali_fixres.metrics import Accuracy, count_correct
from dali_fixres.plan import EvaluationPlan
from dali_fixres.precision import forward_precision
from dali_fixres.report.progress import Bar
from dali_fixres.resolution import Resolution

__all__ = ["evaluate", "total"]


@torch.inference_mode()
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
    network.eval()
    counts = torch.zeros(3, dtype=torch.int64)
    for number in range(1, num_rounds + 1):
        batch = next(batches, None)
        if batch is not None:
            with forward_precision(batch.images.device):
                logits = network(batch.images)
            num_images = torch.full((1,), len(batch), device=logits.device)  # a copy from the host would wait
            counts = counts.to(logits.device) + torch.cat([count_correct(logits, batch.labels), num_images])
        bar.update(number)
        if orders is not None:
            orders.agree().raise_if_stopped()
    return counts.cpu()


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
