"""Results that are kept: `bench/results/<what>_<machine>_<date>.json`, and what is in them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Kept", "kept_in", "kept_path", "machine_name"]

_NAME = re.compile(r"(?P<what>.+)_(?P<machine>[^_]+)_(?P<date>\d{4}-\d\d-\d\d)\.json")


class Kept(NamedTuple):
    """A results file.

    Attributes:
        what: Name of the bench, and of its data where that is not the usual one.
        machine: What it was measured on, from `machine_name`.
        date: When it was measured.
        path: Where it is.
        content: What is in it.
    """

    what: str
    machine: str
    date: str
    path: Path
    content: Any


def machine_name(environment: Mapping[str, Any]) -> str:
    """Return what a machine is called in names of files: its GPU, or how many cores it has."""
    gpu = environment["gpu"]
    if gpu is None:
        return f"{environment['usable_cores']}-core-cpu"
    return re.sub(r"[^a-z0-9]+", "-", str(gpu).lower()).strip("-")


def kept_path(folder: Path, what: str, machine: str, date: str) -> Path:
    """Return the name of a results file."""
    return folder / f"{what}_{machine}_{date}.json"


def kept_in(folder: Path) -> list[Kept]:
    """Return the newest results file of each bench and machine, in the order of their names."""
    newest: dict[tuple[str, str], Kept] = {}
    for path in sorted(folder.glob("*.json")):
        if match := _NAME.fullmatch(path.name):
            content = json.loads(path.read_text(encoding="utf-8"))
            kept = Kept(match["what"], match["machine"], match["date"], path, content)
            newest[kept.what, kept.machine] = kept  # of one what and machine, dates come in their order
    return list(newest.values())
