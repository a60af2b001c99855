"""Figures that the README repeats are those of the results files."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", ["before", "one-pass", "sgd", "frechet"])
def test_accuracies_are_those_measured(stage: str) -> None:
    """Mean and spread over seeds stand in one row of a table, in the order of the resolutions."""
    (path,) = RESULTS.glob("methods-grocery_*.json")
    assert path.name in README
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    sides = sorted({row["res"] for row in results})
    values = [[row["top1"] for row in results if (row["stage"], row["res"]) == (stage, side)] for side in sides]
    cells = (f" {statistics.mean(some):.1f} ± {statistics.stdev(some):.1f} " if some else " " for some in values)
    assert f"|{'|'.join(cells)}|\n" in README


@pytest.mark.parametrize(
    ("name", "sweep"), [("trained at 128 px", "sweep_before"), ("and fixed for 320 px", "sweep_after")]
)
def test_the_demo_is_as_measured(name: str, sweep: str) -> None:
    """The demo's rows are those of the sweeps."""
    (path,) = RESULTS.glob("demo_*.json")
    assert path.name in README
    rows = json.loads(path.read_text(encoding="utf-8"))[sweep]
    assert f"| {name} | {' | '.join(format(row['top1'], '.1f') for row in rows)} |\n" in README


def test_ratios_are_those_measured() -> None:
    """Changes of resolution, and what keeping memory brings, as in the results of two cores."""
    text = " ".join(README.split())
    summary = _read("switching")["summary"]
    ours, rebuilt, loader = (
        next(row for row in summary if row["loader"] == name)
        for name in ("dali-fixres", "rebuilt pipeline", "new DataLoader")
    )
    assert (
        f"takes {ours['first_ratio']:.2f} times as long as a steady one ({ours['worst_first_ratio']:.2f} at worst)"
        in text
    )
    assert (
        f"built anew {rebuilt['first_ratio']:.2f} times, with a new DataLoader {loader['first_ratio']:.2f} times"
        in text
    )
    repeats = {(row["loader"], row["res"]): row["repeats"] for row in _read("freed_memory")["results"]}
    for res, words in ((128, "as fast at 128 px"), (224, "at 224 px")):
        pairs = zip(repeats["kept", res], repeats["given back", res], strict=True)
        assert f"{statistics.median(kept / other for kept, other in pairs):.2f} times {words}" in text


def test_training_high_from_the_start_is_as_measured() -> None:
    """Its accuracy, and what both ways take in epochs at the low resolution."""
    text = " ".join(README.split())
    results = _read("methods-grocery")["results"]
    high, fixed = (
        [row["top1"] for row in results if (row["stage"], row["res"]) == (stage, 192)]
        for stage in ("trained at 192 px", "one-pass")
    )
    assert f"has {statistics.mean(high):.1f} ± {statistics.stdev(high):.1f} % there ({len(high)} seeds)" in text
    assert f"fixed for 192 px in one pass {statistics.mean(fixed):.1f} %" in text
    costs = _read("finetune_cost-grocery")["costs"]
    took = {row["method"]: row["low_epochs"] for row in costs if (row["res"], row["epochs"]) == (192, 8)}
    assert f"for the time of {took['train']:.1f} epochs at 128 px" in text
    assert f"for that of {8 + took['one-pass']:.1f}." in text


def _read(bench: str) -> Any:
    (path,) = RESULTS.glob(f"{bench}_2-core-cpu_*.json")
    return json.loads(path.read_text(encoding="utf-8"))
