"""`dali-fixres index`: what is in a data set, and what of it cannot be used."""

import time

import numpy as np
from rich.table import Table

from dali_fixres.config import IndexConfig
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.data import open_data
from dali_fixres.runtime.json_files import Copies, IndexFile, Split
from dali_fixres.runtime.progress import Reporter
from pipelines.dataset import TRAIN, VAL, Dataset
from pipelines.storage.files import write_json

__all__ = ["index"]


def index(config: IndexConfig) -> None:
    """Show the images and sizes of a data set by split, its resized copies, and every file that is left out.

    Raises:
        DataError: If the data set cannot be used.
    """
    started = time.perf_counter()
    reporter = Reporter()
    # Without a split all images are shown as one: here none has to be drawn.
    val_fraction = config.val_fraction or (1.0 if config.data is not None else None)
    data = open_data(config.data, val_fraction, reporter)
    dataset = data.dataset
    splits = [split for split in (TRAIN, VAL) if len(dataset.span(split))]
    print_table(data.title, _table(dataset, splits))
    copies: list[Copies] = [
        {"side_px": copy.side_px, "num_images": int((copy.heights > 0).sum()), "megabytes": copy.num_bytes.sum() / 1e6}
        for copy in dataset.copies
    ]
    for copy in copies:
        print(f"copies of {copy['side_px']} px: {copy['num_images']} images, {copy['megabytes']:.1f} MB")  # noqa: T201
    for item in dataset.left_out:
        print(f"left out: {item.path}: {item.reason}")  # noqa: T201 - the command's result
    if config.data is not None and config.val_fraction is None and len(splits) == 1:
        reporter.line("the data set has no split and is shown as one; give --val-fraction to draw one")
    seconds = time.perf_counter() - started
    reporter.line(f"indexed in {seconds:.1f} s")
    if config.json is not None:
        content: IndexFile = {
            "splits": {split: _figures(dataset, split) for split in splits},
            "copies": copies,
            "classes": list(dataset.classes),
            "left_out": [{"path": str(item.path), "reason": item.reason} for item in dataset.left_out],
            "fingerprint": dataset.fingerprint,
            "synthetic": data.synthetic,
            "seconds": round(seconds, 3),
        }
        write_json(config.json, content)


def _table(dataset: Dataset, splits: list[str]) -> Table:
    table = Table()
    for heading in ("split", "images", "classes", "median height x width, px", "mean kB"):
        table.add_column(heading, justify="right")
    for split in splits:
        rows, figures = dataset.rows(split), _figures(dataset, split)
        height, width = (int(np.median(column[rows])) for column in (dataset.heights, dataset.widths))
        counts = (str(figures["num_images"]), str(figures["num_classes"]))
        table.add_row(split, *counts, f"{height} x {width}", f"{figures['mean_kb']:.1f}")
    return table


def _figures(dataset: Dataset, split: str) -> Split:
    rows = dataset.rows(split)
    return {
        "num_images": len(rows),
        "num_classes": len(np.unique(dataset.labels[rows])),
        "mean_kb": round(float(dataset.num_bytes[rows].mean()) / 1000, 2),
    }
