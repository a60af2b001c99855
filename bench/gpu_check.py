"""Every check that needs a GPU, part by part, in less than eight minutes.

    uv run python bench/gpu_check.py --out runs/gpu
    uv run python bench/gpu_check.py --out runs/gpu --data FOLDER --tested-weights FILE --recipe FILE.toml

Each part runs in a process of its own with a time limit, as it may crash or hang; that is a result too. A part may take
what is left of the time, less the limits of those to come. What it has found is DIR/PART.json, with its output in
DIR/PART.log; parts that measure many things keep each in DIR/PART.jsonl as it comes. The same command goes on where the
last one ended: what is finished is not run again. DIR/summary.json says which goals are reached. Exit code 1 if one is
missed or a part has failed.
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
from gpu_rows import rows_in
from harness import start
from rich.table import Table

from dali_fixres.commands.decoding import DECIDES
from dali_fixres.errors import UserError
from dali_fixres.report.environment import environment
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import print_table
from dali_fixres.runs import write_json

BENCH = Path(__file__).parent

OWN = "gpu_parts.py"
"""The script of the parts that no other bench has."""

TOTAL_S = 480.0
"""Of one call."""

GRACE_S = 5.0
"""For a part that is over its limit, to save what it is at."""

DONE = "done"

SAME = ("gpu", *DECIDES)
"""What figures of one folder are all measured with."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Flags."""

    out: Path
    """Folder for what is found."""

    data: Path | None = None
    """A data set for evaluation and real training, as for `dali-fixres train`."""

    tested_weights: Path | None = None
    """Weights of a network that knows the data's classes, to test on CPU and GPU."""

    tested_model: str | None = None
    """The network of these; recognised if left out."""

    recipe: Path | None = None
    """TOML file for real training, as for `methods.py`."""

    weights: Path | None = None
    """Weights that real training starts from."""

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

    def lacks(self, name: str) -> list[str]:
        """Return the flags that a part needs and does not have."""
        return [_flag(field) for field in PARTS[name].needs if getattr(self, field) is None]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the check.

    Attributes:
        limit_s: It is ended after this, or later where time is left.
        script: In this folder.
        words: What it is told, if it is another bench.
        needs: Fields of the flags without which it is left out.
        every_time: Whether it is run in every call: it fills the cache, which may be gone, and is quick if it is not.
    """

    limit_s: float
    script: str = OWN
    words: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    every_time: bool = False


PARTS: Mapping[str, Part] = {
    "pictures": Part(40, every_time=True),
    "decoding": Part(90, every_time=True),
    "tests": Part(35),
    "damaged": Part(20),
    "parity": Part(20, "parity.py", ("--res=128,224,320", "--batch-size=20", "--quick")),
    "loader": Part(50),
    "training": Part(55),
    "waits": Part(20),
    "switching": Part(25),
    "steps": Part(20),
    "finetune": Part(
        25,
        "finetune_cost.py",
        ("--device=cuda", "--res=128,320,384", "--model=resnet50", "--batch-size=128", "--repeats=1"),
    ),
    "evaluation": Part(25, needs=("data", "tested_weights")),
    "compiling": Part(35),
    "real": Part(20, "methods.py", needs=("data", "recipe")),
}
"""In the order they are run. Their limits add up to the total."""


def main(check: Check) -> bool:
    """Run what is missing, write the summary, and return whether no part has failed and no goal is missed."""
    if not torch.cuda.is_available():
        driver = environment()["driver"]
        raise UserError(
            f"torch {torch.__version__}, made for CUDA {torch.version.cuda}, finds no NVIDIA GPU on this machine "
            f"({f'its driver is {driver}' if driver else 'nvidia-smi names no driver'}), and every part needs one"
        )
    check.out.mkdir(parents=True, exist_ok=True)
    keep_to_one_machine(check.out, environment())
    reporter = Reporter()
    ends = time.monotonic() + TOTAL_S
    states: dict[str, str] = {}
    failed: list[str] = []
    for name in PARTS:
        states[name] = state_before(check, name)
        if not states[name]:
            states[name], has_failed = _taken(check, name, ends - time.monotonic(), reporter)
            failed += [name] if has_failed else []
        reporter.line(f"{name}: {states[name]}")
    goals = judged(finished(check.out))
    summary = {"environment": environment(), "parts": states, "goals": [asdict(goal) for goal in goals]}
    write_json(check.out / "summary.json", summary)
    print_table("goals", _table(goals))
    reporter.line(f"figures in {check.out / 'summary.json'}")
    return not failed and all(goal.passed is not False for goal in goals)


def keep_to_one_machine(out: Path, found: Mapping[str, Any]) -> None:
    """Refuse a folder with figures of another GPU, driver or version, which would be judged as one with these.

    Raises:
        UserError: If it has such.
    """
    machine, kept = {name: found[name] for name in SAME}, out / "machine.json"
    if not kept.exists():
        write_json(kept, machine)
    elif (other := loads(kept.read_text(encoding="utf-8"))) != machine:
        changed = ", ".join(f"{name} {other.get(name)}" for name in SAME if other.get(name) != machine[name])
        raise UserError(f"the figures in {out} are of {changed}; give another --out")


def state_before(check: Check, name: str) -> str:
    """Say why a part is not to be run, or return an empty string."""
    if name not in check.wanted:
        return "not asked for"
    if missing := check.lacks(name):
        return f"left out; give {' and '.join(missing)}"
    return "done before" if not PARTS[name].every_time and state_of(check.out, name) == DONE else ""


def state_of(out: Path, name: str) -> str:
    """Say whether a part is done, or how much of it is not."""
    file = out / f"{name}.json"
    if not file.exists():
        return "not done"
    left = len(loads(file.read_text(encoding="utf-8")).get("left_out", []))
    return f"{left} settings left; run the same command again" if left else DONE


def allowed_s(check: Check, name: str, left_s: float) -> float:
    """Return what a part may take of the time that is left: those after it that are to be run keep their limits."""
    later = list(PARTS)[list(PARTS).index(name) + 1 :]
    return left_s - sum(PARTS[other].limit_s for other in later if not state_before(check, other))


def _taken(check: Check, name: str, left_s: float, reporter: Reporter) -> tuple[str, bool]:
    """Run a part if it fits the time; return what has become of it, and whether it has failed."""
    part, limit_s = PARTS[name], allowed_s(check, name, left_s)
    if "decoding" in check.wanted and not part.every_time and state_of(check.out, "decoding") != DONE:
        return "waits for decoding, which it would try all over; run the same command again", False
    if limit_s < part.limit_s:
        return "no time left; run the same command again", False
    reporter.line(f"{name}, {limit_s:.0f} s at most")
    problem = _run(check, name, limit_s)
    return (f"{problem}; see {name}.log", True) if problem else (state_of(check.out, name), False)


def _run(check: Check, name: str, limit_s: float) -> str:
    """Run a part; return what is wrong, or an empty string."""
    target = check.out / f"{name}.json"
    target.unlink(missing_ok=True)  # rows that it is made of are kept
    with (check.out / f"{name}.log").open("a", encoding="utf-8") as log:
        outcome = run_limited(command_of(check, name, limit_s - GRACE_S), limit_s - GRACE_S, log.fileno())
    return outcome or ("" if target.exists() else "failed: it has written no figures")


def command_of(check: Check, name: str, seconds: float) -> list[str]:
    """Return the command line of a part that is ended so many seconds from now."""
    part = PARTS[name]
    words = [sys.executable, str(BENCH / part.script)]
    if part.script == OWN:
        given = {field: value for field, value in asdict(check).items() if value not in {None, "", False}}
        ends = time.monotonic() + seconds
        return [*words, name, f"--ends={ends:.1f}", *(f"{_flag(field)}={value}" for field, value in given.items())]
    if part.script == "methods.py":
        words += [f"--data={check.data}", f"--recipe={check.recipe}", f"--res={check.res}"]
        words += [f"--weights={check.weights}"] if check.weights else []
        words.append(f"--folder={check.out / name}")
    elif check.quick and "--quick" not in part.words:
        words.append("--quick")
    return [*words, *part.words, f"--json={check.out / name}.json"]


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"


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
        return f"not finished within {limit_s:.0f} s; run the same command again"
    return ending(code)


def ending(code: int) -> str:
    """Say how a process has ended, from its return code; an empty string if well."""
    if code < 0:
        return f"crashed with {signal.Signals(-code).name}"
    return f"failed with exit code {code}" if code else ""


def finished(out: Path) -> dict[str, Any]:
    """Return what the parts have found, those that were ended included."""
    found: dict[str, Any] = {}
    for name in PARTS:
        file = out / f"{name}.json"
        if file.exists():
            found[name] = loads(file.read_text(encoding="utf-8"))
        elif rows := rows_in(out / f"{name}.jsonl"):
            found[name] = {"results": rows}
    return found


def _table(goals: Sequence[Goal]) -> Table:
    table = Table("goal", "found", "")
    for goal in goals:
        table.add_row(goal.text, goal.found, {True: "reached", False: "missed", None: ""}[goal.passed])
    return table


app = App(name="gpu_check.py", help=__doc__, help_format="plaintext")


@app.default
def _run_app(check: Check) -> None:
    if not main(check):
        sys.exit(1)


if __name__ == "__main__":
    start(app)
