"""A network run over batches without training: for its logits, or for what hooks see inside it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from dali_fixres.config import Precision
from dali_fixres.runtime.precision import run_network
from dali_fixres.runtime.progress import Bar
from dali_fixres.runtime.signals import StopSignals
from pipelines import Batch

__all__ = ["ForwardPass"]


@dataclass(slots=True)
class ForwardPass:
    """Runs a network in evaluation mode, with progress, for as many rounds in all processes.

    A process with fewer batches than rounds takes part in the rest without one, so that all poll signals equally often.

    Attributes:
        network: Left in evaluation mode.
        num_rounds: The most batches that any process has in one pass.
        bar: Shows the rounds done, of all passes together.
        signals: May ask to stop; None where signals end the process.
        precision: What it runs in.
    """

    network: nn.Module
    num_rounds: int
    bar: Bar
    signals: StopSignals | None = None
    precision: Precision = "fp32"
    _num_done: int = 0

    @torch.inference_mode()
    def over(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Yield this process' batches and the logits for each.

        Raises:
            Interrupted: If a signal asks to stop.
        """
        self.network.eval()
        for _ in range(self.num_rounds):
            batch = next(batches, None)
            if batch is not None:
                yield batch, run_network(self.network, batch.images, self.precision)
            self._num_done += 1
            self.bar.update(self._num_done)
            if self.signals is not None:
                self.signals.poll().raise_if_stopped()
