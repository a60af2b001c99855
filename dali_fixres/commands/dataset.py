"""The data set a command works on: the user's, or the demo made on the spot."""

from dataclasses import dataclass
from pathlib import Path

import torch

from dali_fixres.colour import Normalisation
from dali_fixres.commands.decoding import decoding_for
from dali_fixres.config import NetworkConfig
from dali_fixres.demo import ensure_demo_data
from dali_fixres.distributed import World
from dali_fixres.errors import DataError
from dali_fixres.index import TRAIN, VAL, Index, LeftOut, open_data
from dali_fixres.processes import loader_threads
from dali_fixres.report.progress import Bar, Reporter
from dali_fixres.report.tables import SYNTHETIC
from dali_fixres.windows import Ints
from pipelines import Loader

__all__ = ["NUM_NAMED", "Dataset", "advice_on_memory", "open_dataset", "open_loader"]

NUM_NAMED = 5
"""Unreadable files that warnings name; the run folder lists all."""

NUM_DECODED = 3
"""Batches of whole pictures that a GPU holds at once: those made ahead, and the one that is being resized."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """An index and how to speak of it.

    Attributes:
        index: The samples.
        left_out: Files that are no readable pictures.
        place: The folder or file that was given, or the demo's.
        synthetic: Whether it is the demo data set, whose figures say nothing about real pictures.
    """

    index: Index
    left_out: tuple[LeftOut, ...]
    place: Path
    synthetic: bool

    @property
    def title(self) -> str:
        """Name for tables and plots."""
        return SYNTHETIC if self.synthetic else str(self.place)


def open_dataset(
    data: Path | None, val_fraction: float | None, reporter: Reporter, world: World | None = None
) -> Dataset:
    """Index `data` (or make and index the demo), with progress, a summary line and warnings.

    Of several processes on a node the first does the work, and the others find it in the cache.

    Raises:
        DataError: If the data set cannot be used.
    """
    folder = data
    with (world or World()).one_by_one_on_a_node():
        if folder is None:
            with reporter.bar("making the synthetic demo data", total=1) as bar:
                folder = _demo_data(bar)
        with reporter.bar("reading picture sizes", total=1) as bar:
            opened = open_data(folder, val_fraction=val_fraction, on_progress=bar.update_of)
    index = opened.index
    what = f"{SYNTHETIC} in {folder}" if data is None else f"{folder}"
    reporter.line(
        f"data: {what}: {len(index.rows(TRAIN))} training and {len(index.rows(VAL))} test pictures of "
        f"{len(index.classes)} classes, fingerprint {index.fingerprint[:12]}"
    )
    _warn_left_out(opened.left_out, reporter)
    if world is not None and len(set(world.gather(index.fingerprint))) > 1:
        raise DataError(f"the processes do not all see the same pictures in {folder}; give them the same data set")
    return Dataset(index, opened.left_out, folder, synthetic=data is None)


def _demo_data(bar: Bar) -> Path:
    try:
        return ensure_demo_data(on_progress=bar.update_of)
    except OSError as error:
        raise DataError(str(error)) from error


def open_loader(
    config: NetworkConfig,
    dataset: Dataset,
    normalisation: Normalisation,
    device: torch.device,
    world: World,
    reporter: Reporter,
    max_batch_size: int | None = None,
) -> Loader:
    """Build the one loader of a command; a GPU that is met for the first time is tried first."""
    index, batch_size = dataset.index, max_batch_size or config.batch_size
    decoding = decoding_for(device, world, reporter)
    if device.type == "cuda" and not decoding.region and not index.rungs:  # of which plans read the small ones
        memory = torch.cuda.get_device_properties(device).total_memory
        if advice := advice_on_memory(index.heights, index.widths, batch_size, memory):
            reporter.warn(advice)
    return Loader(
        index,
        max_batch_size=batch_size,
        device=device,
        num_threads=config.workers or loader_threads(),
        normalisation=normalisation,
        decoding=decoding,
    )


def advice_on_memory(heights: Ints, widths: Ints, batch_size: int, memory: int) -> str:
    """Say what to do if whole pictures take more than a quarter of a GPU's memory, or return an empty string.

    Args:
        heights: Of the pictures, px, (n,).
        widths: Theirs.
        batch_size: Pictures.
        memory: Of the GPU, in bytes.
    """
    needed = float((heights * widths).mean()) * 3 * batch_size * NUM_DECODED
    if needed <= memory / 4:
        return ""
    return (
        f"this GPU decodes whole pictures, and {NUM_DECODED} batches of them take about {needed / 2**30:.1f} of its "
        f"{memory / 2**30:.1f} GiB; prepare smaller copies with `dali-fixres prepare`, or take a smaller --batch-size"
    )


def _warn_left_out(left_out: tuple[LeftOut, ...], reporter: Reporter) -> None:
    if not left_out:
        return
    more = len(left_out) - NUM_NAMED
    named = "".join(f"\n  {item.path}: {item.reason}" for item in left_out[:NUM_NAMED])
    rest = f"\n  and {more} more, see `dali-fixres index`" if more > 0 else ""
    reporter.warn(f"{len(left_out)} file(s) are no readable pictures and are left out:{named}{rest}")
