"""Progress: live bars on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Bar", "Reporter"]

LINE_EVERY_S = 20.0
"""Seconds between lines where the output is not a terminal."""


@dataclass(slots=True)
class Bar:
    """The progress of one piece of work: an epoch, an evaluation, the reading of headers."""

    label: str
    total: int
    console: Console
    live: Progress | None
    started: float = field(default_factory=time.perf_counter)
    last_line: float = field(default_factory=time.perf_counter)

    def update_of(self, done: int, total: int) -> None:
        """Show progress where the total is known only at run time."""
        if total != self.total:
            self.total = total
            if self.live is not None:
                self.live.update(self.live.task_ids[0], total=total)
        self.update(done)

    def update(self, done: int, text: str = "") -> None:
        """Show progress and the latest figures."""
        if self.live is not None:
            self.live.update(self.live.task_ids[0], completed=done, text=text)
            return
        now = time.perf_counter()
        if now - self.last_line >= LINE_EVERY_S and done < self.total:
            left = (now - self.started) / max(done, 1) * (self.total - done)
            self.console.print(f"{self.label}  {done}/{self.total}  {text}  {left:.0f} s left", highlight=False)
            self.last_line = now


@dataclass(frozen=True, slots=True)
class Reporter:
    """Prints progress and messages on standard error; standard output is for results.

    Attributes:
        quiet: Whether to print nothing: of several processes only one reports.
    """

    quiet: bool = False
    console: Console = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "console", Console(stderr=True, soft_wrap=True, quiet=self.quiet))

    def line(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, highlight=False, markup=False)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.console.print(f"warning: {text}", style="yellow", highlight=False, markup=False)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Bar]:
        """Show the progress of `total` parts inside a ``with`` block."""
        if not self.console.is_terminal:
            yield Bar(label, total, self.console, live=None)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as live:
            live.add_task(label, total=total, text="")
            yield Bar(label, total, self.console, live)
