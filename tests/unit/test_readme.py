"""Figures that the README repeats are those of the results files."""

import json
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", ["before", "one-pass", "sgd", "frechet"])
def test_accuracies_are_those_measured(stage: str) -> None:
    """Mean and spread over seeds stand in one row of a table, in the order of the resolutions."""
    (path,) = (ROOT / "bench" / "results").glob("methods-grocery_*.json")
    assert path.name in README
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    sides = sorted({row["res"] for row in results})
    values = [[row["top1"] for row in results if (row["stage"], row["res"]) == (stage, side)] for side in sides]
    cells = (f" {statistics.mean(some):.1f} ± {statistics.stdev(some):.1f} " if some else " " for some in values)
    assert f"|{'|'.join(cells)}|\n" in README
