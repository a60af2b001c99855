"""Which images exist: listed, measured from their headers, cached and fingerprinted."""

from pipelines.dataset.headers import FORMATS, NOT_AN_IMAGE
from pipelines.dataset.open import open_dataset
from pipelines.dataset.table import ORIGINAL, TRAIN, VAL, Dataset, LeftOut, ResizedCopies

__all__ = [
    "FORMATS",
    "NOT_AN_IMAGE",
    "ORIGINAL",
    "TRAIN",
    "VAL",
    "Dataset",
    "LeftOut",
    "ResizedCopies",
    "open_dataset",
]
