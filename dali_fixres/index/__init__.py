"""Which pictures exist: found, measured from their headers, cached and fingerprinted."""

from dali_fixres.index.build import LeftOut, OpenedData, open_data
from dali_fixres.index.headers import FORMATS, NOT_A_PICTURE
from dali_fixres.index.table import BASE, TRAIN, VAL, Index, Rung

__all__ = ["BASE", "FORMATS", "NOT_A_PICTURE", "TRAIN", "VAL", "Index", "LeftOut", "OpenedData", "Rung", "open_data"]
