"""Saved results: `<bench>[-<data>]_<machine>_<date>.json`, and whether one is stale."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "RESULTS",
    "Content",
    "SavedResult",
    "changed_since",
    "is_stale",
    "machine_name",
    "newest",
    "save",
    "sources",
]

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


def is_stale(result: SavedResult | None, differs: Callable[[str], bool]) -> bool:
    """Return whether a bench has to run: it has no result, or one of other sources.

    Args:
        result: The newest one.
        differs: Whether the packages, or the bench, have changed since a commit.
    """
    commit = None if result is None else result.content.get("sources")
    return commit is None or commit.endswith("-dirty") or differs(commit)


def sources() -> str | None:
    """Return the commit that is measured, with ``-dirty`` behind it if files differ; None outside of git."""
    return _git("describe", "--always", "--dirty", "--exclude=*")


def changed_since(commit: str, paths: Sequence[str]) -> bool:
    """Return whether files below some paths differ from a commit, or the commit is unknown."""
    return _git("diff", "--quiet", commit, "--", *paths) is None


def _git(*words: str) -> str | None:
    """Return what git prints in this checkout; None where it fails."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(RESULTS.parents[1]), *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - fixed words
    return done.stdout.strip() if done.returncode == 0 else None
