"""Goals of the benches, judged on figures made up for it."""

from typing import Any

import pytest
from goals import goals_of_throughput


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
