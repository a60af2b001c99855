"""What each way of fine-tuning gains, and what it costs: trained low, tested before and after, over several seeds.

    uv run python bench/methods.py --data DIR --recipe bench/grocery.toml --weights FILE
    uv run python bench/methods.py --data DIR --recipe FILE.toml --res 192 --against 192 --seeds 0 --folder runs/methods

Runs the command line as a user would, one command at a time, and keeps every run in --folder: what is finished there is
not run again, and runs of other settings are refused. Seconds are those of the runs' own records, tests not included;
on a shared machine read the ratios of one seed and one resolution, whose runs follow one another.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import App, Parameter
from harness import command_of, sources, start
from matplotlib.figure import Figure
from rich.table import Table

from dali_fixres.errors import UserError
from dali_fixres.report.plots import save_figure
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.environment import environment
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import RunFolder
from pipelines.storage.files import write_json


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Flags."""

    data: Path
    """Data set."""

    recipe: Path
    """TOML file for `train --config`: network, low resolution, epochs, learning rate."""

    weights: Path | None = None
    """Weights that training starts from."""

    seeds: str = "0,1,2"
    """With commas between."""

    sweep: str = "128,160,192,224,256"
    """Pixels to test at before tuning, with commas between."""

    res: str = "160,192,224"
    """Pixels to fix for, with commas between."""

    methods: str = "sgd,one-pass,frechet"
    """Ways to fix, with commas between."""

    epochs: int = 8
    """Of fine-tuning."""

    against: str = ""
    """Pixels to train at from the start as well, with commas between."""

    folder: Path | None = None
    """Where the runs are kept; runs/methods-DATA if left out."""

    json: Path | None = None
    """Write the figures here; bench/results/methods.json if left out."""

    @property
    def runs(self) -> Path:
        """Where the runs are kept."""
        return self.folder or Path(f"runs/methods-{self.data.name}")


def main(bench: Bench) -> None:
    """Run what is missing, print the tables, write JSON and the plot of cost against epochs."""
    reporter = Reporter()
    check_settings(bench)
    rows: list[dict[str, Any]] = []
    for seed in _numbers(bench.seeds):
        low = bench.runs / f"low-{seed}"
        _train(bench, low, seed, [], reporter)
        rows += [_trained("low", low, seed), *_swept(bench, low, seed, reporter)]
        for res in _numbers(bench.res):
            rows += [_tuned(bench, low, method, res, seed, reporter) for method in bench.methods.split(",")]
    for res in _numbers(bench.against):
        for seed in _numbers(bench.seeds):
            high = bench.runs / f"high-{res}-{seed}"
            _train(bench, high, seed, ["--train-res", str(res)], reporter)
            rows.append(_trained(f"trained at {res} px", high, seed))
    print_table(f"top-1 %, mean ± std over seeds {bench.seeds}", accuracy_table(rows))
    print_table("what it took, means over seeds", cost_table(rows))
    out = bench.json or Path(__file__).parent / "results" / "methods.json"
    content = {
        "bench": "methods",
        "command": command_of("methods", bench),
        "sources": sources(),
        "environment": environment(),
        "data": bench.data.name,
        "recipe": bench.recipe.read_text(),
        "results": rows,
    }
    write_json(out, content)
    save_figure(_cost_figure(rows), out.with_suffix(".png"))
    reporter.line(f"figures in {out}, cost against epochs in {out.with_suffix('.png')}")


def check_settings(bench: Bench) -> None:
    """Refuse a folder whose runs are of other data or settings, which would be reported as these.

    Raises:
        UserError: If there are such.
    """
    settings = {
        "data": str(bench.data.resolve()),
        "recipe": bench.recipe.read_text(encoding="utf-8"),
        "weights": bench.weights and str(bench.weights.resolve()),
        "epochs": bench.epochs,
        "sweep": bench.sweep,
    }
    kept = bench.runs / "settings.json"
    if not kept.exists():
        if bench.runs.exists() and any(bench.runs.iterdir()):
            raise UserError(f"{bench.runs} holds something else than runs of this bench; give another --folder")
        bench.runs.mkdir(parents=True, exist_ok=True)
        write_json(kept, settings)
    elif (others := json.loads(kept.read_text(encoding="utf-8"))) != settings:
        changed = ", ".join(name for name, value in settings.items() if others.get(name) != value)
        raise UserError(f"the runs in {bench.runs} are of other settings ({changed}); give another --folder")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def _train(bench: Bench, out: Path, seed: int, more: list[str], reporter: Reporter) -> None:
    weights = ["--weights", str(bench.weights)] if bench.weights else []
    flags = ["--config", str(bench.recipe), "--data", str(bench.data), *weights, "--seed", str(seed), *more]
    _run(["train", *flags], out, reporter)


def _swept(bench: Bench, low: Path, seed: int, reporter: Reporter) -> list[dict[str, Any]]:
    """Test a trained network at every resolution, before any tuning."""
    sweep = low / "sweep.json"
    if not sweep.exists():
        flags = ["--data", str(bench.data), "--checkpoint", str(low / "last.pt"), "--test-res", bench.sweep]
        _call(["evaluate", *flags, "--json", str(sweep), "--plot", str(low / "sweep.png")], reporter)
    results = json.loads(sweep.read_text())["results"]
    return [{"stage": "before", "seed": seed, "res": row["test_res"], "top1": row["top1"]} for row in results]


