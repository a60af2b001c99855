"""The evaluation loop: every picture once, right answers counted as integers on the device."""

import time
from collections.abc import Iterable

import torch
from torch import nn

from dali_fixres.batch import Batch
from dali_fixres.metrics import Accuracy, count_correct
from dali_fixres.precision import forward_precision
from dali_fixres.report.progress import Bar
from dali_fixres.resolution import Resolution

__all__ = ["evaluate"]


@torch.inference_mode()
def evaluate(network: nn.Module, batches: Iterable[Batch], resolution: Resolution, bar: Bar) -> Accuracy:
    """Count right answers over all of `batches`, with the network in evaluation mode.

    Args:
        network: Left in evaluation mode.
        batches: All at `resolution`; each picture once.
        resolution: What the result is labelled with.
        bar: Shows how many batches are done.
    """
    network.eval()
    started = time.perf_counter()
    correct = torch.zeros(2, dtype=torch.int64)
    num_images = 0
    for number, batch in enumerate(batches, start=1):
        with forward_precision(batch.images.device):
            logits = network(batch.images)
        correct = correct.to(logits.device) + count_correct(logits, batch.labels)
        num_images += len(batch)
        bar.update(number)
    top1, top5 = correct.tolist()
    return Accuracy(resolution, top1, top5, num_images, time.perf_counter() - started)
