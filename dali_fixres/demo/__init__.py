"""Synthetic demo images, for users without a data set."""

from dali_fixres.demo.make import ensure_demo_data

__all__ = ["ensure_demo_data"]
