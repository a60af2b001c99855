"""The data set a command works on: the user's, or the demo made on the spot."""

from dataclasses import dataclass
from pathlib import Path

import torch

from dali_fixres.config import NetworkConfig
from dali_fixres.demo import ensure_demo_data
from dali_fixres.errors import DataError
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Bar, Reporter
from pipelines import Loader
from pipelines.dali.choose_decoder import Decode
from pipelines.dali.fused.machine_code import is_kept
from pipelines.dataset import TRAIN, VAL, Dataset, LeftOut, open_dataset
from pipelines.plan.colour import Normalisation
from pipelines.plan.crops import Ints

__all__ = ["NUM_NAMED", "SYNTHETIC", "Data", "advice_on_memory", "announce_compiling", "open_data", "open_loader"]

SYNTHETIC = "synthetic demo data"
"""What tables and plots call the demo."""

NUM_NAMED = 5
"""Unreadable files that warnings name; the run folder lists all."""

NUM_DECODED = 3
"""Batches of whole images that a GPU holds at the same time: two made ahead, and the one that is being resized."""


@dataclass(frozen=True, slots=True)
class Data:
    """A data set, and its name in reports.

    Attributes:
        dataset: The images.
        place: The folder or file that was given, or the demo's.
        synthetic: Whether it is the demo data set, whose figures say nothing about real images.
    """

    dataset: Dataset
    place: Path
    synthetic: bool

    @property
    def title(self) -> str:
        """Name for tables and plots."""
        return SYNTHETIC if self.synthetic else str(self.place)


def open_data(data: Path | None, val_fraction: float | None, reporter: Reporter, world: World | None = None) -> Data:
    """Open a data set, or make the demo's, with progress, a summary line and warnings.

    Of several processes on a node the first does the work, and the others find it in the cache.

    Raises:
        DataError: If the data set cannot be used.
    """
    folder = data
    with (world or World()).local_main_first():
        if folder is None:
            with reporter.bar("making the synthetic demo data", total=1) as bar:
                folder = _demo_data(bar)
        with reporter.bar("reading image sizes", total=1) as bar:
            dataset = open_dataset(folder, val_fraction=val_fraction, on_progress=bar.update_of)
    what = f"{SYNTHETIC} in {folder}" if data is None else f"{folder}"
    reporter.line(
        f"data: {what}: {len(dataset.rows(TRAIN))} training and {len(dataset.rows(VAL))} test images of "
        f"{len(dataset.classes)} classes, fingerprint {dataset.fingerprint[:12]}"
    )
    _warn_untested(dataset, reporter)
    _warn_left_out(dataset.left_out, reporter)
    if world is not None and len(set(world.gather(dataset.fingerprint))) > 1:
        raise DataError(f"the processes do not all see the same images in {folder}; give them the same data set")
    return Data(dataset, folder, synthetic=data is None)


def _demo_data(bar: Bar) -> Path:
    try:
        return ensure_demo_data(on_progress=bar.update_of)
    except OSError as error:
        raise DataError(str(error)) from error


def open_loader(
    config: NetworkConfig,
    data: Data,
    normalisation: Normalisation,
    device: torch.device,
    world: World,
    reporter: Reporter,
    max_batch_size: int | None = None,
) -> Loader:
    """Build the one loader of a command.

    With ``--decode auto`` and a GPU, the first process of each node times both decoders and the others read its answer
    in the cache; then all processes use the first one's.
    """
    dataset, batch_size = data.dataset, max_batch_size or config.batch_size
    if device.type == "cpu":
        announce_compiling(reporter)

    def build(decode: Decode) -> Loader:
        return Loader(
            dataset,
            max_batch_size=batch_size,
            device=device,
            num_threads=config.workers,
            normalisation=normalisation,
            decode=decode,
            warn=reporter.warn,
        )

    with world.local_main_first():
        loader = build(config.decode)
    decoder = world.gather(loader.decode)[0]
    if loader.decode != decoder:  # nodes may differ in cores and caches, images may not
        loader.close()
        loader = build(decoder)
    if device.type == "cuda":
        reporter.line(f"images are decoded {'by the GPU' if loader.decode == 'gpu' else 'by CPU threads'}")
    if loader.decode == "gpu" and not dataset.copies:  # where there are any, plans read the small ones
        memory = torch.cuda.get_device_properties(device).total_memory
        if advice := advice_on_memory(dataset.heights, dataset.widths, batch_size, memory):
            reporter.warn(advice)
    return loader


def announce_compiling(reporter: Reporter) -> None:
    """Say why the first loader on a CPU takes longer, if it does."""
    if not is_kept():
        reporter.line("compiling the operator that makes crops, for this processor: this takes a few seconds")


def advice_on_memory(heights: Ints, widths: Ints, batch_size: int, memory: int) -> str:
    """Return advice if whole images take more than a quarter of a GPU's memory, or else an empty string.

    Args:
        heights: Of the images in pixels, (n,).
        widths: Likewise.
        batch_size: Images per batch.
        memory: The GPU's memory in bytes.
    """
    needed = float((heights * widths).mean()) * 3 * batch_size * NUM_DECODED
    if needed <= memory / 4:
        return ""
    return (
        f"{NUM_DECODED} batches of whole images take about {needed / 2**30:.1f} of the GPU's "
        f"{memory / 2**30:.1f} GiB; take --decode cpu, or write smaller copies with `dali-fixres prepare`"
    )


def _warn_untested(dataset: Dataset, reporter: Reporter) -> None:
    """Warn of classes without test images: no accuracy says anything about them."""
    tested = set(dataset.labels[dataset.rows(VAL)].tolist())
    untested = [name for label, name in enumerate(dataset.classes) if label not in tested]
    if tested and untested:
        more = " …" if len(untested) > NUM_NAMED else ""
        reporter.warn(f"{len(untested)} class(es) have no test images: {', '.join(untested[:NUM_NAMED])}{more}")


def _warn_left_out(left_out: tuple[LeftOut, ...], reporter: Reporter) -> None:
    if not left_out:
        return
    more = len(left_out) - NUM_NAMED
    named = "".join(f"\n  {item.path}: {item.reason}" for item in left_out[:NUM_NAMED])
    rest = f"\n  and {more} more, see `dali-fixres index`" if more > 0 else ""
    reporter.warn(f"{len(left_out)} file(s) are not readable images and are left out:{named}{rest}")
