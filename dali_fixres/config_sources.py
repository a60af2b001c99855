"""Where settings come from that are not flags: ``--config``, the resumed run, the demo's recipe, in this order."""

from pathlib import Path
from typing import Any

from cyclopts import App
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Dict

from dali_fixres.config import config_file, read_toml, recipe_command, recipes
from dali_fixres.errors import ConfigError
from dali_fixres.runtime.run_folder import FIXRES, RunFolder, run_to_resume
from pipelines.processes import max_restarts, num_local, num_processes, num_restarts

__all__ = ["fill_from_sources"]

DEPENDENT = {
    "model": {"model_arg"},
    "base_lr": {"lr"},
    "lr_decay": {"decay_epochs"},
    "trainable": {"norm_stats", "num_blocks"},
}
"""Settings that depend on another one: where a source sets that one to another value, later sources do not
set these."""


def fill_from_sources(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill the flags that were not given; each source fills what no earlier one has set."""
    if not commands:
        return
    command = commands[-1]
    known = {_field(name) for argument in arguments for name in argument.names} - {"*"}
    given = {_field(argument.name): argument.convert() for argument in arguments if argument.tokens}

    def fill(values: dict[str, Any], source: str) -> None:
        other = {name for name in DEPENDENT.keys() & given.keys() if given[name] != values.get(name)}
        stale = set[str]().union(*(DEPENDENT[name] for name in other)) - given.keys()
        new = {name: value for name, value in values.items() if name not in stale}
        Dict(new, source=source, use_commands_as_keys=False)(app, commands, arguments)
        given.update({**values, **given})

    if "config" in given:
        path = config_file(given["config"])
        _check_recipe(path, command)
        fill(read_toml(path, known), str(path))
    run = _run_to_resume(command, given) if command in {"train", "finetune", FIXRES} else None
    if run is not None:
        fill({**read_toml(run.config, known), "out": str(run.path), "resume": True}, str(run.config))
    elif command in {"train", FIXRES} and not given.keys() & {"data", "checkpoint"}:
        recipe = read_toml(recipes()["demo"], known)
        if command == FIXRES:
            del recipe["test_res"]  # where `train` tests; `fixres` fixes the network for the best of its sweep
        fill(recipe, "the demo's recipe")


def _check_recipe(path: Path, command: str) -> None:
    """Raise ConfigError if a file is a recipe for another command; `fixres` takes those of `train`."""
    recipe = recipe_command(path)
    if recipe not in {None, command, "train" if command == FIXRES else command}:
        raise ConfigError(f"--config {path.stem} is a recipe for {recipe}, not for {command}")


def _run_to_resume(command: str, given: dict[str, Any]) -> RunFolder | None:
    """Return the run to resume: by --resume, or because torchrun has started the command again."""
    out = Path(given["out"]) if "out" in given else None
    if max_restarts() > 0:
        if out is None:
            raise ConfigError("torchrun --max-restarts needs to find the folder of the run again; give it an --out")
        if num_processes() > num_local():
            raise ConfigError(
                "torchrun --max-restarts works on one node; on several leave it out, and start the run again with "
                "--resume"
            )
        begun = RunFolder(out).config if command == FIXRES else RunFolder(out).last
        if num_restarts() > 0 and begun.exists():
            return RunFolder(out)
    return run_to_resume(command, out) if given.get("resume") else None


def _field(flag: str) -> str:
    """Return the field that a flag sets."""
    return flag.removeprefix("--").replace("-", "_")
