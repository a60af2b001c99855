"""The CPU graph's one compiled operator: crop box → resize → mirror → colour → normalise → erase, in one go."""

__all__ = ["AS_PIL", "GIVES_BYTES", "VERTICAL_FIRST"]

AS_PIL, VERTICAL_FIRST, GIVES_BYTES = 16, 32, 64
"""Flags that are added to the number of the filter: to calculate as PIL does, there to resize down the columns before
along the rows, and to round to bytes."""
