"""Every error the package raises on purpose, with the exit codes of the command line.

Exception
├── UserError (2)            what the user gave cannot be used
│   ├── ConfigError          a flag or a key of a config file
│   ├── DataError            a data set, a manifest
│   │   └── UnreadableError  images that cannot be decoded
│   ├── ModelError           a network's name, its arguments, its structure
│   ├── CheckpointError      a checkpoint or a weights file
│   └── DeviceError          a device that is not there
├── RunError (1)             the run cannot continue
│   ├── TrainingDivergedError    the loss or the network's numbers are no longer finite
│   ├── SaveError                a file of the run cannot be written
│   └── ProcessFailedError       another rank has ended
└── Interrupted (75)         a signal has asked the run to stop

A message says what is wrong, where, and the next step. Those of data and settings come from `pipelines`.
"""

from pipelines.errors import ConfigError, DataError, RunError, SaveError, UnreadableError, UserError, did_you_mean

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "Interrupted",
    "ModelError",
    "ProcessFailedError",
    "RunError",
    "SaveError",
    "TrainingDivergedError",
    "UnreadableError",
    "UserError",
    "did_you_mean",
]


class ModelError(UserError):
    """A network cannot be built, or lacks the part that is asked for."""


class CheckpointError(UserError):
    """A checkpoint or weights file cannot be read, or belongs to another network."""


class DeviceError(UserError):
    """The requested device does not exist."""


class TrainingDivergedError(RunError):
    """The loss, or a number of the network, became NaN or infinite."""


class ProcessFailedError(RunError):
    """A collective has failed because another rank has ended."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """A signal has asked the run to stop, and its state has been saved."""
