"""Where the package keeps what it can make again: demo images and indexes."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return the user's cache folder for this package; it need not exist yet.

    ``DALI_FIXRES_CACHE`` names it outright; otherwise it lies in ``XDG_CACHE_HOME`` or ``~/.cache``.
    """
    if own := os.environ.get("DALI_FIXRES_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "dali-fixres"
