"""Checks of what the user says: the error names the flag, the rule and what was found."""

from collections.abc import Iterator
from contextlib import contextmanager

from dali_fixres.errors import ConfigError

__all__ = ["check", "flag_context"]


def check(holds: bool, flag: str, rule: str, found: object) -> None:
    """Raise ConfigError unless a rule holds."""
    if not holds:
        raise ConfigError(f"{flag} must be {rule}; found {found}")


@contextmanager
def flag_context(flag: str) -> Iterator[None]:
    """Name the flag in the error of what it was made into."""
    try:
        yield
    except ConfigError as error:
        raise error if flag in str(error) else ConfigError(f"{flag}: {error}") from error
