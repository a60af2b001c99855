"""Goals of the benches, judged on figures made up for it."""

from typing import Any

import pytest
from goals import goals_of_switching, goals_of_throughput


def content(device: str, loader: float, step: float, overhead: float, efficiency: float) -> dict[str, Any]:
    """Return what the throughput bench writes, as far as goals look at it, at one resolution."""
    speeds = {"loader": loader, "train step": step}
    rows: list[dict[str, Any]] = [
        {"stage": stage, "loader": "dali-fixres", "res": 128, "images_per_s": speed} for stage, speed in speeds.items()
    ]
    share = "share_of_step" if device == "cpu" else "not_hidden_share"
    rows.append({"stage": "overhead", "loader": "dali-fixres", "res": 128, "images_per_s": 1.0, share: overhead})
    rows.append({"stage": "loader", "loader": "another", "res": 128, "images_per_s": 1e9})
    which = "shared_efficiency" if device == "cpu" else "overlap_efficiency"
    verdict = {"res": 128, "shared_efficiency": 0.0, "overlap_efficiency": 0.0, which: efficiency}
    return {"device": device, "results": rows, "verdicts": [verdict]}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_goals_are_reached_or_not(device: str) -> None:
    """Overlap is of fair shares on a CPU and of the slower one on a GPU; Python's share has a limit on each."""
    good, bad = content(device, 300, 100, 0.009, 0.95), content(device, 100, 290, 0.03, 0.94)
    assert [goal.passed for goal in goals_of_throughput(good)] == [True, True]
    assert [goal.passed for goal in goals_of_throughput(bad)] == [False, False]
    assert goals_of_throughput(bad)[0].found == "0.94 at 128 px"


def test_overlap_is_judged_where_the_two_are_near() -> None:
    """Beyond three times there is nothing to judge, and that is said instead of a pass."""
    overlap, _ = goals_of_throughput(content("cpu", 310, 100, 0, 0.5))
    assert (overlap.passed, overlap.found) == (None, "at no resolution are they that near")


def test_changes_are_judged_by_the_worst_pair() -> None:
    """Only those of our own stream count, between sizes met before; any batch of a wrong size is one too many."""
    rows = [
        {"stage": "switch", "loader": loader, "from": 128, "res": res, "first_ratio": ratio}
        for loader, res, ratio in (("dali-fixres", 160, 1.1), ("dali-fixres", 320, 1.2), ("new DataLoader", 320, 3.0))
    ]
    stage = {"stage": "train → evaluate", "loader": "dali-fixres", "from": 128, "res": 320, "first_ratio": 1.5}
    found = {"results": [*rows, stage], "num_batches": 9, "batches_at_wrong_resolution": 0}
    assert [(goal.passed, goal.found) for goal in goals_of_switching(found)] == [
        (True, "1.20 from 128 to 320 px"),
        (True, "0 of 9"),
    ]
    rows[0]["first_ratio"] = 1.21
    worse = {**found, "batches_at_wrong_resolution": 1}
    assert [(goal.passed, goal.found) for goal in goals_of_switching(worse)] == [
        (False, "1.21 from 128 to 160 px"),
        (False, "1 of 9"),
    ]
