"""Resized copies of a data set: encoded in several processes, written as tar shards or class folders.

Nothing here imports torch or DALI: each process that encodes would load them again.
"""

from pipelines.prepare.encode import CopySettings
from pipelines.prepare.prepare import CopyPlan, Summary, plan_copies, prepare_copies, write_copies

__all__ = ["CopyPlan", "CopySettings", "Summary", "plan_copies", "prepare_copies", "write_copies"]
