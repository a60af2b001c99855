"""Which file of a failed batch is to blame: DALI's errors do not say."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

__all__ = ["first_unreadable"]


def first_unreadable(paths: Iterable[Path]) -> str | None:
    """Return "cannot decode FILE: reason" for the first file that PIL cannot read whole either, else None."""
    for path in paths:
        try:
            with Image.open(path) as image:
                image.load()
        except (OSError, SyntaxError, ValueError) as error:
            return f"cannot decode {path}: {getattr(error, 'strerror', None) or error}"
    return None
