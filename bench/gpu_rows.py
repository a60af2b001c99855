"""Rows that a part of `gpu_check.py` finds one by one, kept as they come: a part that was ended goes on after them."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

__all__ = ["Row", "Rows", "rows_in"]

MOST_TRIES = 2
"""Of a setting that ends its process: then that is what has been found."""

SPARE = 1.5
"""A setting is begun if this many times the longest one so far still fits the time."""

S = TypeVar("S")

Row = dict[str, Any]


class Mapped(Protocol):
    """What applies a function to many things: ``map``, or the same of a pool."""

    def __call__(self, function: Callable[[S], None], things: Iterable[S], /) -> Iterator[None]:
        """Return an iterator over the results."""


class Rows:
    """The rows of a part.

    Args:
        path: Where they are kept: a line of JSON for each, and one before it that says what is begun.
        ends: When the part is ended, of ``time.monotonic``, which all processes of a machine share.
    """

    def __init__(self, path: Path, ends: float) -> None:
        self._path = path
        self._ends = ends
        self._longest_s = 0.0

    def fill(self, settings: Sequence[Any], measure: Callable[[Any], Row], mapped: Mapped = map) -> Row:
        """Measure the settings that have no row yet, as many as the time allows.

        Args:
            settings: Dataclasses; what matters most comes first.
            measure: Returns what a setting's row has beside the setting.
            mapped: ``map``, or the same of a pool, where settings may be measured at the same time.

        Returns:
            All rows (``results``), and the settings that have none (``left_out``).
        """
        for _ in mapped(lambda setting: self._attempt(setting, measure), self._left(settings)):
            pass
        return {"results": rows_in(self._path), "left_out": [asdict(setting) for setting in self._left(settings)]}

    def _attempt(self, setting: Any, measure: Callable[[Any], Row]) -> None:
        started = time.monotonic()
        if started + SPARE * self._longest_s > self._ends:
            return
        begun = {"begun": asdict(setting)}
        if _lines(self._path).count(begun) >= MOST_TRIES:
            self._append({**asdict(setting), "problem": f"has ended its process {MOST_TRIES} times"})
            return
        self._append(begun)
        self._append({**asdict(setting), **measure(setting)})
        self._longest_s = max(self._longest_s, time.monotonic() - started)

    def _left(self, settings: Sequence[Any]) -> list[Any]:
        rows = rows_in(self._path)
        return [one for one in settings if not any(_is_part(asdict(one), row) for row in rows)]

    def _append(self, line: Row) -> None:
        # One write: a process that is killed leaves the line or nothing.
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _is_part(setting: Row, row: Row) -> bool:
    return all(name in row and row[name] == value for name, value in setting.items())


def rows_in(path: Path) -> list[Row]:
    """Return the rows that are kept in a file, or none if there is no file."""
    return [line for line in _lines(path) if "begun" not in line]


def _lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
