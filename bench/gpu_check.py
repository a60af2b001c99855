"""Every check that needs a GPU, part by part, in less than eight minutes.

    uv run python bench/gpu_check.py --out DIR
    uv run python bench/gpu_check.py --out DIR --data FOLDER --recipe FILE.toml --model resnet50 --weights FILE

Each part runs in a process of its own with a time limit, as it may crash or hang; that is a result too. What a part
has found is DIR/PART.json, with its output in DIR/PART.log. A part whose file is there is not run again: the same
command goes on where the last one ended. DIR/summary.json says which goals are reached. Exit code 1 if one is missed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from json import loads
from pathlib import Path
from typing import Any

import torch
from cyclopts import App, Parameter
from gpu_goals import Goal, judged
from harness import start
from rich.table import Table

from dali_fixres.errors import UserError
from dali_fixres.report.environment import environment
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import print_table
from dali_fixres.runs import write_json

BENCH = Path(__file__).parent

TOTAL_S = 480.0
"""Of one call."""

GRACE_S = 5.0
"""For a part that is over its limit, to save what it is at."""

MEASURING = 0.6
"""Share of its limit that a part measures for; the rest is for starting, and for what it is at."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Flags."""

    out: Path
    """Folder for what is found."""

    data: Path | None = None
    """A data set for evaluation and real training, as for `dali-fixres train`."""

    model: str = "resnet50"
    """Network of the weights."""

    weights: Path | None = None
    """Weights to test on CPU and GPU, and to train from."""

    recipe: Path | None = None
    """TOML file for real training, as for `methods.py`."""

    res: str = "192,224,256"
    """Pixels to test at, and to fix for in real training."""

    only: str = ""
    """Parts to run, with commas between; all if left out."""

    quick: bool = False
    """Short and rough."""

    def __post_init__(self) -> None:
        if unknown := set(self.wanted) - PARTS.keys():
            raise UserError(f"--only: no part is called {min(unknown)!r}; there are {', '.join(PARTS)}")

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the parts to run."""
        return tuple(word for word in self.only.split(",") if word) or tuple(PARTS)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the check.

    Attributes:
        limit_s: It is ended after this.
        script: In this folder; with the part's name as its first word if it is the one with several.
        words: What else it is told.
        needs: Flags without which it is left out.
        takes_rest: Whether it may have what is left of the total as well.
    """

    limit_s: float
    script: str = "gpu_parts.py"
    words: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    takes_rest: bool = False


PARTS: Mapping[str, Part] = {
    "decoding": Part(95),
    "tests": Part(45),
    "damaged": Part(20),
    "parity": Part(20, "parity.py", ("--res=128,224,320", "--batch-size=20", "--quick")),
    "loader": Part(60),
    "switching": Part(
        40,
        "switching.py",
        ("--device=cuda", "--res=128,224,320", "--batch-size=128", "--repeats=2", "--num-batches=8"),
    ),
    "training": Part(
        65,
        "throughput.py",
        ("--device=cuda", "--res=128,160,224,320", "--model=resnet50", "--batch-size=256", "--repeats=1"),
    ),
    "waits": Part(20),
    "steps": Part(45),
    "finetune": Part(
        30,
        "finetune_cost.py",
        ("--device=cuda", "--res=128,320,384", "--model=resnet50", "--batch-size=128", "--repeats=1"),
    ),
    "evaluation": Part(20, needs=("data", "weights")),
    "real": Part(20, "methods.py", needs=("data", "recipe"), takes_rest=True),
}
"""In the order they are run. Their limits add up to the total."""


def main(check: Check) -> bool:
    """Run what is missing, write the summary, and return whether no part has failed and no goal is missed."""
    if not torch.cuda.is_available():
        raise UserError("torch finds no NVIDIA GPU on this machine, and every part of this check needs one")
    reporter = Reporter()
    check.out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + TOTAL_S
    states: dict[str, str] = {}
    failed: list[str] = []
    for name in PARTS:
        states[name] = state_before(check, name, ends - time.monotonic())
        if not states[name]:
            reporter.line(f"{name}, {PARTS[name].limit_s:.0f} s at most")
            problem = _run(check, name, ends - time.monotonic())
            states[name] = f"{problem}; see {name}.log" if problem else "done"
            failed += [name] if problem else []
        reporter.line(f"{name}: {states[name]}")
    goals = judged(finished(check.out))
    summary = {"environment": environment(), "parts": states, "goals": [asdict(goal) for goal in goals]}
    write_json(check.out / "summary.json", summary)
    print_table("goals", _table(goals))
    reporter.line(f"figures in {check.out / 'summary.json'}")
    return not failed and all(goal.passed is not False for goal in goals)


def state_before(check: Check, name: str, left_s: float) -> str:
    """Say why a part is not to be run now, or return an empty string."""
    part = PARTS[name]
    if (check.out / f"{name}.json").exists():
        return "done before"
    if name not in check.wanted:
        return "not asked for"
    if missing := [f"--{flag}" for flag in part.needs if getattr(check, flag) is None]:
        return f"left out; give {' and '.join(missing)}"
    if left_s < part.limit_s:
        return "no time left; run the same command again"
    return ""


def _run(check: Check, name: str, left_s: float) -> str:
    """Run a part; return what is wrong, or an empty string."""
    part = PARTS[name]
    limit_s = left_s if part.takes_rest else part.limit_s
    target = check.out / f"{name}.json"
    with (check.out / f"{name}.log").open("w", encoding="utf-8") as log:
        outcome = run_limited(command_of(check, name, limit_s), limit_s - GRACE_S, log.fileno())
    return outcome or ("" if target.exists() else "failed: it has written no figures")


def command_of(check: Check, name: str, limit_s: float) -> list[str]:
    """Return the command line of a part."""
    part = PARTS[name]
    words = [sys.executable, str(BENCH / part.script)]
    if part.script == "gpu_parts.py":
        given = {"data": check.data, "weights": check.weights, "model": check.model, "res": check.res}
        words += [name, f"--seconds={MEASURING * limit_s:.0f}"]
        words += [f"--{flag}={value}" for flag, value in given.items() if value is not None]
    if part.script == "methods.py":
        words += [f"--data={check.data}", f"--recipe={check.recipe}", f"--res={check.res}"]
        words += [f"--weights={check.weights}"] if check.weights else []
        words.append(f"--folder={check.out / name}")
    elif check.quick and "--quick" not in part.words:
        words.append("--quick")
    return [*words, *part.words, f"--json={check.out / name}.json"]


def run_limited(command: Sequence[str], limit_s: float, output: int) -> str:
    """Run a command and all that it starts; return how it has ended if not well.

    Over the limit it is asked to end, as by a batch system, and after some grace it is killed.
    """
    process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)  # noqa: S603
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return f"not finished within {limit_s:g} s; run the same command again"
    if code < 0:
        return f"crashed with {signal.Signals(-code).name}"
    return f"failed with exit code {code}" if code else ""


def finished(out: Path) -> dict[str, Any]:
    """Return what the finished parts have found."""
    files = {name: out / f"{name}.json" for name in PARTS}
    return {name: loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}


def _table(goals: Sequence[Goal]) -> Table:
    table = Table("goal", "found", "")
    for goal in goals:
        table.add_row(goal.text, goal.found, {True: "reached", False: "missed", None: ""}[goal.passed])
    return table


app = App(name="gpu_check.py", help=__doc__)


@app.default
def _run_app(check: Check) -> None:
    if not main(check):
        sys.exit(1)


if __name__ == "__main__":
    start(app)
