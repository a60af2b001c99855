"""Settings as TOML files: flat keys, which may be grouped in sections of any name."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tomli_w import dumps as to_toml

from dali_fixres.errors import ConfigError, did_you_mean

__all__ = ["read_toml", "to_toml"]


def read_toml(path: Path, known: set[str]) -> dict[str, Any]:
    """Read a config file, its sections flattened, and check its keys.

    Raises:
        ConfigError: If it cannot be read, is not TOML, or has a key that is not a flag.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read --config {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--config {path} is not valid TOML: {error}") from error
    settings: dict[str, Any] = {}
    for key, value in _flat(values):
        name = key.replace("-", "_")
        if name not in known:
            raise ConfigError(f"--config {path} has an unknown key {key!r}{did_you_mean(name, known)}")
        if name in settings:
            raise ConfigError(f"--config {path} sets {name} twice")
        settings[name] = value
    return settings


def _flat(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a file, those of its sections included."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from value.items()
        else:
            yield key, value
