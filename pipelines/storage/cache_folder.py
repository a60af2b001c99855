"""Where the package keeps what it can make again: demo images, image sizes, unpacked files."""

import os
from pathlib import Path

from platformdirs import user_cache_path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return the cache folder, which need not exist yet: ``DALI_FIXRES_CACHE``, or the user's own for this program."""
    if folder := os.environ.get("DALI_FIXRES_CACHE"):
        return Path(folder).expanduser()
    return user_cache_path("dali-fixres")
