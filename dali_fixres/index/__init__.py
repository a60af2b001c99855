"""Which pictures exist: found, measured from their headers, cached and fingerprinted."""

from dali_fixres.index.build import LeftOut, OpenedData, open_data
from dali_fixres.index.table import TRAIN, VAL, Index

__all__ = ["TRAIN", "VAL", "Index", "LeftOut", "OpenedData", "open_data"]
