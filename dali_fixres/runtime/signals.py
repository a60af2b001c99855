"""Signals that ask a run to stop, and how all ranks act on them at the same step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch

from dali_fixres.errors import Interrupted
from dali_fixres.runtime.distributed import PendingMax, World

__all__ = ["Agreement", "StopSignals", "obeying_signals"]

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""What schedulers send before they take a machine away, and Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What all ranks do now.

    Attributes:
        stop: Number of the signal that ends the run, or 0.
        save: Whether to write a checkpoint.
    """

    stop: int
    save: bool

    @property
    def signal_name(self) -> str:
        """Name of the signal that ends the run."""
        return signal.Signals(self.stop).name

    def raise_if_stopped(self) -> None:
        """Raise `Interrupted` with the signal's name if the run is to end."""
        if self.stop:
            raise Interrupted(self.signal_name)


class StopSignals:
    """Signals received and checkpoints due, compared over all ranks at every step.

    All ranks must call `poll` at the same points. With several ranks the answer is that of the call before, so that
    no step waits for the other ranks.

    A SIGTERM that torchrun sends because another rank has failed does not lead to a checkpoint: `poll` needs that
    rank, fails, and the process ends.

    Attributes:
        received: Number of the last signal this process received, or 0.
    """

    def __init__(self, world: World) -> None:
        self.received = 0
        self._world = world
        self._pending: PendingMax | None = None

    def poll(self, *, save: bool = False) -> Agreement:
        """Post this rank's request, and return what all ranks do now.

        Args:
            save: Whether this rank asks for a checkpoint.
        """
        posted = self._world.start_max(torch.tensor([self.received, int(save)]))
        answer, self._pending = (posted if self._world.size == 1 else self._pending), posted
        if answer is None:
            return Agreement(stop=0, save=False)
        stop, due = answer.wait().tolist()
        return Agreement(stop, bool(due))


@contextmanager
def obeying_signals(world: World, outer: StopSignals | None = None) -> Iterator[StopSignals]:
    """Note signals instead of ending at once.

    A second Ctrl-C ends a single process as usual; torchrun, and not the user, may be the one who sends it to several.

    Args:
        world: All ranks.
        outer: Yielded instead, if signals are noted already.
    """
    if outer is not None:
        yield outer
        return
    stop_signals = StopSignals(world)

    def note(number: int, _frame: FrameType | None) -> None:
        stop_signals.received = number
        if world.size == 1 and number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield stop_signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
