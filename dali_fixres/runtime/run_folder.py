"""Run folders: one a run, with its settings, records, checkpoints, results and plot.

runs/<name>/
    config.toml     settings, as --config reads them; the first line names the command
    records.jsonl   one line per event, see docs/schemas.md
    last.pt best.pt checkpoints
    data.npz        the data set's files, to name changes when the run is resumed
    unreadable.txt  images that cannot be read, if there are any
    results.json    results at the end
    curves.png      loss and accuracy by epoch
    .lock           held by the process that writes the run
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Any

from dali_fixres.config import to_toml
from dali_fixres.errors import CheckpointError, ConfigError, SaveError
from pipelines.storage.files import append_text, write_text
from pipelines.storage.locks import lock

__all__ = [
    "BEST",
    "FIXRES",
    "LAST",
    "RUNS",
    "RunFolder",
    "create_run",
    "has_runs",
    "newest_run",
    "open_run",
    "reopen_run",
    "run_to_resume",
]

RUNS = Path("runs")
LAST, BEST = "last.pt", "best.pt"
FIXRES = "fixres"
"""The command whose folder holds other runs and has no checkpoint of its own."""

CONFIG, RECORDS = "config.toml", "records.jsonl"


@dataclass(frozen=True, slots=True, eq=False)
class RunFolder:
    """A run's paths and records.

    Attributes:
        path: The folder.
        lock: Held until `release`; None for a run that is only read.
    """

    path: Path
    lock: IO[str] | None = field(default=None, repr=False)

    @property
    def config(self) -> Path:
        """Settings."""
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
    def data(self) -> Path:
        """Snapshot of the data set."""
        return self.path / "data.npz"

    @property
    def unreadable(self) -> Path:
        """List of images that cannot be read."""
        return self.path / "unreadable.txt"

    @property
    def results(self) -> Path:
        """Results at the end."""
        return self.path / "results.json"

    @property
    def curves(self) -> Path:
        """Plot of loss and accuracy."""
        return self.path / "curves.png"

    def release(self) -> None:
        """Give up the lock."""
        if self.lock is not None:
            self.lock.close()

    def write_config(self, command: str, config: dict[str, Any]) -> None:
        """Write the settings of a command, as ``--config`` reads them."""
        write_text(self.config, f"# dali-fixres {command} --config {CONFIG}\n{to_toml(config)}")

    def record(self, event: str, **values: Any) -> None:
        """Append an event to records.jsonl.

        Raises:
            SaveError: If it cannot be written.
        """
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values})
        append_text(self.path / RECORDS, line + "\n")

    def records(self) -> list[dict[str, Any]]:
        """Return the events so far; for an epoch that was repeated after a resume, only the later ones."""
        path = self.path / RECORDS
        if not path.exists():
            return []
        # A kill may have left half a line at the end.
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        found = [json.loads(line) for line in lines]
        latest = {(record["event"], record.get("epoch"), record.get("test_res")): record for record in found}
        return list(latest.values())


def create_run(out: Path | None, command: str, config: dict[str, Any]) -> RunFolder:
    """Make a run folder, lock it and write its settings.

    A folder whose run ended before its first checkpoint is used again.

    Args:
        out: The folder; None for a new one under runs/.
        command: Name of the command.
        config: Its settings.

    Raises:
        ConfigError: If the folder cannot be written, or has a run with a checkpoint.
    """
    path = out or RUNS / command
    try:
        if out is None:
            path = _fresh_folder(command)
        else:
            path.mkdir(parents=True, exist_ok=True)
        with _locked(path) as run:
            if run.last.exists() or _command_of(run) == FIXRES:
                raise ConfigError(f"{path} already holds a run; give another --out, or --resume to resume it")
            (path / RECORDS).unlink(missing_ok=True)
            run.write_config(command, config)
            return run
    except OSError as error:
        raise ConfigError(f"cannot write the run folder {path}: {error.strerror}; give another --out") from error
    except SaveError as error:
        raise ConfigError(f"{error}; or give another --out") from error
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"the settings of {path} have a path that is not UTF-8: {error.object!r}; rename it"
        ) from error


def reopen_run(path: Path) -> RunFolder:
    """Lock an existing run to resume it, and remove half a record that a kill may have left.

    Raises:
        ConfigError: If another process holds the lock, or the folder cannot be written.
    """
    try:
        with _locked(path) as run:
            records = path / RECORDS
            if records.exists():
                content = records.read_bytes()
                os.truncate(records, content.rfind(b"\n") + 1)
            return run
    except OSError as error:
        raise ConfigError(f"cannot write the run folder {path}: {error.strerror}") from error


def run_to_resume(command: str, out: Path | None) -> RunFolder:
    """Return the run to resume: that in `out`, or else the newest of the command. `fixres` needs `out`.

    Raises:
        CheckpointError: If there is no such run, or it has nothing to resume from.
    """
    if out is None and command == FIXRES:
        raise CheckpointError("--resume needs the folder that the command was begun with; give it as --out")
    run = newest_run(command) if out is None else open_run(out)
    if command == FIXRES and _command_of(run) != FIXRES:
        raise CheckpointError(f"{out} is the folder of {_command_of(run) or 'another command'}, not of {FIXRES}")
    if command != FIXRES and not run.last.exists():
        raise CheckpointError(
            f"{run.path} has no checkpoint, because its run ended before the first; begin it again without --resume"
        )
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
    """Return the run under runs/ with the newest checkpoint, of a command or of any.

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


def has_runs() -> bool:
    """Return whether there is a run with a checkpoint under runs/."""
    return next(RUNS.glob(f"*/{LAST}"), None) is not None


def _command_of(run: RunFolder) -> str:
    """Return the command that made a run, from the first line of its settings; empty if that has none."""
    first_line = run.config.read_text(encoding="utf-8").partition("\n")[0] if run.config.exists() else ""
    words = first_line.split()
    return words[2] if len(words) > 2 else ""


def _fresh_folder(command: str) -> Path:
    """Make a new folder, named by time and command."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    RUNS.mkdir(exist_ok=True)
    for number in count():
        path = RUNS / (f"{stamp}.{number}-{command}" if number else f"{stamp}-{command}")
        with suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError("counting ends never")


@contextmanager
def _locked(path: Path) -> Iterator[RunFolder]:
    """Yield a locked run, which stays locked after the block unless an error ends it."""
    run = RunFolder(path, lock(path, "give another --out"))
    try:
        yield run
    except BaseException:
        run.release()
        raise
