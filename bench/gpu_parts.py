"""The parts of `gpu_check.py` that no other bench has; it starts each in a process of its own.

    python bench/gpu_parts.py PART --ends SECONDS --out DIR …

Each writes ``results`` (a list of rows), and ``left_out``: the settings that its time was too short for.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

from dali_fixres.host import prepare_host

prepare_host()  # as the command line does, before torch is loaded

import torch
from cyclopts import App
from gpu_check import Check, ending
from gpu_damaged import CASES, tried_apart
from gpu_evaluation import answerings, answers_counted
from gpu_loader import CHANGES, changed_sizes, loader_settings, measured_loaders, prepared_pictures
from gpu_rows import Row, Rows
from gpu_training import BATCH, COMPILED, STEPS, TURNS, compiled_speed, measured_waits, step_speed, timed_turns
from harness import start
from pictures import bench_pictures

from dali_fixres.commands.decoding import decoding_for, trials_of, try_way
from dali_fixres.distributed import World
from dali_fixres.processes import loader_threads
from dali_fixres.report.environment import environment
from dali_fixres.report.progress import Reporter
from dali_fixres.runs import write_json
from pipelines import Decoding

CUDA = torch.device("cuda")

ROOT = Path(__file__).parents[1]

AT_ONCE = 4
"""Processes of a part that times nothing."""

TEST_S = 60.0
"""Longest that a file of tests may take."""

PartName = Literal[
    "pictures",
    "decoding",
    "tests",
    "damaged",
    "loader",
    "training",
    "waits",
    "switching",
    "steps",
    "evaluation",
    "compiling",
]


def pictures(check: Check, rows: Rows) -> Row:  # noqa: ARG001 - as all parts
    """Draw the pictures that other parts measure with, and make smaller copies of them."""
    started = time.monotonic()
    originals = bench_pictures()
    drawn = time.monotonic()
    prepared_pictures(originals)
    seconds = {"drawn": drawn - started, "prepared": time.monotonic() - drawn}
    return {"results": [{"what": what, "seconds": round(value, 1)} for what, value in seconds.items()]}


@dataclass(frozen=True, slots=True)
class Way:
    """A way to decode, to be tried."""

    decoding: Decoding


WAYS = tuple(
    Way(Decoding(region, load, fancy))
    for fancy in (True, False)
    for region in (True, False)
    for load in (0.0, 0.65, 1.0)
)
"""All that are to be known to be safe or not; the product tries those that its choice hangs on."""


def decoding(check: Check, rows: Rows) -> Row:
    """Try the ways that the product tries at its first start, each kept as there; then all others, side by side."""
    kept = trials_of(CUDA, Reporter())
    known = {attempt.decoding for attempt in kept.attempts}
    others = [] if check.quick else [way for way in WAYS if way.decoding not in known]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        filled = rows.fill(others, _tried_beside_others, pool.map)
    usual = [{**attempt.as_json(), "flaw": attempt.flaw} for attempt in kept.attempts]
    return {
        "results": usual,
        "others": filled["results"],
        "left_out": filled["left_out"],
        "hardware_engines": kept.hardware_engines,
        "choice": str(kept.choice.decoding),
        "why": kept.choice.why,
    }


def _tried_beside_others(way: Way) -> Row:
    attempt, _ = try_way(CUDA, way.decoding)
    return {**attempt.as_json(), "images_per_s": None, "flaw": attempt.flaw}  # the speed is not this way's alone


@dataclass(frozen=True, slots=True)
class FileOfTests:
    """A file with tests marked gpu, from the project's root."""

    file: str


def tests(check: Check, rows: Rows) -> Row:  # noqa: ARG001 - as all parts
    """Run the tests marked gpu, each file in a process of its own: one that crashes takes no others with it."""
    files = [path for path in sorted(ROOT.glob("tests/pipeline/*.py")) if "mark.gpu" in path.read_text("utf-8")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return rows.fill([FileOfTests(str(path.relative_to(ROOT))) for path in files], _tested, pool.map)


def _tested(one: FileOfTests) -> Row:
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "found.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", one.file, f"--junitxml={report}"]
        try:
            code = subprocess.run(command, cwd=ROOT, check=False, timeout=TEST_S).returncode  # noqa: S603
        except subprocess.TimeoutExpired:
            return {**counted(None), "problem": f"not finished within {TEST_S:g} s"}
        problem = ending(code) if code < 0 or not report.exists() else ""
        return {**counted(report.read_text("utf-8") if report.exists() else None), "problem": problem}


