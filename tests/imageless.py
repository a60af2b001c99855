"""A data set of images that need not exist, for tests of plans."""

from pathlib import Path

import numpy as np

from pipelines.dataset import Dataset
from pipelines.dataset.table import make_dataset

__all__ = ["imageless_dataset"]


def imageless_dataset(num_train: int, num_val: int = 1) -> Dataset:
    """Lay out a data set of three classes, with sizes by row number."""
    numbers = np.arange(num_train + num_val)
    columns = {
        "labels": numbers % 3,
        "heights": 300 + numbers * 7 % 200,
        "widths": 300 + numbers * 11 % 200,
        "num_bytes": numbers + 1000,
    }
    paths = [b"%06d.jpg" % number for number in numbers]
    return make_dataset(Path("/data"), ("a", "b", "c"), paths, columns, numbers >= num_train)
