"""How repeats are timed, and what is taken for Python's part of a step."""

from itertools import count

import pytest
import torch
from harness import Key
from stages import LEAST, OURS, Limits, Repeat, Stopwatch
from throughput import _overhead

CPU = torch.device("cpu")


def test_speed_is_by_the_clock_given() -> None:
    """Seconds of another clock than the wall's, from the watch's making on."""
    ticks = iter([10.0, 14.0])
    repeat = Stopwatch(CPU, clock=lambda: next(ticks)).read(num_images=8)
    assert (repeat.images_per_s, repeat.device_mib) == (2.0, 0)
    assert repeat.cores is not None


@pytest.mark.parametrize(("limits", "taken"), [(Limits(5, 1e9), 5), (Limits(5, 0.0), LEAST), (Limits(1, 1e9), LEAST)])
def test_a_repeat_ends_at_its_first_limit(limits: Limits, taken: int) -> None:
    """But not before the least number of batches."""
    assert list(Stopwatch(CPU).some_of(count(), limits)) == list(range(taken))


def found(python: list[float], null: list[float]) -> dict[Key, list[Repeat]]:
    """Return images/s of loop and bare steps with a network that costs nothing, beside real steps of 10 images/s."""
    speeds = {"python": python, "null step": null, "train step": [10.0] * len(python)}
    return {
        Key(stage, OURS, 64): [Repeat(speed, cores=None, device_mib=0) for speed in repeats]
        for stage, repeats in speeds.items()
    }


def test_what_python_takes_is_the_loop_less_its_bare_steps() -> None:
    """In each round by itself; the median, in milliseconds, and of a train step."""
    row = _overhead(found([500, 250, 200], [1000, 500, 1000]), 64, batch_size=10)
    assert row["ms_per_step"] == pytest.approx(20)  # of 10, 20 and 40
    assert row["share_of_step"] == pytest.approx(0.02)
    assert row["repeats"] == [1000, 500, 250]
    assert "not_hidden_ms" not in row


def test_next_to_nothing_may_be_below_it() -> None:
    """That is told as it was found: a difference of two measures."""
    row = _overhead(found([500, 500, 500], [400, 400, 600]), 64, batch_size=10)
    assert row["ms_per_step"] == pytest.approx(-5)
    assert row["share_of_step"] == pytest.approx(-0.005)
