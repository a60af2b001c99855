"""`dali-fixres index`: what is in a data set, and what is not usable in it."""

import time
from typing import Any

import numpy as np
from rich.table import Table

from dali_fixres.commands.dataset import open_dataset
from dali_fixres.config import IndexConfig
from dali_fixres.index import TRAIN, VAL
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import print_table
from dali_fixres.runs import write_json

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
    dataset = open_dataset(config.data, val_fraction, reporter)
    table = Table()
    for heading in ("split", "pictures", "classes", "median height x width, px", "mean kB"):
        table.add_column(heading, justify="right")
    splits: dict[str, Any] = {}
    for split in (TRAIN, VAL):
        rows = dataset.index.rows(split)
        if len(rows) == 0:
            continue
        height, width = (int(np.median(column[rows])) for column in (dataset.index.heights, dataset.index.widths))
        mean_kb = float(dataset.index.num_bytes[rows].mean()) / 1000
        num_classes = len(np.unique(dataset.index.labels[rows]))
        table.add_row(split, str(len(rows)), str(num_classes), f"{height} x {width}", f"{mean_kb:.1f}")
        splits[split] = {"num_images": len(rows), "num_classes": num_classes, "mean_kb": round(mean_kb, 2)}
    print_table(dataset.title, table)
    copies = [
        {"side_px": rung.side_px, "num_images": int((rung.heights > 0).sum()), "megabytes": rung.num_bytes.sum() / 1e6}
        for rung in dataset.index.rungs
    ]
    for copy in copies:
        print(f"copies of {copy['side_px']} px: {copy['num_images']} pictures, {copy['megabytes']:.1f} MB")  # noqa: T201
    for item in dataset.left_out:
        print(f"left out: {item.path}: {item.reason}")  # noqa: T201 - the command's result
    if config.data is not None and config.val_fraction is None and len(splits) == 1:
        reporter.line("nothing says what to train and what to test on: shown as one split; --val-fraction divides it")
    seconds = time.perf_counter() - started
    reporter.line(f"indexed in {seconds:.1f} s")
    if config.json is not None:
        content = {
            "splits": splits,
            "copies": copies,
            "classes": list(dataset.index.classes),
            "left_out": [{"path": str(item.path), "reason": item.reason} for item in dataset.left_out],
            "fingerprint": dataset.index.fingerprint,
            "synthetic": dataset.synthetic,
            "seconds": round(seconds, 3),
        }
        write_json(config.json, content)
