"""Run folders: one per run, with its settings, records, checkpoints, results and plot.

runs/<name>/
    config.toml     resolved settings, in the form --config reads
    records.jsonl   one line per event, see docs/architecture.md
    last.pt best.pt checkpoints
    left_out.txt    files of the data set that are no readable pictures, if there are any
    results.json    the figures at the end
    curves.png      loss and accuracy by epoch
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dali_fixres.config import to_toml
from dali_fixres.errors import CheckpointError, ConfigError
from dali_fixres.index import LeftOut

__all__ = ["BEST", "LAST", "RUNS", "RunFolder", "create_run", "newest_run", "open_run", "write_json"]

RUNS = Path("runs")
LAST, BEST = "last.pt", "best.pt"
CONFIG = "config.toml"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of a run, and what is appended to it."""

    path: Path

    @property
    def config(self) -> Path:
        """Resolved settings."""
        return self.path / CONFIG

    @property
    def last(self) -> Path:
        """Checkpoint of the last epoch."""
        return self.path / LAST

    @property
    def best(self) -> Path:
        """Checkpoint of the best evaluation."""
        return self.path / BEST

    @property
    def results(self) -> Path:
        """Figures at the end."""
        return self.path / "results.json"

    @property
    def curves(self) -> Path:
        """Plot of loss and accuracy."""
        return self.path / "curves.png"

    def write_config(self, command: str, config: dict[str, Any]) -> None:
        """Write the settings, in the form that ``--config`` reads."""
        self.config.write_text(f"# dali-fixres {command} --config {CONFIG}\n{to_toml(config)}", encoding="utf-8")

    def record(self, event: str, **values: Any) -> None:
        """Append an event to records.jsonl."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values})
        with (self.path / "records.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def records(self) -> list[dict[str, Any]]:
        """Return the events so far; of an epoch that a killed run had to do again, the later ones."""
        path = self.path / "records.jsonl"
        if not path.exists():
            return []
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        latest = {(record["event"], record.get("epoch"), record.get("test_res")): record for record in found}
        return list(latest.values())

    def list_left_out(self, left_out: Sequence[LeftOut]) -> None:
        """Write which files are no readable pictures, and why."""
        if not left_out:
            return
        lines = [f"{item.path}: {item.reason}\n" for item in left_out]
        (self.path / "left_out.txt").write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def create_run(out: Path | None, command: str, config: dict[str, Any]) -> RunFolder:
    """Make a run folder and write its settings.

    Raises:
        ConfigError: If it cannot be made or written, or holds a run already.
    """
    path = out or _fresh_name(command)
    try:
        if (path / CONFIG).exists():
            raise ConfigError(f"{path} already holds a run; give another --out, or --resume to go on with it")
        path.mkdir(parents=True, exist_ok=True)
        run = RunFolder(path)
        run.write_config(command, config)
    except OSError as error:
        raise ConfigError(f"cannot write the run folder {path}: {error.strerror}; give another --out") from error
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"the settings of {path} have a path that is no UTF-8: {error.object!r}; rename it"
        ) from error
    return run


def open_run(path: Path) -> RunFolder:
    """Return an existing run.

    Raises:
        CheckpointError: If there is no run in this folder.
    """
    if not (path / CONFIG).exists():
        raise CheckpointError(f"{path} holds no run (it has no {CONFIG})")
    return RunFolder(path)


def newest_run(command: str | None = None) -> RunFolder:
    """Return the run under runs/ whose checkpoint was written last, of one command or of any.

    Raises:
        CheckpointError: If there is none.
    """
    runs = [RunFolder(last.parent) for last in RUNS.glob(f"*/{LAST}")]
    runs = [run for run in runs if command in {None, _command_of(run)}]
    if not runs:
        what = f"{command} run" if command else "run"
        raise CheckpointError(
            f"no {what} with a checkpoint under {RUNS.absolute()}; run `dali-fixres train` first, or name one with "
            "--checkpoint (--out where a run is resumed)"
        )
    return max(runs, key=lambda run: run.last.stat().st_mtime_ns)


def _command_of(run: RunFolder) -> str:
    """Return the command that made a run: the word after the program's name in its settings' first line."""
    first_line = run.config.read_text(encoding="utf-8").partition("\n")[0] if run.config.exists() else ""
    words = first_line.split()
    return words[2] if len(words) > 2 else ""


def _fresh_name(command: str) -> Path:
    """Return a folder that is not there yet: time, then command."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = [RUNS / f"{stamp}-{command}", *(RUNS / f"{stamp}.{number}-{command}" for number in range(1, 100))]
    return next(name for name in names if not name.exists())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write figures as JSON.

    Raises:
        ConfigError: If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
