"""Everything that needs a GPU, in one command: a smoke test, `pytest -m gpu`, and the benches.

Steps run one after the other, each with a time limit of its own. After each of them results.tgz is refreshed, so
whatever fails later, what was measured is in it: results, logs, and summary.json with how each step has ended.

    uv run python -m bench.on_gpu
    uv run python -m bench.on_gpu --out DIR --only smoke,tests,throughput
    uv run python -m bench.on_gpu --device cpu --quick     # the same steps on a CPU
"""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.harness import run_command
from bench.saved import RESULTS
from dali_fixres.runtime import Reporter, choose_device, record_environment
from pipelines import UserError

ROOT = RESULTS.parents[1]

MINUTES = {
    "throughput": 15,
    "switching": 10,
    "precision": 5,
    "finetune_cost": 10,
    "parity": 10,
    "prepared": 15,
    "scaling": 15,
}
"""Limits of the benches."""

SUMMARY, ARCHIVE = "summary.json", "results.tgz"


class Step(NamedTuple):
    """A command, and the most that it may take."""

    name: str
    words: Sequence[str]
    limit_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """How a step has ended: ``passed``, ``failed`` (with its exit code) or ``timed out``."""

    name: str
    outcome: Literal["passed", "failed", "timed out"]
    seconds: float
    exit_code: int | None


def steps_of(out: Path, device: str, more: Sequence[str], only: str | None = None) -> list[Step]:
    """Return the steps.

    Args:
        out: Folder of their results.
        device: Where benches run.
        more: More flags of all benches.
        only: Steps asked for, separated by commas.

    Raises:
        UserError: If one of them is not a step.
    """
    python = sys.executable
    smoke = [f"--device={device}", "--epochs=1", "--train-res=64", f"--out={out / 'smoke'}"]
    tests = ["-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests"]
    steps = [Step("smoke", [python, "-m", "dali_fixres", "train", *smoke], 300), Step("tests", [python, *tests], 900)]
    for name, minutes in MINUTES.items():
        words = ["-m", f"bench.{name}", f"--device={device}", *more, f"--json={out / name}.json"]
        steps.append(Step(name, [python, *words], 60 * minutes))
    names = [step.name for step in steps]
    wanted = only.split(",") if only else names
    if unknown := set(wanted) - set(names):
        raise UserError(f"--only takes {', '.join(names)}; found {', '.join(sorted(unknown))}")
    return [step for step in steps if step.name in wanted]


def run_step(step: Step, folder: Path) -> Ended:
    """Run a step with its output in a log; end all its processes at its limit."""
    begun = time.perf_counter()
    with (folder / f"{step.name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            list(step.words), stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
        )
        try:
            code: int | None = process.wait(step.limit_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            code = None
    outcome: Any = "timed out" if code is None else "failed" if code else "passed"
    return Ended(step.name, outcome, round(time.perf_counter() - begun, 1), code)


def refresh_archive(folder: Path, ended: Sequence[Ended]) -> Path:
    """Write the summary of the steps so far, and an archive of all results and logs, each in one step."""
    content = {"environment": record_environment(), "steps": [asdict(one) for one in ended]}
    (folder / SUMMARY).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    archive, partial = folder / ARCHIVE, folder / f".{ARCHIVE}"
    with tarfile.open(partial, "w:gz") as tar:
        for path in sorted([*folder.glob("*.json"), *folder.glob("*.log")]):
            tar.add(path, path.name)
    partial.replace(archive)
    return archive


def run(steps: Sequence[Step], folder: Path, reporter: Reporter) -> list[Ended]:
    """Run steps, whatever becomes of each, and return how they have ended."""
    folder.mkdir(parents=True, exist_ok=True)
    ended: list[Ended] = []
    for step in steps:
        reporter.line(f"{step.name} (at most {step.limit_s / 60:g} min)")
        ended.append(run_step(step, folder))
        archive = refresh_archive(folder, ended)
        reporter.line(f"{step.name}: {ended[-1].outcome} after {ended[-1].seconds:.0f} s; {archive} is up to date")
    return ended


def main(
    *,
    out: Path | None = None,
    device: Literal["cpu", "cuda"] = "cuda",
    quick: bool = False,
    data: Path | None = None,
    only: str | None = None,
) -> None:
    """Run the steps; exit with 1 if one has not passed.

    Args:
        out: Folder for results, logs and the archive; `runs/on_gpu-<time>` if left out.
        device: Where benches run.
        quick: The short form of each bench.
        data: Data set of the benches; synthetic images if left out.
        only: Steps, separated by commas; all if left out.
    """
    if device == "cuda":
        choose_device(device)  # fails here, and not in each step, if there is no GPU
    folder = (out or Path(f"runs/on_gpu-{datetime.now().astimezone():%Y%m%d-%H%M%S}")).absolute()
    more = [*(["--quick"] if quick else []), *([f"--data={data.absolute()}"] if data else [])]
    ended = run(steps_of(folder, device, more, only), folder, Reporter())
    if bad := [f"{one.name} ({one.outcome})" for one in ended if one.outcome != "passed"]:
        sys.exit(f"not passed: {', '.join(bad)}; see the logs in {folder}")


if __name__ == "__main__":
    run_command("on_gpu", __doc__, main)
