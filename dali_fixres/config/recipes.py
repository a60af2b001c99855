"""Recipes: settings that are shipped as TOML files, and that --config takes by name."""

from importlib.resources import files
from itertools import takewhile
from pathlib import Path

from dali_fixres.errors import ConfigError, did_you_mean

__all__ = ["config_file", "recipe_command", "recipe_header", "recipes"]


def recipes() -> dict[str, Path]:
    """Return the shipped recipes by name, in the order of their names."""
    folder = Path(str(files("dali_fixres.recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def recipe_header(path: Path) -> list[str]:
    """Return the lines at a recipe's head: its command, the published figure, its source."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]


def recipe_command(path: Path) -> str | None:
    """Return the command that a shipped recipe is of; None for any other file."""
    if path not in recipes().values():
        return None
    words = recipe_header(path)[0].split()
    return next(word for word in words if word in {"train", "finetune"})


def config_file(said: Path) -> Path:
    """Return the file that --config stands for: a recipe's, if it is the name of one, or else the file itself.

    Raises:
        ConfigError: If it is a bare name of neither a recipe nor a file.
    """
    shipped = recipes()
    name = str(said)
    if name in shipped:
        return shipped[name]
    if said.name == name and not said.suffix and not said.exists():
        known = ", ".join(shipped)
        raise ConfigError(
            f"--config {name} is neither a file nor one of the recipes {known}{did_you_mean(name, shipped)}"
        )
    return said