def counted(junit: str | None) -> Row:
    """Return how many tests have passed, failed and been skipped, of pytest's report (JUnit's XML), if there is one."""
    cases = [] if junit is None else list(ET.fromstring(junit).iter("testcase"))  # noqa: S314 - written by pytest
    failed, skipped = (
        [case.attrib["name"] for case in cases if any(case.find(tag) is not None for tag in tags)]
        for tags in (("failure", "error"), ("skipped",))
    )
    return {
        "num_passed": len(cases) - len(failed) - len(skipped),
        "num_failed": len(failed),
        "num_skipped": len(skipped),
        "failed": failed,
    }


def damaged(check: Check, rows: Rows) -> Row:  # noqa: ARG001 - as all parts
    """Damage one picture of a batch; see whether hardware and CUDA decoders name it or pass something off for it."""
    chosen = _decoding()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return rows.fill(CASES, lambda case: tried_apart(case, chosen), pool.map)


def loader(check: Check, rows: Rows) -> Row:  # noqa: ARG001 - as all parts
    """Measure the loader alone at all resolutions and settings, on originals and on scaled-down copies."""
    trials = trials_of(CUDA, Reporter())
    safe = [attempt.decoding for attempt in trials.attempts if not attempt.flaw]
    return measured_loaders(loader_settings(trials.choice.decoding, safe, loader_threads(), BATCH), rows)


def training(check: Check, rows: Rows) -> Row:
    """Train on the loader's batches and on one in memory, in turn, and see what the loader costs."""
    with timed_turns(_decoding(), seconds=1.0 if check.quick else 3.0) as timed:
        return rows.fill(TURNS, timed)


def waits(check: Check, rows: Rows) -> Row:  # noqa: ARG001 - as all parts
    """Train, and see how long the GPU and the host wait for data."""
    return measured_waits(_decoding(), 20 if check.quick else 80)


def switching(check: Check, rows: Rows) -> Row:  # noqa: ARG001 - as all parts
    """Change the resolution, and see what the first batch takes."""
    return rows.fill(CHANGES, changed_sizes(_decoding()))


def steps(check: Check, rows: Rows) -> Row:  # noqa: ARG001 - as all parts
    """Measure bare training steps by network, batch size and resolution."""
    return rows.fill(STEPS, step_speed)


def evaluation(check: Check, rows: Rows) -> Row:
    """Let the same weights answer on the CPU, and on the GPU in both precisions."""
    return rows.fill(answerings(check.res), answers_counted(check, _decoding()))


def compiling(check: Check, rows: Rows) -> Row:  # noqa: ARG001 - as all parts
    """Train with torch.compile, as `train --compile` does, and with CUDA graphs."""
    way = _decoding()
    return rows.fill(COMPILED, lambda one: compiled_speed(one, way))


def _decoding() -> Decoding:
    return decoding_for(CUDA, World(), Reporter())


MEASURES: dict[PartName, Callable[[Check, Rows], Row]] = {
    "pictures": pictures,
    "decoding": decoding,
    "tests": tests,
    "damaged": damaged,
    "loader": loader,
    "training": training,
    "waits": waits,
    "switching": switching,
    "steps": steps,
    "evaluation": evaluation,
    "compiling": compiling,
}

app = App(name="gpu_parts.py", help=__doc__, help_format="plaintext")


@app.default
def _run_app(part: PartName, /, check: Check, *, ends: float) -> None:
    found = MEASURES[part](check, Rows(check.out / f"{part}.jsonl", ends))
    write_json(check.out / f"{part}.json", {"bench": f"gpu_check/{part}", "environment": environment(), **found})


if __name__ == "__main__":
    start(app)
