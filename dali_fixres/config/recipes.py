"""Recipes: TOML files of settings in the package, which --config takes by name."""

from importlib.resources import files
from itertools import takewhile
from pathlib import Path

from dali_fixres.errors import ConfigError, did_you_mean

__all__ = ["config_file", "recipe_command", "recipe_header", "recipes"]


def recipes() -> dict[str, Path]:
    """Return the files of all recipes by name, sorted by name."""
    folder = Path(str(files("dali_fixres.recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def recipe_header(path: Path) -> list[str]:
    """Return the comment lines that a recipe begins with: its command, the published result, its source."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]


def recipe_command(path: Path) -> str | None:
    """Return the command that a recipe is for; None for any other file."""
    if path not in recipes().values():
        return None
    words = recipe_header(path)[0].split()
    return next(word for word in words if word in {"train", "finetune"})


def config_file(given: Path) -> Path:
    """Return the file that --config names: that of a recipe, or the file itself.

    Raises:
        ConfigError: If it is a bare name of neither a recipe nor a file.
    """
    shipped = recipes()
    name = str(given)
    if name in shipped:
        return shipped[name]
    if given.name == name and not given.suffix and not given.exists():
        known = ", ".join(shipped)
        raise ConfigError(
            f"--config {name} is neither a file nor one of the recipes {known}{did_you_mean(name, shipped)}"
        )
    return given
