"""Images that a run skips because they cannot be read: warned of, and listed in the run folder."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from dali_fixres.config import NetworkConfig
from dali_fixres.errors import DataError
from dali_fixres.runtime.data import NUM_NAMED, Data, open_loader
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from pipelines import Dataset, Normalisation, ReadableBatches, SkippedImages
from pipelines.storage.files import append_text, write_text

__all__ = ["open_batches", "share_skipped", "unreadable_lines"]


def unreadable_lines(dataset: Dataset, reasons: Mapping[int, str]) -> list[str]:
    """Return a line for each file that cannot be read: those left out when the data set was opened, and later ones."""
    found = {item.path: item.reason for item in dataset.left_out}
    found |= {dataset.path(row): reason for row, reason in sorted(reasons.items())}
    return [f"{path}: {reason}" for path, reason in found.items()]


@contextmanager
def open_batches(
    config: NetworkConfig,
    data: Data,
    normalisation: Normalisation,
    device: torch.device,
    world: World,
    reporter: Reporter,
    *,
    max_batch_size: int | None = None,
    known: Mapping[int, str] | None = None,
    listed_in: Path | None = None,
) -> Iterator[ReadableBatches]:
    """Open the one loader of a command; images that cannot be read are warned of, skipped and listed.

    Args:
        config: Batch size, threads, decoder, and whether to stop at the first unreadable image.
        data: The data set.
        normalisation: Of the network.
        device: Where batches go.
        world: All processes.
        reporter: Shows warnings.
        max_batch_size: The largest batch, if that is not ``config.batch_size``.
        known: What is wrong with images that were skipped before, by row.
        listed_in: Where all are listed; None to write nothing.

    Raises:
        DataError: If ``config.strict`` and the data set has left files out.
    """
    report = _SkipReport(data.dataset, reporter, listed_in)
    skipped = report.start(known or {}, strict=config.strict)
    with open_loader(config, data, normalisation, device, world, reporter, max_batch_size) as loader:
        yield ReadableBatches(loader, skipped)
    report.summarise(skipped)


def share_skipped(skipped: SkippedImages, world: World) -> None:
    """Skip what other processes have found unreadable, too; all processes call it at the same point."""
    for reasons in world.gather(skipped.reasons):
        skipped.merge(reasons)


@dataclass(slots=True)
class _SkipReport:
    """Warns of images that are skipped, and lists them.

    Attributes:
        dataset: The data set.
        reporter: Shows the first few.
        listed_in: Lists all; None to write nothing.
    """

    dataset: Dataset
    reporter: Reporter
    listed_in: Path | None = None
    _num_seen: int = 0

    def start(self, known: Mapping[int, str], *, strict: bool) -> SkippedImages:
        """Begin with what is known from before; files left out of the data set are listed first.

        Raises:
            DataError: If `strict` and the data set has left files out.
        """
        if strict and self.dataset.left_out:
            first = self.dataset.left_out[0]
            raise DataError(f"cannot decode {first.path}: {first.reason}; repair or remove it, or leave --strict out")
        if self.listed_in is not None and (known or self.dataset.left_out):
            lines = unreadable_lines(self.dataset, known)
            write_text(self.listed_in, "".join(f"{line}\n" for line in lines), errors="surrogateescape")
        self._num_seen = len(known)
        return SkippedImages(self.dataset, known, strict=strict, on_found=self.note)

    def note(self, new: Mapping[int, str]) -> None:
        """Warn of images that are skipped from now on, and list them."""
        where = f" in {self.listed_in}" if self.listed_in else ""
        for row in list(new)[: max(0, NUM_NAMED - self._num_seen)]:
            self.reporter.warn(f"cannot decode {self.dataset.path(row)}: {new[row]}; continuing without it")
        if self._num_seen <= NUM_NAMED < self._num_seen + len(new):
            self.reporter.warn(f"further images that cannot be decoded are only listed{where}")
        self._num_seen += len(new)
        if self.listed_in is not None:
            lines = (f"{self.dataset.path(row)}: {reason}\n" for row, reason in new.items())
            append_text(self.listed_in, "".join(lines), errors="surrogateescape")

    def summarise(self, skipped: SkippedImages) -> None:
        """Say how many images were skipped, if any were."""
        if skipped.rows:
            where = f", listed in {self.listed_in}" if self.listed_in else ""
            self.reporter.warn(f"{len(skipped.rows)} images could not be read and were skipped{where}")
