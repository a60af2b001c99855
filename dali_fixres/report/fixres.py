"""The report of `fixres`: what lies in its folder, put together; nothing is measured here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dali_fixres.config import FixresConfig, to_toml
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.report.html import render
from dali_fixres.report.ledger import Cost, evaluation_cost, learning_cost
from dali_fixres.report.plots import plot_sweep
from dali_fixres.report.story import SWEEP_BEFORE, TRAINING, TUNING, Against, Story, best_row, summary
from dali_fixres.report.tables import before_after_table, print_table
from dali_fixres.runtime.data import SYNTHETIC
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import RunFolder
from dali_fixres.training.checkpoint import load_checkpoint
from pipelines.storage.files import write_json, write_text

__all__ = ["FixresFolder", "best_resolution", "write_report"]

HARDWARE = ("cpu", "gpu", "usable_cores")


@dataclass(frozen=True, slots=True)
class FixresFolder:
    """Where the parts of a story lie."""

    path: Path
    config: FixresConfig

    @property
    def train(self) -> RunFolder:
        """The run of training; not there if the story begins with a checkpoint."""
        return RunFolder(self.path / "train")

    @property
    def trained(self) -> Path:
        """The network to fix: a run folder or a checkpoint file."""
        return self.config.checkpoint or self.train.path

    @property
    def training(self) -> RunFolder:
        """The run in which that network was trained; a checkpoint file alone may lie in none."""
        return RunFolder(self.trained if self.trained.is_dir() else self.trained.parent)

    @property
    def finetune(self) -> RunFolder:
        """The run of tuning."""
        return RunFolder(self.path / "finetune")

    @property
    def before(self) -> Path:
        """Accuracies of the trained network."""
        return self.path / "before.json"

    @property
    def after(self) -> Path:
        """Accuracies of the fixed network."""
        return self.path / "after.json"

    @property
    def against(self) -> Path:
        """Accuracies of the network to compare with."""
        return self.path / "against.json"


def best_resolution(sweep: Path, trained_at: int) -> int:
    """Return where a swept network tests best, pixels, from its training resolution on; of equals the lowest."""
    rows = [row for row in _read(sweep)["results"] if row["test_res"] >= trained_at]
    return int(best_row(rows)["test_res"])


def write_report(folder: FixresFolder, trained_at: int, fixed_for: int, reporter: Reporter) -> None:
    """Write report.html, report.json and the plot of all sweeps; print what they come to."""
    story = _story(folder, trained_at, fixed_for)
    before, after = ([Accuracy.from_json(row) for row in rows] for rows in (story.before, story.after))
    series = {f"trained at {trained_at} px": before, f"and fixed for {fixed_for} px": after}
    if story.against is not None:
        name = f"trained at {story.against.trained_at} px"
        series[name if name not in series else f"{name} too"] = [Accuracy.from_json(row) for row in story.against.rows]
    sweep = folder.path / "sweep.png"
    plot_sweep(sweep, series, f"{story.model} on {story.data}")
    curves = {"Training": folder.training.curves, "Tuning": folder.finetune.curves}
    plots = {
        "Accuracy against test resolution": sweep,
        **{name: path for name, path in curves.items() if path.exists()},
    }
    page = render(story, {what: path.read_bytes() for what, path in plots.items()})
    # A path may hold bytes that are no text.
    write_text(folder.path / "report.html", page, errors="backslashreplace")
    content = story.as_json()
    write_json(folder.path / "report.json", content)
    if folder.config.json is not None:
        write_json(folder.config.json, content)
    print_table(story.title, before_after_table(before, after))
    reporter.line("\n".join(summary(story)))
    reporter.line(f"report: {folder.path / 'report.html'}")
    reporter.line(f"next: dali-fixres evaluate --checkpoint {folder.finetune.path} for other resolutions or images")


def _story(folder: FixresFolder, trained_at: int, fixed_for: int) -> Story:
    before, after, tuned = _read(folder.before), _read(folder.after), _read(folder.finetune.results)
    sweeps = {SWEEP_BEFORE: before, "sweep after": after}
    against = None
    if folder.config.against is not None:
        sweeps["sweep of the other"] = _read(folder.against)
        against = _against(folder.config.against, sweeps["sweep of the other"], before, folder)
    runs = {TRAINING: folder.training, TUNING: folder.finetune}
    results = {TRAINING: _read_if_there(folder.training.results), TUNING: tuned, **sweeps}
    found = {stage: content for stage, content in results.items() if content is not None}
    missing = [f"{stage}: {run.path} has no records" for stage, run in runs.items() if not run.records()]
    return Story(
        model=before["model"],
        data=SYNTHETIC if before["synthetic"] else str(folder.config.data),
        synthetic=before["synthetic"],
        checkpoint=None if folder.config.checkpoint is None else str(folder.config.checkpoint),
        trained_at=trained_at,
        fixed_for=fixed_for,
        chosen=folder.config.target is None,
        method=folder.config.tuning(folder.trained, fixed_for, folder.finetune.path, resume=False).chosen,
        before=before["results"],
        after=after["results"],
        ledger=_ledger(folder, sweeps),
        against=against,
        settings=_settings(folder, trained_at),
        environments={stage: content["environment"] for stage, content in found.items()},
        fingerprints={stage: content["fingerprint"] for stage, content in found.items()},
        unreadable=_unreadable(runs, sweeps),
        missing=missing,
    )


def _ledger(folder: FixresFolder, sweeps: Mapping[str, Mapping[str, Any]]) -> dict[str, Cost | None]:
    """Return the cost of every stage, in the order they ran."""
    training, tuning = folder.training.records(), folder.finetune.records()
    swept = {stage: evaluation_cost(content["results"]) for stage, content in sweeps.items()}
    return {
        TRAINING: learning_cost(training),
        "tests of training": _tests(training),
        SWEEP_BEFORE: swept.pop(SWEEP_BEFORE),
        TUNING: learning_cost(tuning),
        "tests of tuning": _tests(tuning),
        **swept,
    }


def _tests(records: list[dict[str, Any]]) -> Cost | None:
    rows = [record for record in records if record["event"] == "evaluation"]
    return evaluation_cost(rows) if rows else None


def _against(path: Path, sweep: Mapping[str, Any], before: Mapping[str, Any], folder: FixresFolder) -> Against:
    run, checkpoint = RunFolder(path), load_checkpoint(path)
    machine, ours = _read(run.results)["environment"], _read(folder.finetune.results)["environment"]
    return Against(
        path=str(path),
        trained_at=checkpoint.train_res,
        rows=sweep["results"],
        training=learning_cost(run.records()),
        same_images=checkpoint.fingerprint == before["fingerprint"],
        same_machine=all(machine[part] == ours[part] for part in HARDWARE),
    )


def _settings(folder: FixresFolder, trained_at: int) -> dict[str, str]:
    """Return the settings of every stage, as text."""
    files = {TRAINING: folder.training.config, TUNING: folder.finetune.config}
    texts = {stage: path.read_text(encoding="utf-8") for stage, path in files.items() if path.exists()}
    sweep = folder.config.sweeping(folder.trained, folder.config.swept(trained_at), folder.before)
    return {**texts, "sweeps (before; after, with the fixed network's checkpoint)": to_toml(sweep.stored())}


def _unreadable(runs: Mapping[str, RunFolder], sweeps: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return each line about a file that could not be read once, in whichever stage that was."""
    lines = [line for content in sweeps.values() for line in content["unreadable"]]
    for run in runs.values():
        if run.unreadable.exists():
            lines += run.unreadable.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return list(dict.fromkeys(lines))


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _read_if_there(path: Path) -> dict[str, Any] | None:
    return _read(path) if path.exists() else None
