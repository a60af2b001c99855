"""Every error this package raises on purpose.

Exception
├── UserError                what the user gave cannot be used
│   ├── ConfigError          a setting
│   └── DataError            a data set
│       └── UnreadableError  images that cannot be decoded
└── RunError                 the work cannot continue
    └── SaveError            a file cannot be written

A message says what is wrong, where, and the next step.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

__all__ = ["ConfigError", "DataError", "RunError", "SaveError", "UnreadableError", "UserError", "did_you_mean"]


class UserError(Exception):
    """Something the user can fix; its text is shown as one line, without a traceback."""


class ConfigError(UserError):
    """A setting has a value that cannot be used."""


class DataError(UserError):
    """A data set cannot be read, or does not fit what is asked of it."""


class UnreadableError(DataError):
    """Images cannot be read or decoded, or are not what was indexed.

    Attributes:
        images: Path and what is wrong, by row of the data set.
    """

    def __init__(
        self, images: Mapping[int, tuple[Path, str]], advice: str = "; repair or remove it and run again"
    ) -> None:
        path, reason = next(iter(images.values()))
        more = f" (and {len(images) - 1} more)" if len(images) > 1 else ""
        super().__init__(f"cannot decode {path}: {reason}{more}{advice}")
        self.images = images


class RunError(Exception):
    """The work cannot continue; its text is shown as one line, without a traceback."""


class SaveError(RunError):
    """A file cannot be written."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or an empty string."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
