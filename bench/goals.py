"""What is to be reached on any machine, judged by what `throughput.py` and `switching.py` have found. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from stages import OURS

__all__ = ["Goal", "goals_of_switching", "goals_of_throughput", "goals_table"]

LEAST_OVERLAP = 0.95
"""Together, over what loader and step can come to."""

WITHIN = 3.0
"""Times by which loader and step may differ for that to be judged: beyond, the slower one hides the other anyway."""

MOST_PYTHON = {"cpu": 0.01, "cuda": 0.02}
"""Of a step; on a GPU what is not hidden behind the device."""

MOST_OF_CHANGE = 1.2
"""Of a steady batch, for the first one after a change of resolution, whichever."""

Content = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal, and whether it is reached.

    Attributes:
        text: What is to be reached.
        found: What was found, in words.
        passed: None if it was not measured.
    """

    text: str
    found: str = "not measured"
    passed: bool | None = None


def goals_of_throughput(content: Content) -> list[Goal]:
    """Return the goals for overlap and for Python, judged at each resolution."""
    return [_overlap(content), _python(content)]


def goals_of_switching(content: Content) -> list[Goal]:
    """Return the goals for what a change of resolution costs, by the median of each pair, and for exact sizes."""
    ratios = [
        (row["first_ratio"], f"{row['first_ratio']:.2f} from {row['from']} to {row['res']} px")
        for row in content["results"]
        if (row["stage"], row["loader"]) == ("switch", OURS)
    ]
    worst, found = max(ratios)
    wrong = content["batches_at_wrong_resolution"]
    return [
        Goal(f"a change costs at most {MOST_OF_CHANGE} of a steady batch", found, worst <= MOST_OF_CHANGE),
        Goal("no batch of a wrong resolution", f"{wrong} of {content['num_batches']}", wrong == 0),
    ]


def _overlap(content: Content) -> Goal:
    on_cpu = content["device"] == "cpu"
    of = "what the cores allow" if on_cpu else "the slower one"
    text = f"loader and step together at least {LEAST_OVERLAP} of {of}, where they are within {WITHIN:g} times"
    rows = {(row["stage"], row["res"]): row["images_per_s"] for row in content["results"] if row["loader"] == OURS}
    found = {}
    for verdict in content["verdicts"]:
        loader, step = rows["loader", verdict["res"]], rows["train step", verdict["res"]]
        if 1 / WITHIN <= loader / step <= WITHIN:
            found[verdict["res"]] = verdict["shared_efficiency" if on_cpu else "overlap_efficiency"]
    if not found:
        return Goal(text, "at no resolution are they that near")
    return Goal(text, _at(found, ".2f"), min(found.values()) >= LEAST_OVERLAP)


def _python(content: Content) -> Goal:
    on_cpu = content["device"] == "cpu"
    most = MOST_PYTHON[content["device"]]
    text = f"Python takes less than {most:.0%} of a step{'' if on_cpu else ' that is not hidden'}"
    rows = [row for row in content["results"] if row["stage"] == "overhead"]
    found = {row["res"]: row["share_of_step" if on_cpu else "not_hidden_share"] for row in rows}
    return Goal(text, _at(found, ".2%"), max(found.values()) < most)


def _at(found: Mapping[int, float], form: str) -> str:
    return ", ".join(f"{value:{form}} at {res}" for res, value in found.items()) + " px"


def goals_table(goals: Iterable[Goal]) -> Table:
    """Return a row for each goal."""
    table = Table("goal", "found", "reached")
    for goal in goals:
        table.add_row(goal.text, goal.found, {None: "", True: "yes", False: "no"}[goal.passed])
    return table
