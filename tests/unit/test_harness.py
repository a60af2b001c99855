"""Turns of measures, and the command that a results file says it is from."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import command_of, in_turns, times

from dali_fixres.runtime.progress import Reporter


@dataclass(frozen=True)
class Flags:
    """Some of each kind."""

    data: Path | None = None
    quick: bool = False
    sync: bool = True
    peers: str = "timm"
    mean: tuple[float, ...] = (1.0,)
    json: Path | None = None


def test_commands_can_be_typed_anywhere() -> None:
    """What is left at its default is left out, and so is where figures go; folders are called by their last name."""
    start = "uv run python bench/some.py"
    assert command_of("some", Flags(json=Path("/home/me/x.json"))) == start
    given = Flags(Path("/home/me/images"), quick=True, sync=False, peers="", mean=(0.5, 0.25))
    assert command_of("some", given) == f"{start} --data images --quick --no-sync --peers= --mean 0.5 0.25"
    peers = Flags(peers="timm,ffcv=/home/me/ffcv/bin/python,ffcv-raw50=/home/me/ffcv/bin/python")
    assert command_of("some", peers).endswith("--peers timm,ffcv=FFCV_ENV/bin/python,ffcv-raw50=FFCV_ENV/bin/python")


def test_measures_take_turns_and_the_first_round_is_not_recorded() -> None:
    """Every other round goes back, so that nothing always follows the same neighbour; values keep their order."""
    order: list[str] = []

    def measure(name: str) -> int:
        order.append(name)
        return order.count(name)

    names = ("a", "b", "c")
    measures = {name: partial(measure, name) for name in names}
    found = in_turns(measures, 2, Reporter(quiet=True), lambda name, value: f"{name}{value}")
    assert "".join(order) == "abc" + "cba" + "abc"
    assert found == {name: [2, 3] for name in names}
    order.clear()
    unwarmed = in_turns(measures, 2, Reporter(quiet=True), lambda name, value: f"{name}{value}", warm_up=False)
    assert "".join(order) == "abc" + "cba"
    assert unwarmed == {name: [1, 2] for name in names}


def test_ratios_are_of_the_same_round() -> None:
    """The median of the rounds' ratios, which is not the ratio of the medians (4/3 here)."""
    assert times([2, 9, 4], [1, 3, 4]) == "2.00 (1.00-3.00)"
