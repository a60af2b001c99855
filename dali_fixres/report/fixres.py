"""The report of `fixres`, made from the files in its folder; nothing is measured here."""

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dali_fixres.checkpoints import load_checkpoint
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.report.cost import best_row, evaluation_cost, gain, row_at, training_cost
from dali_fixres.report.fixres_files import FixresFolder
from dali_fixres.report.html import render
from dali_fixres.report.json_files import Baseline, Cost, Figures, GainRow, ReportFile
from dali_fixres.report.plots import plot_accuracy
from dali_fixres.report.summary import summary
from dali_fixres.report.tables import before_after_table, print_table
from dali_fixres.runtime.data import SYNTHETIC
from dali_fixres.runtime.json_files import AccuracyRow, EvaluateFile, FinetuneFile
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import RunFolder
from pipelines.storage.files import write_json, write_text

__all__ = ["best_resolution", "write_report"]

HARDWARE = ("cpu", "gpu", "usable_cores")


def best_resolution(sweep: Path, trained_at: int) -> int:
    """Return the most accurate resolution of a sweep, pixels, from that of training on; of equals the lowest."""
    content: EvaluateFile = _read(sweep)
    return best_row([row for row in content["results"] if row["test_res"] >= trained_at])["test_res"]


def write_report(folder: FixresFolder, trained_at: int, fixed_for: int, reporter: Reporter) -> None:
    """Write report.html, report.json and the plot of all sweeps; print the findings."""
    figures = _figures(folder, trained_at, fixed_for)
    report: ReportFile = {"summary": list(summary(figures)), **figures}
    sweeps = {f"trained at {trained_at} px": report["before"], f"then fine-tuned for {fixed_for} px": report["after"]}
    if report["baseline"] is not None:
        sweeps[f"baseline, trained at {report['baseline']['trained_at']} px"] = report["baseline"]["rows"]
    accuracies = {name: [Accuracy.from_json(row) for row in rows] for name, rows in sweeps.items()}
    plot_accuracy(folder.sweep, accuracies, f"{report['model']} on {report['data']}")
    curves = {"Training": folder.training.curves, "Fine-tuning": folder.finetune.curves}
    plots = {"Accuracy against test resolution": folder.sweep, **curves}
    title = f"{report['model']}, trained at {trained_at} px, fixed for {fixed_for} px"
    page = render(title, report, {what: path.read_bytes() for what, path in plots.items() if path.exists()})
    # A path may hold bytes that are not text.
    write_text(folder.page, page, errors="backslashreplace")
    for path in (folder.path / "report.json", folder.config.json):
        if path is not None:
            write_json(path, report)
    before, after, *_ = accuracies.values()
    print_table(title, before_after_table(before, after))
    reporter.line("\n".join(report["summary"]))
    reporter.line(f"report: {folder.page}")
    reporter.line(f"next: dali-fixres evaluate --checkpoint {folder.finetune.path} for other resolutions or images")


