"""An index of pictures that need not exist, for tests of plans."""

from pathlib import Path

import numpy as np

from dali_fixres.index import Index
from dali_fixres.index.table import make_index

__all__ = ["pictureless_index"]


def pictureless_index(num_train: int, num_val: int = 1) -> Index:
    """Lay out an index of three classes, with sizes by row number."""
    numbers = np.arange(num_train + num_val)
    columns = {
        "labels": numbers % 3,
        "heights": 300 + numbers * 7 % 200,
        "widths": 300 + numbers * 11 % 200,
        "num_bytes": numbers + 1000,
        "mtimes_ns": numbers,
    }
    paths = [b"%06d.jpg" % number for number in numbers]
    return make_index(Path("/data"), ("a", "b", "c"), paths, columns, numbers >= num_train)
