"""Testing: every image once over all processes, correct predictions counted as integers on the device."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from dali_fixres.config import Precision
from dali_fixres.errors import DataError
from dali_fixres.evaluation.forward import ForwardPass
from dali_fixres.evaluation.metrics import Accuracy, count_correct
from dali_fixres.evaluation.predictions import Outputs
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Bar, Reporter
from dali_fixres.runtime.signals import StopSignals
from pipelines import Batch, EvalPlan, ReadableBatches, Resolution

__all__ = ["Evaluator", "collect", "count_answers", "total"]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluator:
    """Tests a network on the test images at any resolution.

    Attributes:
        network: On its device.
        batches: Where the images come from.
        plan: Of this process.
        world: All processes.
        reporter: Shows progress.
        signals: May ask to stop; None where signals end the process.
        precision: What the network runs in.
    """

    network: nn.Module
    batches: ReadableBatches
    plan: EvalPlan
    world: World
    reporter: Reporter
    signals: StopSignals | None = None
    precision: Precision = "fp32"

    def at(self, resolution: Resolution, label: str = "") -> Accuracy:
        """Test at a resolution, under a label for the progress bar.

        Raises:
            Interrupted: If a signal asks to stop.
            DataError: If no test image can be read.
        """
        started, rounds = time.perf_counter(), self.plan.num_rounds
        with self.reporter.bar(label or f"testing at {resolution.crop_px} px", rounds) as bar:
            counts = count_answers(self.forward(rounds, bar), self.batches.evaluation(self.plan, resolution))
        return self.total(counts, resolution, started)

    def forward(self, num_rounds: int, bar: Bar) -> ForwardPass:
        """Return what runs the network over this process' batches, at most `num_rounds` in one pass."""
        return ForwardPass(self.network, num_rounds, bar, self.signals, self.precision)

    def total(self, counts: torch.Tensor, resolution: Resolution, started: float) -> Accuracy:
        """Sum what all processes have counted, without the images that could not be read."""
        readable = replace(self.plan, unreadable=self.batches.skipped.rows)
        return total(counts, readable, resolution, self.world, started)


def count_answers(forward: ForwardPass, batches: Iterator[Batch]) -> torch.Tensor:
    """Count correct predictions over this process' batches.

    Returns:
        Images correct in the first and in the first five predictions, and all images, (3,) int64.

    Raises:
        Interrupted: If a signal asks to stop.
    """
    counts = torch.zeros(3, dtype=torch.int64)
    for batch, logits in forward.over(batches):
        num_images = torch.full((1,), len(batch), device=logits.device)  # a copy from the host would wait
        counts = counts.to(logits.device) + torch.cat([count_correct(logits, batch.labels), num_images])
    return counts.cpu()


def collect(
    forward: ForwardPass,
    views: Sequence[Iterator[Batch]],
    plan: EvalPlan,
    num_outputs: int,
    classifier: nn.Module | None,
) -> Outputs:
    """Keep a network's outputs for this process' images; the probabilities of several views of an image are averaged.

    Args:
        forward: Runs the network.
        views: The batches of each view, the same images every time.
        plan: Of this process.
        num_outputs: Of the network.
        classifier: The part of it whose input is kept, too; None to keep none.

    Returns:
        Those of the images that could be read in every view.

    Raises:
        Interrupted: If a signal asks to stop.
    """
    rows, num_views = plan.rows, len(views)
    sums = torch.zeros(len(rows), num_outputs)
    features: torch.Tensor | None = None
    num_seen = np.zeros(len(rows), dtype=np.int64)
    with _inputs_of(classifier) as caught:
        for batches in views:
            for batch, logits in forward.over(batches):
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
        counts: From `count_answers`.
        plan: This process', without the images that could not be read.
        resolution: What the result is labelled with.
        world: All processes.
        started: When the evaluation began, of ``time.perf_counter``.

    Raises:
        DataError: If no image could be read.
        RuntimeError: If the images do not add up to the data set; that would be a defect of this program.
    """
    num_unreadable = plan.num_assigned - len(plan.rows)
    top1, top5, num_images, num_unreadable = world.sum(torch.cat([counts, torch.tensor([num_unreadable])])).tolist()
    if num_images + num_unreadable != plan.num_images:
        raise RuntimeError(f"tested {num_images} images and {num_unreadable} unreadable ones of {plan.num_images}")
    if num_images == 0:
        raise DataError(f"none of the {plan.num_images} test images of {plan.dataset.root} can be read")
    return Accuracy(resolution, top1, top5, num_images, num_unreadable, time.perf_counter() - started)
