"""Figures that the README repeats are those of the results files."""

import statistics
from pathlib import Path
from typing import Any

import pytest
from kept import Kept, kept_in

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")

TEXT = " ".join(README.split())
"""Without line breaks."""

COPIES_AGAINST = (
    ("torchvision", "torchvision's DataLoader"),
    ("ffcv", "FFCV"),
    ("ffcv-raw50", "FFCV with half of its images uncompressed"),
)


@pytest.mark.parametrize("stage", ["before", "one-pass", "sgd", "frechet"])
def test_accuracies_are_those_measured(stage: str) -> None:
    """Mean and spread over seeds stand in one row of a table, in the order of the resolutions."""
    kept = _kept("methods-grocery")
    assert kept.path.name in README
    results = kept.content["results"]
    sides = sorted({row["res"] for row in results})
    values = [[row["top1"] for row in results if (row["stage"], row["res"]) == (stage, side)] for side in sides]
    cells = (f" {statistics.mean(some):.1f} ± {statistics.stdev(some):.1f} " if some else " " for some in values)
    assert f"|{'|'.join(cells)}|\n" in README


@pytest.mark.parametrize(
    ("name", "sweep"), [("trained at 128 px", "sweep_before"), ("and fixed for 320 px", "sweep_after")]
)
def test_the_demo_is_as_measured(name: str, sweep: str) -> None:
    """The demo's rows are those of the sweeps."""
    kept = _kept("demo")
    assert kept.path.name in README
    rows = kept.content[sweep]
    assert f"| {name} | {' | '.join(format(row['top1'], '.1f') for row in rows)} |\n" in README


def test_ratios_are_those_measured() -> None:
    """Changes of resolution, and what keeping memory brings, as in the results of two cores."""
    summary = _read("switching")["summary"]
    ours, rebuilt, loader = (
        next(row for row in summary if row["loader"] == name)
        for name in ("dali-fixres", "rebuilt pipeline", "new DataLoader")
    )
    worst = f"{ours['worst_first_ratio']:.2f} at the worst change"
    assert f"takes {ours['first_ratio']:.2f} times as long as a steady one ({worst})" in TEXT
    assert (
        f"built anew {rebuilt['first_ratio']:.2f} times, with a new DataLoader {loader['first_ratio']:.2f} times"
        in TEXT
    )
    repeats = {(row["loader"], row["res"]): row["repeats"] for row in _read("freed_memory")["results"]}
    for res, words in ((128, "as fast at 128 px"), (224, "at 224 px")):
        pairs = zip(repeats["kept", res], repeats["given back", res], strict=True)
        assert f"{statistics.median(kept / other for kept, other in pairs):.2f} times {words}" in TEXT


def test_training_high_from_the_start_is_as_measured() -> None:
    """Its accuracy, and what both ways take in epochs at the low resolution."""
    results = _read("methods-grocery")["results"]
    high, fixed = (
        [row["top1"] for row in results if (row["stage"], row["res"]) == (stage, 192)]
        for stage in ("trained at 192 px", "one-pass")
    )
    assert f"has {statistics.mean(high):.1f} ± {statistics.stdev(high):.1f} % there ({len(high)} seeds)" in TEXT
    assert f"fixed for 192 px in one pass {statistics.mean(fixed):.1f} %" in TEXT
    costs = _read("finetune_cost-grocery")["costs"]
    took = {row["method"]: row["low_epochs"] for row in costs if (row["res"], row["epochs"]) == (192, 8)}
    assert f"for the time of {took['train']:.1f} epochs at 128 px" in TEXT
    assert f"for that of {8 + took['one-pass']:.1f}." in TEXT


def test_other_loaders_are_as_measured() -> None:
    """Least and most ratio over the resolutions of each loader, wins and losses."""
    found = _read("throughput")
    sides = [verdict["res"] for verdict in found["verdicts"]]
    assert f"from originals at {min(sides)} to {max(sides)} px: the loader is" in TEXT
    repeats = {(row["loader"], row["res"]): row["repeats"] for row in found["results"] if row["stage"] == "loader"}
    for name, words in (
        ("torchvision", "as fast as torchvision's DataLoader"),
        ("torchvision-v2", "as its v2 on tensors"),
        ("timm", "as timm's"),
        ("spdl", "as SPDL"),
        ("ffcv", "as FFCV"),
        ("ffcv-raw50", "as FFCV with half of them uncompressed"),
    ):
        ratios = [
            statistics.median(
                ours / other for ours, other in zip(repeats["dali-fixres", res], repeats[name, res], strict=True)
            )
            for res in sides
        ]
        assert f"{min(ratios):.2f} to {max(ratios):.2f} times {words}" in TEXT


def test_copies_are_as_measured() -> None:
    """At 128 and 224 px: against originals and other loaders."""
    repeats = {(row["loader"], row["res"]): row["repeats"] for row in _read("prepared")["results"]}

    def ratio(other: str, res: int) -> float:
        rounds = zip(repeats["prepared", res], repeats[other, res], strict=True)
        return float(statistics.median(ours / theirs for ours, theirs in rounds))

    def times(other: str) -> list[str]:
        return [f"{ratio(other, res):.2f}" for res in (128, 224)]

    low, high = times("originals")
    assert f"come {low} times as fast as from the originals at 128 px and {high} times at 224 px" in TEXT
    others = [(times(name), words) for name, words in COPIES_AGAINST]
    assert ", ".join(f"{low} and {high} times {words}" for (low, high), words in others) in TEXT
    sides = sorted({res for _, res in repeats})

    def compared(other: str) -> list[str]:
        """Tell in which order both are, at each resolution; where rounds differ about that, in none."""
        stop_signals = []
        for res in sides:
            ahead = {ours > theirs for ours, theirs in zip(repeats["prepared", res], repeats[other, res], strict=True)}
            stop_signals.append("tie" if len(ahead) == 2 else "ahead" if True in ahead else "behind")
        return stop_signals

    assert sides == [128, 160, 224, 288, 320]
    assert compared("ffcv") == ["ahead", "ahead", "behind", "behind", "behind"]
    assert "FFCV is faster from 224 px on" in TEXT
    assert "it is faster than FFCV up to 160 px" in TEXT
    assert compared("ffcv-raw50") == ["tie", "behind", "behind", "behind", "behind"]
    assert "uncompressed it is about as fast at 128 px, and faster from 160 px on" in TEXT


def _read(bench: str) -> Any:
    return _kept(bench).content


def _kept(bench: str) -> Kept:
    """Return the newest results of two cores."""
    (kept,) = (one for one in kept_in(RESULTS) if (one.what, one.machine) == (bench, "2-core-cpu"))
    return kept


def test_broken_files_cost_what_was_measured() -> None:
    """The table of docs/reliability.md, row by row."""
    kept = _kept("unreadable")
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert kept.path.name in text
    rows = kept.content["results"]
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        cells = f"{first['share']:.1%} | {first['num_broken']:,} | {first['ratio']:.2f} | {second['ratio']:.2f}"
        assert f"| {cells} |\n" in text