def _figures(folder: FixresFolder, trained_at: int, fixed_for: int) -> Figures:
    before: EvaluateFile = _read(folder.before)
    after: EvaluateFile = _read(folder.after)
    tuned: FinetuneFile = _read(folder.finetune.results)
    sweeps, baseline = {"sweep before": before, "sweep after": after}, None
    if folder.config.baseline is not None:
        sweeps["sweep of the baseline"] = _read(folder.baseline)
        baseline = _baseline(folder.config.baseline, sweeps["sweep of the baseline"], tuned)
    runs = {"training": folder.training, "tuning": folder.finetune}
    trained = {"training": _read(folder.training.results)} if folder.training.results.exists() else {}
    results = {**trained, "tuning": tuned, **sweeps}
    costs = _costs(runs, sweeps)
    return {
        "model": before["model"],
        "data": SYNTHETIC if before["synthetic"] else str(folder.config.data),
        "synthetic": before["synthetic"],
        "checkpoint": None if folder.config.checkpoint is None else str(folder.config.checkpoint),
        "trained_at": trained_at,
        "fixed_for": fixed_for,
        "best_before": best_row(before["results"])["test_res"],
        "chosen": folder.config.target is None,
        "method": tomllib.loads(_text(folder.finetune.config))["method"],
        "before": before["results"],
        "after": after["results"],
        "costs": costs,
        "gains": list(gains(before["results"], after["results"], costs, trained_at, fixed_for)),
        "gain_over_baseline": baseline
        and gain(row_at(baseline["rows"], fixed_for), row_at(after["results"], fixed_for)),
        "baseline": baseline,
        "settings": {
            stage: _text(run.config)
            for stage, run in {"fixres": RunFolder(folder.path), **runs}.items()
            if run.config.exists()
        },
        "environments": {stage: content["environment"] for stage, content in results.items()},
        "fingerprints": {stage: content["fingerprint"] for stage, content in results.items()},
        "unreadable": _unreadable(runs.values(), sweeps.values()),
        "missing": [f"{stage}: {run.path} has no records" for stage, run in runs.items() if not run.records()],
    }


def gains(
    before: Sequence[AccuracyRow],
    after: Sequence[AccuracyRow],
    costs: Mapping[str, Cost | None],
    trained_at: int,
    fixed_for: int,
) -> Iterator[GainRow]:
    """Say what was gained by what, given accuracies, costs by stage, and resolutions in pixels."""
    low, high, best = row_at(before, trained_at), row_at(before, fixed_for), best_row(before)
    fixed, best_px = row_at(after, fixed_for), best["test_res"]
    found = [
        (f"testing at {best_px} px (the best) instead of {trained_at} px", low, best, "sweep before"),
        (f"fine-tuning, before and after at {fixed_for} px", high, fixed, "tuning"),
        (f"fine-tuning, compared with testing at {best_px} px without it", best, fixed, "tuning"),
        (f"fine-tuning and testing at {fixed_for} px instead of testing at {trained_at} px", low, fixed, "tuning"),
    ]
    seen: list[tuple[AccuracyRow, AccuracyRow]] = []
    for what, old, new, stage in found:
        if old is new or (old, new) in seen:
            continue
        seen.append((old, new))
        cost = costs[stage]
        yield {"what": what, **gain(old, new), "seconds": None if cost is None else cost["seconds"]}


def _costs(runs: Mapping[str, RunFolder], sweeps: Mapping[str, EvaluateFile]) -> dict[str, Cost | None]:
    """Return the cost of every stage, in the order they ran."""
    swept = {stage: evaluation_cost(content["results"]) for stage, content in sweeps.items()}
    costs: dict[str, Cost | None] = {}
    for stage, run in runs.items():
        records = run.records()
        costs[stage] = training_cost(records)
        costs[f"tests of {stage}"] = evaluation_cost(row for row in records if row["event"] == "evaluation")
        if stage == "training":
            costs["sweep before"] = swept.pop("sweep before")
    return costs | swept


def _baseline(path: Path, sweep: EvaluateFile, tuned: FinetuneFile) -> Baseline:
    run, checkpoint = RunFolder(path), load_checkpoint(path)
    theirs, ours = _read(run.results)["environment"], tuned["environment"]
    return {
        "path": str(path),
        "trained_at": checkpoint.train_res,
        "rows": sweep["results"],
        "training": training_cost(run.records()),
        "same_images": checkpoint.fingerprint == sweep["fingerprint"],
        "same_machine": all(theirs[part] == ours.get(part) for part in HARDWARE),
    }


def _unreadable(runs: Iterable[RunFolder], sweeps: Iterable[EvaluateFile]) -> list[str]:
    """Return one line for each file that could not be read in any stage."""
    lines = [line for content in sweeps for line in content["unreadable"]]
    for run in runs:
        if run.unreadable.exists():
            lines += run.unreadable.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return list(dict.fromkeys(lines))


def _read(path: Path) -> Any:
    return json.loads(_text(path))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
