"""Signals that ask a run to stop, and the agreement of all its processes on when they do what."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch

from dali_fixres.errors import Interrupted
from dali_fixres.runtime.distributed import Maximum, World

__all__ = ["Agreement", "StopSignals", "obeying_signals"]

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""What schedulers send before they take a machine away, and Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What all processes do now.

    Attributes:
        stop: Whether to end the run; the number of the signal, or 0.
        save: Whether to write a checkpoint.
    """

    stop: int
    save: bool

    @property
    def signal_name(self) -> str:
        """Name of the signal that asks to stop."""
        return signal.Signals(self.stop).name

    def raise_if_stopped(self) -> None:
        """Raise `Interrupted` with the signal's name if the run is to end."""
        if self.stop:
            raise Interrupted(self.signal_name)


class StopSignals:
    """What signals and clock ask for, put to all processes step by step.

    Each process has to ask at the same points. The maximum over all of them takes a while, so several processes get
    the answer of the point before: no step waits for it.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked: Maximum | None = None
        self.received = 0

    def agree(self, *, save: bool = False) -> Agreement:
        """Tell the others what this process wants, and return what all of them do now.

        Args:
            save: Whether this process thinks a checkpoint is due.
        """
        asked = self._world.largest(torch.tensor([self.received, int(save)]))
        answer = asked if self._world.size == 1 else self._asked
        self._asked = asked
        if answer is None:
            return Agreement(stop=0, save=False)
        stop, due = answer.wait().tolist()
        return Agreement(stop, bool(due))


@contextmanager
def obeying_signals(world: World, outer: StopSignals | None = None) -> Iterator[StopSignals]:
    """Note signals instead of dying of them. A second Ctrl-C ends the process as usual, unless torchrun sent it.

    Args:
        world: All processes.
        outer: Orders that note signals already, of what this is a part of; they are yielded.
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
