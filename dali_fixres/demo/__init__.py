"""Synthetic demo images, for users without a data set."""

from dali_fixres.demo.draw import CLASS_NAMES, NUM_CLASSES
from dali_fixres.demo.make import ensure_demo_data

__all__ = ["CLASS_NAMES", "NUM_CLASSES", "ensure_demo_data"]