def _tuned(bench: Bench, low: Path, method: str, res: int, seed: int, reporter: Reporter) -> dict[str, Any]:
    """Fix a trained network for a resolution."""
    out = bench.runs / f"{method}-{res}-{seed}"
    epochs = [] if method == "frechet" else ["--epochs", str(bench.epochs)]
    flags = ["--checkpoint", str(low / "last.pt"), "--test-res", str(res), "--method", method, "--seed", str(seed)]
    _run(["finetune", *flags, *epochs], out, reporter)
    after = next(row for row in _results(out)["after"] if row["test_res"] == res)
    return {"stage": method, "seed": seed, "res": res, "top1": after["top1"], **_cost(out)}


def _trained(stage: str, out: Path, seed: int) -> dict[str, Any]:
    last = _results(out)["results"][-1]
    return {"stage": stage, "seed": seed, "res": last["test_res"], "top1": last["top1"], **_cost(out)}


def _results(out: Path) -> Any:
    return json.loads(RunFolder(out).results.read_text())


def _cost(out: Path) -> dict[str, Any]:
    """Return what a run has taken: seconds before its first epoch and of each epoch."""
    records = RunFolder(out).records()
    # A run that was stopped has made its pass again; only the last one counts.
    passes = [record for record in records if record["event"] == "pass"][-1:]
    epochs = sorted((record for record in records if record["event"] == "epoch"), key=lambda record: record["epoch"])
    return {
        "pass_s": sum(record["seconds"] for record in passes),
        "epoch_s": [record["seconds"] for record in epochs],
    }


def _run(command: list[str], out: Path, reporter: Reporter) -> None:
    """Run `train` or `finetune` unless it has been finished before; resume it where it was stopped."""
    if RunFolder(out).results.exists():
        return
    resume = ["--resume"] if RunFolder(out).last.exists() else []
    _call([*command, *resume, "--out", str(out)], reporter)


def _call(command: list[str], reporter: Reporter) -> None:
    reporter.line(f"dali-fixres {' '.join(command)}")
    done = subprocess.run([sys.executable, "-m", "dali_fixres", *command], check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode != 0:
        raise UserError(f"dali-fixres {' '.join(command)} failed: {done.stderr.strip()[-1000:]}")


def _stages(rows: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["stage"] for row in rows))


def accuracy_table(rows: list[dict[str, Any]]) -> Table:
    """Return top-1 by way and resolution."""
    sides = sorted({row["res"] for row in rows})
    table = Table()
    for heading in ("", *(f"{side} px" for side in sides)):
        table.add_column(heading, justify="right")
    for stage in _stages(rows):
        values = [[row["top1"] for row in rows if (row["stage"], row["res"]) == (stage, side)] for side in sides]
        table.add_row(stage, *map(_mean_and_spread, values))
    return table


def _mean_and_spread(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def cost_table(rows: list[dict[str, Any]]) -> Table:
    """Return what each way has taken."""
    table = Table()
    for heading in ("", "res, px", "s before the first epoch", "s an epoch", "minutes", "of sgd's, by seed"):
        table.add_column(heading, justify="right")
    sgd = {(row["res"], row["seed"]): _seconds(row) for row in rows if row["stage"] == "sgd"}
    for stage, res in dict.fromkeys((row["stage"], row["res"]) for row in rows if "epoch_s" in row):
        same = [row for row in rows if (row["stage"], row["res"]) == (stage, res)]
        pass_s = statistics.mean(row["pass_s"] for row in same)
        epochs_s = statistics.mean(sum(row["epoch_s"]) for row in same)
        num_epochs = max(1, len(same[0]["epoch_s"]))
        minutes = (pass_s + epochs_s) / 60
        shares = [_seconds(row) / sgd[res, row["seed"]] for row in same if (res, row["seed"]) in sgd]
        share = ", ".join(f"{share:.2f}" for share in shares) if stage not in {"sgd", "low"} else ""
        table.add_row(stage, str(res), f"{pass_s:.1f}", f"{epochs_s / num_epochs:.2f}", f"{minutes:.2f}", share)
    return table


def _seconds(row: dict[str, Any]) -> float:
    return float(row["pass_s"] + sum(row["epoch_s"]))


def _cost_figure(rows: list[dict[str, Any]]) -> Figure:
    """Draw minutes against epochs, a line for each way and resolution."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    tuned = [row for row in rows if row.get("epoch_s") and row["stage"] in {"sgd", "one-pass"}]
    for stage, res in dict.fromkeys((row["stage"], row["res"]) for row in tuned):
        same = [row for row in tuned if (row["stage"], row["res"]) == (stage, res)]
        epochs = range(len(same[0]["epoch_s"]) + 1)
        minutes = [statistics.mean(row["pass_s"] + sum(row["epoch_s"][:done]) for row in same) / 60 for done in epochs]
        axes.plot(epochs, minutes, "-" if stage == "sgd" else "--", marker=".", label=f"{stage} at {res} px")
    axes.set(xlabel="epochs", ylabel="minutes", title="what fine-tuning costs")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


app = App(name="methods.py", help=__doc__, help_format="plaintext")


@app.default
def _run_app(bench: Bench) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
