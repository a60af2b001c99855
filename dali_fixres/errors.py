"""Every error the package raises on purpose.

Exception
├── UserError                what the user said or gave cannot be used; the command line exits with 2
│   ├── ConfigError          a flag or a key of a config file
│   ├── DataError            a data set, a manifest
│   │   └── UnreadableError  pictures that cannot be decoded
│   ├── ModelError           a network's name, its arguments, its structure
│   ├── CheckpointError      a checkpoint or a weights file
│   └── DeviceError          a device that is not there
├── RunError                 the run cannot go on; the command line exits with 1
│   ├── TrainingDivergedError    the loss or the network's numbers are no longer finite
│   ├── SaveError                a file of the run cannot be written
│   └── ProcessFailedError       another process of the run has failed
└── Interrupted              a signal has asked the run to stop; the command line exits with 75

A message says what is wrong, where, and the next step.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

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


class UserError(Exception):
    """Something the user can mend; its text is shown as one line, without a traceback."""


class ConfigError(UserError):
    """A flag or a key of a config file has a value that cannot be used."""


class DataError(UserError):
    """A data set cannot be read, or does not fit what is asked of it."""


class UnreadableError(DataError):
    """Pictures cannot be read or decoded, or are not what was indexed.

    Attributes:
        pictures: Path and what is wrong, by row of the index.
    """

    def __init__(
        self, pictures: Mapping[int, tuple[Path, str]], advice: str = "; mend or remove it and run again"
    ) -> None:
        path, reason = next(iter(pictures.values()))
        more = f" (and {len(pictures) - 1} more)" if len(pictures) > 1 else ""
        super().__init__(f"cannot decode {path}: {reason}{more}{advice}")
        self.pictures = pictures


class ModelError(UserError):
    """A network cannot be built, or lacks the part that is asked for."""


class CheckpointError(UserError):
    """A checkpoint or weights file cannot be read, or belongs to another network."""


class DeviceError(UserError):
    """The device asked for is not there."""


class RunError(Exception):
    """The run cannot go on; its text is shown as one line, without a traceback."""


class TrainingDivergedError(RunError):
    """The loss, or a number of the network, became NaN or infinite."""


class SaveError(RunError):
    """A file of the run cannot be written."""


class ProcessFailedError(RunError):
    """Another process of the same run has failed; the text is its message."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """A signal has asked the run to stop, and its state has been saved."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or an empty string."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
