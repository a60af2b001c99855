"""`dali-fixres index`: what is in a data set, and what is not usable in it."""

import time
from typing import Any

import numpy as np
from rich.table import Table

from dali_fixres.config import IndexConfig
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.data import open_data
from dali_fixres.runtime.progress import Reporter
from pipelines.dataset import TRAIN, VAL
from pipelines.storage.files import write_json

__all__ = ["index"]


def index(config: IndexConfig) -> None:
    """Index a data set, show its sizes by split, and name every file that is left out.

    Raises:
        DataError: If the data set cannot be used.
    """
    started = time.perf_counter()
    reporter = Reporter()
    # A tree without a split is indexed whole, as one split: this command only looks.
    val_fraction = config.val_fraction or (1.0 if config.data is not None else None)
    data = open_data(config.data, val_fraction, reporter)
    table = Table()
    for heading in ("split", "images", "classes", "median height x width, px", "mean kB"):
        table.add_column(heading, justify="right")
    splits: dict[str, Any] = {}
    for split in (TRAIN, VAL):
        rows = data.dataset.rows(split)
        if len(rows) == 0:
            continue
        height, width = (int(np.median(column[rows])) for column in (data.dataset.heights, data.dataset.widths))
        mean_kb = float(data.dataset.num_bytes[rows].mean()) / 1000
        num_classes = len(np.unique(data.dataset.labels[rows]))
        table.add_row(split, str(len(rows)), str(num_classes), f"{height} x {width}", f"{mean_kb:.1f}")
        splits[split] = {"num_images": len(rows), "num_classes": num_classes, "mean_kb": round(mean_kb, 2)}
    print_table(data.title, table)
    copies = [
        {"side_px": copy.side_px, "num_images": int((copy.heights > 0).sum()), "megabytes": copy.num_bytes.sum() / 1e6}
        for copy in data.dataset.copies
    ]
    for copy in copies:
        print(f"copies of {copy['side_px']} px: {copy['num_images']} images, {copy['megabytes']:.1f} MB")  # noqa: T201
    for item in data.dataset.left_out:
        print(f"left out: {item.path}: {item.reason}")  # noqa: T201 - the command's result
    if config.data is not None and config.val_fraction is None and len(splits) == 1:
        reporter.line("nothing says what to train and what to test on: shown as one split; --val-fraction divides it")
    seconds = time.perf_counter() - started
    reporter.line(f"indexed in {seconds:.1f} s")
    if config.json is not None:
        content = {
            "splits": splits,
            "copies": copies,
            "classes": list(data.dataset.classes),
            "left_out": [{"path": str(item.path), "reason": item.reason} for item in data.dataset.left_out],
            "fingerprint": data.dataset.fingerprint,
            "synthetic": data.synthetic,
            "seconds": round(seconds, 3),
        }
        write_json(config.json, content)
