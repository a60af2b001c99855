"""Images that a command has found unreadable: kept out of its plans, named, and listed in a file."""

import os
from collections.abc import Mapping
from pathlib import Path

from dali_fixres.errors import DataError, UnreadableError
from dali_fixres.runtime.data import NUM_NAMED, Data
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from pipelines.storage.files import append_text, write_text

__all__ = ["Unreadable"]


class Unreadable:
    """What is wrong with which row of the data set, so far.

    Args:
        data: The data.
        known: What is known from before.
        strict: Whether to stop at the first one instead.
        reporter: Told of the first few.
        listed_in: Where each is listed, after the files that were left out of the index; None to write nothing.
    """

    def __init__(
        self, data: Data, known: Mapping[int, str], *, strict: bool, reporter: Reporter, listed_in: Path | None
    ) -> None:
        self._data = data
        self._strict = strict
        self._reporter = reporter
        self._listed_in = listed_in
        self.reasons = dict(known)
        self.rows = frozenset(known)
        if strict and data.dataset.left_out:
            first = data.dataset.left_out[0]
            raise DataError(f"cannot decode {first.path}: {first.reason}; mend or remove it, or leave --strict out")
        if listed_in is not None and (known or data.dataset.left_out):
            write_text(listed_in, "".join(f"{line}\n" for line in self.lines()), errors="surrogateescape")

    def found(self, error: UnreadableError) -> None:
        """Take note of images that could not be read.

        Raises:
            UnreadableError: If the command is to stop at the first.
            DataError: If it is not the images but the whole data set that has gone.
        """
        if self._strict:
            raise UnreadableError(error.images, "; mend it, or leave --strict out to go on without it")
        _check_still_there(self._data.dataset.root)
        self._add({row: reason for row, (_, reason) in error.images.items()})
        if 2 * len(self.rows) > len(self._data.dataset):
            raise DataError(
                f"{len(self.rows)} of the {len(self._data.dataset)} images of {self._data.dataset.root} cannot be "
                "read; is all of it still mounted?"
            )

    def share(self, world: World) -> bool:
        """Tell all processes what each has found; return whether that is more than this one knew."""
        before = len(self.rows)
        for reasons in world.gather(self.reasons):
            self._add(reasons)
        return len(self.rows) > before

    def summarise(self) -> None:
        """Say how many there are, if there are any."""
        if self.rows:
            where = f", listed in {self._listed_in}" if self._listed_in else ""
            self._reporter.warn(f"{len(self.rows)} images could not be read and were passed over{where}")

    def lines(self) -> list[str]:
        """Return a line for each file that cannot be read."""
        dataset = self._data.dataset
        reasons = {item.path: item.reason for item in self._data.dataset.left_out}
        reasons |= {dataset.path(row): reason for row, reason in sorted(self.reasons.items())}
        return [f"{path}: {reason}" for path, reason in reasons.items()]

    def _add(self, reasons: Mapping[int, str]) -> None:
        new = {row: reason for row, reason in reasons.items() if row not in self.rows}
        if not new:
            return
        for row in list(new)[: max(0, NUM_NAMED - len(self.reasons))]:
            self._reporter.warn(f"cannot decode {self._data.dataset.path(row)}: {new[row]}; going on without it")
        if len(self.reasons) <= NUM_NAMED < len(self.reasons) + len(new):
            where = f" in {self._listed_in}" if self._listed_in else ""
            self._reporter.warn(f"further images that cannot be decoded are only listed{where}")
        self.reasons |= new
        self.rows = self.rows.union(new)
        if self._listed_in is not None:
            lines = (f"{self._data.dataset.path(row)}: {reason}\n" for row, reason in new.items())
            append_text(self._listed_in, "".join(lines), errors="surrogateescape")


def _check_still_there(root: Path) -> None:
    """Stop where passing over single images would lose the data set one by one."""
    try:
        with os.scandir(root) as entries:
            empty = next(entries, None) is None
    except OSError as error:
        raise DataError(f"cannot list {root} any more: {error.strerror}; is it still mounted?") from error
    if empty:
        raise DataError(f"{root} has become empty; is it still mounted?")
