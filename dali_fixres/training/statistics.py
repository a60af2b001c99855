"""Statistics of an epoch: loss, images, time and time spent waiting, summed without making the host wait."""

import math
import time
from collections.abc import Iterable, Iterator

import torch

from dali_fixres.checkpoints import EpochStatistics
from dali_fixres.errors import TrainingDivergedError
from dali_fixres.runtime.progress import Bar
from pipelines import Batch

__all__ = ["EpochMeter"]

FETCH_EVERY_S = 1.0
"""Seconds between fetches of the loss: each makes the host wait for the device."""


class EpochMeter:
    """Sums up an epoch while it runs: losses stay on the device between fetches.

    Args:
        bar: Shows loss, throughput and waiting.
        before: The epoch's sums before it was resumed.
    """

    def __init__(self, bar: Bar, before: EpochStatistics) -> None:
        self._bar = bar
        self._before = before
        self._loss_sum = before.loss_sum  # summed in the order of the steps, resumed or not
        self._bad_step: int | None = None
        self._on_device: list[tuple[torch.Tensor, int, int]] = []
        self._num_images = 0
        self._num_steps = 0
        self._waited_s = 0.0
        self._started = self._fetched = time.perf_counter()

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on, measuring how long each was waited for."""
        source = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(source, None)
            self._waited_s += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def add(self, loss: torch.Tensor, num_images: int, step: int) -> None:
        """Count a step, `step` of the run (from 1), with the mean loss of its images."""
        self._on_device.append((loss, num_images, step))
        self._num_images += num_images
        self._num_steps += 1
        if time.perf_counter() - self._fetched >= FETCH_EVERY_S:
            self._bar.update(self._num_steps, str(self.statistics()))
            self._fetched = time.perf_counter()

    def statistics(self) -> EpochStatistics:
        """Return the sums so far; makes the host wait for the device.

        Raises:
            TrainingDivergedError: If a loss was not finite; the message names the step.
        """
        self._check_finite()
        before = self._before
        return EpochStatistics(
            loss_sum=self._loss_sum,
            num_images=before.num_images + self._num_images,
            seconds=before.seconds + time.perf_counter() - self._started,
            waited_s=before.waited_s + self._waited_s,
        )

    def _check_finite(self) -> None:
        """Fetch the losses since the last time, all at once."""
        if self._on_device:
            values = torch.stack([loss for loss, _, _ in self._on_device]).tolist()
            for value, (_, num_images, step) in zip(values, self._on_device, strict=True):
                self._loss_sum += value * num_images
                if self._bad_step is None and not math.isfinite(value):
                    self._bad_step = step
            self._on_device.clear()
        if self._bad_step is not None:
            raise TrainingDivergedError(
                f"the loss is not finite at step {self._bad_step}; the last good checkpoint is kept; lower --lr, or "
                "limit the gradient with --clip-grad 1"
            )
