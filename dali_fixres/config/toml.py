"""Settings as TOML files."""

import tomllib
from pathlib import Path
from typing import Any

from tomli_w import dumps as to_toml

from dali_fixres.errors import ConfigError, did_you_mean

__all__ = ["read_toml", "to_toml"]


def read_toml(path: Path, known: set[str]) -> dict[str, Any]:
    """Read a config file and check its keys.

    Raises:
        ConfigError: If it cannot be read, is not TOML, or has a key that is not a flag.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read --config {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--config {path} is not valid TOML: {error}") from error
    keys = {key.replace("-", "_"): key for key in values}
    for name, key in keys.items():
        if name not in known:
            raise ConfigError(f"--config {path} has an unknown key {key!r}{did_you_mean(name, known)}")
    return {name: values[key] for name, key in keys.items()}
