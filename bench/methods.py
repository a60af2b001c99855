"""What each method of fine-tuning gains: a network trained low, tested before and after, over several seeds.

Runs `dali-fixres`, one command at a time, and keeps every run in --folder: what is finished there is not run again.

    uv run python -m bench.methods --data DIR --recipe bench/grocery.toml --weights FILE
    uv run python -m bench.methods --data DIR --recipe FILE.toml --res 192 --baseline 192 --seeds 0
"""

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.harness import Bench, DataFlags, Table
from bench.saved import Content
from dali_fixres.runtime import Reporter
from pipelines import Dataset, UserError

GROCERY = Path(__file__).with_name("grocery.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodsFlags(DataFlags):
    """Flags."""

    recipe: Path = GROCERY
    """TOML file for `train --config`: network, low resolution, epochs, learning rate."""

    weights: Path | None = None
    """Weights that training starts from."""

    seeds: str = "0,1,2"
    """Separated by commas."""

    sweep: str = "128,160,192,224,256"
    """Pixels to test at before fine-tuning, separated by commas."""

    res: str = "160,192,224"
    """Pixels to fix for, separated by commas."""

    methods: str = "sgd,cached-features,frechet"
    """Methods of `finetune`, separated by commas."""

    epochs: int = 8
    """Of fine-tuning."""

    baseline: str = ""
    """Pixels to train at from the start as well, separated by commas."""

    folder: Path = Path("runs/methods")
    """Where the runs are kept, in a folder for each data set and settings."""


def measure(flags: MethodsFlags, dataset: Dataset, reporter: Reporter) -> dict[str, Any]:
    """Run what is missing, and read the accuracies."""
    recipe = flags.recipe.read_text(encoding="utf-8")
    settings = (str(dataset.root.resolve()), recipe, str(flags.weights), flags.epochs, flags.sweep)
    name = f"{dataset.root.name}-{sha256(repr(settings).encode()).hexdigest()[:8]}"
    runs = Runs(flags, flags.folder / name, flags.data or dataset.root, reporter)
    rows = []
    for seed in _numbers(flags.seeds):
        low = f"low-{seed}"
        rows.append(runs.trained("low", low, seed))
        rows += runs.swept(low, seed)
        rows += [
            runs.tuned(low, method, res, seed) for res in _numbers(flags.res) for method in flags.methods.split(",")
        ]
        for res in _numbers(flags.baseline):
            rows.append(runs.trained(f"trained at {res} px", f"high-{res}-{seed}", seed, "--train-res", str(res)))
    return {"recipe": recipe, "results": rows}


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """The runs of this bench in a folder."""

    flags: MethodsFlags
    folder: Path
    data: Path
    reporter: Reporter

    def trained(self, stage: str, name: str, seed: int, *more: str) -> dict[str, Any]:
        """Train a network."""
        flags = self.flags
        weights = ["--weights", str(flags.weights)] if flags.weights else []
        words = ["train", "--config", str(flags.recipe), "--data", str(self.data), *weights, "--seed", str(seed), *more]
        last = self._finished(name, words)["results"][-1]
        return {"stage": stage, "seed": seed, "res": last["test_res"], "top1": last["top1"]}

    def swept(self, name: str, seed: int) -> list[dict[str, Any]]:
        """Test a trained network at every resolution, before any fine-tuning."""
        run = self.folder / name
        sweep = run / "sweep.json"
        if not sweep.exists():
            flags = ["--data", str(self.data), "--checkpoint", str(run / "last.pt"), "--test-res", self.flags.sweep]
            self._call(["evaluate", *flags, "--json", str(sweep), "--plot", str(run / "sweep.png")])
        results = json.loads(sweep.read_text(encoding="utf-8"))["results"]
        return [{"stage": "before", "seed": seed, "res": row["test_res"], "top1": row["top1"]} for row in results]

    def tuned(self, low: str, method: str, res: int, seed: int) -> dict[str, Any]:
        """Fix a trained network for a resolution."""
        epochs = [] if method == "frechet" else ["--epochs", str(self.flags.epochs)]
        checkpoint = ["--checkpoint", str(self.folder / low / "last.pt"), "--test-res", str(res)]
        words = ["finetune", *checkpoint, "--method", method, "--seed", str(seed), *epochs]
        results = self._finished(f"{method}-{res}-{seed}", words)["after"]
        after = next(row for row in results if row["test_res"] == res)
        return {"stage": method, "seed": seed, "res": res, "top1": after["top1"]}

    def _finished(self, name: str, words: list[str]) -> Any:
        """Run `train` or `finetune` unless it is finished, from where it was stopped; return its results."""
        run = self.folder / name
        if not (run / "results.json").exists():
            resume = ["--resume"] if (run / "last.pt").exists() else []
            self._call([*words, *resume, "--device", self.flags.device, "--out", str(run)])
        return json.loads((run / "results.json").read_text(encoding="utf-8"))

    def _call(self, words: list[str]) -> None:
        self.reporter.line(f"dali-fixres {' '.join(words)}")
        command = [sys.executable, "-m", "dali_fixres", *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own command
        if done.returncode != 0:
            raise UserError(f"dali-fixres {' '.join(words)} failed: {done.stderr.strip()[-1000:]}")


def tables(content: Content) -> list[Table]:
    """Return top-1 by method and resolution."""
    rows = content["results"]
    sides = sorted({row["res"] for row in rows})
    lines = []
    for stage in dict.fromkeys(row["stage"] for row in rows):
        values = [[row["top1"] for row in rows if (row["stage"], row["res"]) == (stage, side)] for side in sides]
        lines.append([stage, *map(_mean_and_spread, values)])
    return [Table("Top-1 %, mean ± standard deviation over seeds", ("", *(f"{side} px" for side in sides)), lines)]


def _mean_and_spread(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


BENCH = Bench("methods", __doc__, MethodsFlags, measure, tables)

if __name__ == "__main__":
    BENCH.main()
