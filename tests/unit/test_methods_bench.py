"""The bench of ways to fine-tune: its tables, and that runs of other settings are not reported."""

from pathlib import Path
from typing import Any

import pytest
from methods import Bench, accuracy_table, check_settings, cost_table
from rich.table import Table

from dali_fixres.errors import UserError


def rows_of(table: Table) -> list[list[str]]:
    """Return the cells of a table."""
    return [list(map(str, row)) for row in zip(*(column.cells for column in table.columns), strict=True)]


def run(stage: str, seed: int, top1: float, pass_s: float, epoch_s: list[float]) -> dict[str, Any]:
    """Return a row of a run at 96 px."""
    return {"stage": stage, "seed": seed, "res": 96, "top1": top1, "pass_s": pass_s, "epoch_s": epoch_s}


ROWS = [
    {"stage": "before", "seed": 0, "res": 64, "top1": 40.0},
    run("sgd", 0, 50.0, 0.0, [40.0, 40.0]),
    run("one-pass", 0, 49.0, 19.0, [0.5, 0.5]),
    run("sgd", 1, 52.0, 0.0, [20.0, 20.0]),
    run("one-pass", 1, 50.0, 19.0, [0.5, 0.5]),
]


def test_accuracy_is_mean_and_spread_over_seeds() -> None:
    """A way has a row, a resolution a column; one seed has no spread."""
    assert rows_of(accuracy_table(ROWS)) == [
        ["before", "40.00", ""], ["sgd", "", "51.00 ± 1.41"], ["one-pass", "", "49.50 ± 0.71"],
    ]  # fmt: skip


def test_costs_are_compared_within_a_seed() -> None:
    """Runs of one seed follow one another, so their ratio holds on a machine that others use, too."""
    assert rows_of(cost_table(ROWS)) == [
        ["sgd", "96", "0.0", "30.00", "1.00", ""],
        ["one-pass", "96", "19.0", "0.50", "0.33", "0.25, 0.50"],
    ]


def test_runs_of_other_settings_are_refused(tmp_path: Path) -> None:
    """The same settings go on in a folder; others are named and refused."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("epochs = 1\n")
    bench = Bench(data=tmp_path / "images", recipe=recipe, folder=tmp_path / "runs")
    check_settings(bench)
    check_settings(bench)
    recipe.write_text("epochs = 2\n")
    with pytest.raises(UserError, match=r"are of other settings \(recipe\); give another --folder"):
        check_settings(bench)
