"""Saved results: `<bench>[-<data>]_<machine>_<date>.json`."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["RESULTS", "Content", "SavedResult", "machine_name", "newest", "save"]

RESULTS = Path(__file__).parent / "results"
"""Results that the docs are made from."""

LOCAL = Path("runs") / "bench"

Content = Mapping[str, Any]
"""What a results file holds."""

_NAME = re.compile(r"(?P<what>.+)_(?P<machine>[^_]+)_(?P<date>\d{4}-\d\d-\d\d)\.json")


class SavedResult(NamedTuple):
    """A results file: the bench and its data, the machine, the date, and what is in it."""

    what: str
    machine: str
    date: str
    path: Path
    content: Content


def machine_name(environment: Mapping[str, Any], device: str) -> str:
    """Return what a machine is called in file names: its GPU if that was used, else how many cores it has."""
    if device == "cpu" or environment["gpu"] is None:
        return f"{environment['usable_cores']}-core-cpu"
    return re.sub(r"[^a-z0-9]+", "-", str(environment["gpu"]).lower()).strip("-")


def save(content: Content, path: Path | None, what: str, machine: str) -> Path:
    """Write a result, by default below runs/bench, and return its path."""
    today = datetime.now().astimezone().date().isoformat()
    path = path or LOCAL / f"{what}_{machine}_{today}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def newest(folder: Path) -> list[SavedResult]:
    """Return the newest result of each bench, data and machine, in the order of their names."""
    found: dict[tuple[str, str], SavedResult] = {}
    for path in sorted(folder.glob("*.json")):
        if match := _NAME.fullmatch(path.name):
            content = json.loads(path.read_text(encoding="utf-8"))
            found[match["what"], match["machine"]] = SavedResult(**match.groupdict(), path=path, content=content)
    return list(found.values())  # of one bench and machine, dates are sorted
