"""The state of a run on disk, and where the network of a command comes from."""

from dali_fixres.checkpoints.checkpoint import Checkpoint, CheckpointClock, EpochStatistics, load_checkpoint, rebuild

__all__ = ["Checkpoint", "CheckpointClock", "EpochStatistics", "load_checkpoint", "rebuild"]
