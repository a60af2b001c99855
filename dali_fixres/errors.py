"""Every error the package raises on purpose.

Exception
├── UserError                what the user said or gave cannot be used; the command line exits with 2
│   ├── ConfigError          a flag or a key of a config file
│   ├── DataError            a data set, a manifest, a picture
│   ├── ModelError           a network's name, its arguments, its structure
│   ├── CheckpointError      a checkpoint or a weights file
│   └── DeviceError          a device that is not there
└── TrainingDivergedError    the loss is no longer a number; the command line exits with 1

A message says what is wrong, where, and the next step.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "ModelError",
    "TrainingDivergedError",
    "UserError",
    "did_you_mean",
]


class UserError(Exception):
    """Something the user can mend; its text is shown as one line, without a traceback."""


class ConfigError(UserError):
    """A flag or a key of a config file has a value that cannot be used."""


class DataError(UserError):
    """A data set cannot be read, or does not fit what is asked of it."""


class ModelError(UserError):
    """A network cannot be built, or lacks the part that is asked for."""


class CheckpointError(UserError):
    """A checkpoint or weights file cannot be read, or belongs to another network."""


class DeviceError(UserError):
    """The device asked for is not there."""


class TrainingDivergedError(Exception):
    """The loss became NaN or infinite."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or an empty string."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
