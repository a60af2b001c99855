"""What measured speeds mean, in figures that can be checked by hand."""

import pytest
from verdict import crossover, judge

SLOW_LOADER = {
    "read": [20000.0],
    "decode": [1000.0],
    "loader": [500.0],
    "train step": [2000.0],
    "together": [450.0],
}
"""In ms per picture: reading 0.05, decoding 0.95 more, resizing 1 more; the step 0.5."""


def test_slowest_part_of_a_slow_loader_is_the_limit() -> None:
    """Parts are differences of the graphs' times, and the largest of the loader's limits where the step is faster."""
    verdict = judge(SLOW_LOADER, shares_cores=False)
    assert verdict.ms_per_image == {"read": 0.05, "decode": 0.95, "resize": 1.0, "network": 0.5}
    assert verdict.limit == "resize"
    assert judge({**SLOW_LOADER, "decode": [900.0]}, shares_cores=False).limit == "decode"


def test_network_is_the_limit_where_the_step_is_slower() -> None:
    """A step slower than the loader is the limit, even if a part of the loader is slow as well."""
    assert judge({**SLOW_LOADER, "train step": [499.0]}, shares_cores=False).limit == "network"


def test_overlap_is_against_the_slower_of_the_two_in_the_same_round() -> None:
    """Efficiencies are medians over rounds, so one disturbed round does not count; cores are shared on a CPU only."""
    speeds = {
        **SLOW_LOADER,
        "loader": [500.0, 500.0, 250.0],
        "train step": [500.0, 1000.0, 250.0],
        "together": [250.0, 475.0, 125.0],
    }
    gpu, cpu = (judge(speeds, shares_cores=shares) for shares in (False, True))
    assert gpu.overlap_efficiency == cpu.overlap_efficiency == 0.5
    assert gpu.shared_efficiency is None
    assert cpu.shared_efficiency == 1.0


@pytest.mark.parametrize(
    ("points", "px"),
    [
        ([(100, 500.0, 1000.0), (200, 500.0, 250.0)], 141),  # halfway on both logarithmic scales
        ([(100, 500.0, 500.0), (200, 500.0, 250.0)], 100),
        ([(100, 500.0, 400.0), (200, 500.0, 250.0)], None),  # the network limits everywhere
        ([(100, 500.0, 900.0), (200, 500.0, 600.0)], None),  # the loader does
        ([(100, 500.0, 900.0)], None),
    ],
)
def test_crossover_lies_where_loader_and_step_are_equally_fast(
    points: list[tuple[int, float, float]], px: int | None
) -> None:
    """The crossover is interpolated between the resolutions on both sides of it, and None where there is none."""
    assert crossover(points) == px
