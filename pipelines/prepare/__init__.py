"""Resized copies of a data set: encoded in several processes, written as tar shards or class folders.

Nothing here imports torch or DALI: each process that encodes would load them again.
"""

from pipelines.prepare.encode import CopySettings
from pipelines.prepare.prepare import plan_copies, write_copies

__all__ = ["CopySettings", "plan_copies", "write_copies"]
