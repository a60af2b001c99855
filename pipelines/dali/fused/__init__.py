"""The CPU graph's one compiled operator: crop box → resize → mirror → colour → normalise → erase, in one go."""

__all__ = ["AS_PIL", "GIVES_BYTES"]

AS_PIL, GIVES_BYTES = 16, 32
"""Flags that are added to the number of the filter: to calculate as PIL does, and to round to bytes."""
