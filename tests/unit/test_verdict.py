"""What measured speeds mean, in figures that can be checked by hand."""

import statistics
from pathlib import Path

import pytest
from kept import kept_in
from verdict import Sharing, crossover, judge

SLOW_LOADER = {
    "storage": [10000.0],
    "read": [20000.0],
    "decode": [1000.0],
    "loader": [500.0],
    "train step": [2000.0],
    "together": [450.0],
}
"""In ms per image: reading 0.05, of new images 0.1, decoding 0.95 more, resizing 1 more; the step 0.5."""


ALL_OF_TWO = Sharing(2, [2.0], [2.0])
"""Loader and step each fill two cores."""

ONE_EACH = Sharing(2, [1.0], [1.0])
"""Loader and step each keep one of two cores busy."""


def test_slowest_part_of_a_slow_loader_is_the_limit() -> None:
    """Parts are differences of the graphs' times, and the largest of the loader's limits where the step is faster."""
    verdict = judge(SLOW_LOADER, ONE_EACH)
    own = {"storage": 0.1, "read": 0.05, "decode": 0.95, "resize": 1.0, "network": 0.5}
    assert verdict.ms_per_image == {**own, "cores": 1.25}
    assert verdict.limit == "resize"
    assert judge({**SLOW_LOADER, "decode": [900.0]}, ONE_EACH).limit == "decode"


@pytest.mark.parametrize(
    ("read", "decode", "limit"), [(2000.0, 520.0, "decode"), (505.0, 500.0, "read"), (2000.0, 600.0, "resize")]
)
def test_the_first_part_that_takes_all_of_the_time_is_the_limit(read: float, decode: float, limit: str) -> None:
    """On a GPU parts run beside one another, so the graph is as slow as the slowest of them and no slower."""
    verdict = judge({**SLOW_LOADER, "read": [read], "decode": [decode]}, None)
    assert verdict.limit == limit
    assert verdict.ms_per_image["decode"] == pytest.approx(1000 / decode, abs=1e-4)


@pytest.mark.parametrize("sharing", [ONE_EACH, None])
def test_storage_is_the_limit_where_new_images_come_slower_than_all_else(sharing: Sharing | None) -> None:
    """The loader's own speed is that of images that the system remembers, so it does not show this."""
    assert judge({**SLOW_LOADER, "storage": [400.0]}, sharing).limit == "storage"


def test_network_is_the_limit_where_the_step_is_slower() -> None:
    """A step slower than the loader is the limit, even if a part of the loader is slow as well."""
    for sharing in (None, ONE_EACH):
        assert judge({**SLOW_LOADER, "train step": [450.0]}, sharing).limit == "network"


def test_shared_cores_are_the_limit_where_both_want_more_than_either() -> None:
    """Loader 2 ms and step 0.5 ms of both cores, 2.5 ms for an image; a step beside which the loader is little."""
    verdict = judge(SLOW_LOADER, ALL_OF_TWO)
    assert (verdict.limit, verdict.ms_per_image["cores"]) == ("cores", 2.5)
    assert judge({**SLOW_LOADER, "train step": [10.0]}, Sharing(2, [2.0], [1.9])).limit == "network"


def test_overlap_is_against_the_slower_of_the_two_in_the_same_round() -> None:
    """Efficiencies are medians over rounds, so one disturbed round does not count; cores are shared on a CPU only.

    Two that each fill the cores come to half of either, in the first and last round.
    """
    speeds = {
        **SLOW_LOADER,
        "loader": [500.0, 500.0, 250.0],
        "train step": [500.0, 1000.0, 250.0],
        "together": [250.0, 475.0, 125.0],
    }
    sharing = Sharing(2, [2.0, 2.0, 2.0], [2.0, 1.0, 2.0])
    gpu, cpu = (judge(speeds, one) for one in (None, sharing))
    assert gpu.overlap_efficiency == cpu.overlap_efficiency == 0.5
    assert gpu.shared_efficiency is None
    assert cpu.shared_efficiency == 1.0


@pytest.mark.parametrize(
    ("loader", "step", "efficiency"),
    [
        (1.0, 1.0, 0.8),  # each has a core of its own, so no slower than by itself: 400 of 500
        (2.0, 1.0, 0.9),  # 4 and 0.5 ms of a core for an image: 444 a second on two, but not more than 500
        (2.0, 2.0, 1.0),
    ],
)
def test_together_is_judged_by_the_core_time_that_there_is(loader: float, step: float, efficiency: float) -> None:
    """No more than the slower one by itself, and no more than core time for both of them."""
    speeds = {**SLOW_LOADER, "loader": [500.0], "train step": [2000.0], "together": [400.0]}
    assert judge(speeds, Sharing(2, [loader], [step])).shared_efficiency == efficiency


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


def test_verdicts_of_kept_results_fit_their_rows() -> None:
    """They were computed when these were measured, or afterwards by hand; no file is to say what its rows do not."""
    kept = [one.content for one in kept_in(Path(__file__).parents[2] / "bench" / "results")]
    on_cpus = [one for one in kept if one.get("bench") == "throughput" and one["device"] == "cpu"]
    assert on_cpus
    for content in on_cpus:
        rows = {(row["stage"], row["res"]): row for row in content["results"] if row["loader"] == "dali-fixres"}
        for verdict in content["verdicts"]:
            loader, step, both = (rows[stage, verdict["res"]] for stage in ("loader", "train step", "together"))
            busy = sum(1000 * row["cores"] / row["images_per_s"] for row in (loader, step))
            ms, cores = verdict["ms_per_image"], content["environment"]["usable_cores"]
            assert ms["cores"] == pytest.approx(busy / cores, rel=0.005)
            part = max(("read", "decode", "resize"), key=lambda name: ms[name])
            limits = {
                **{name: ms[name] for name in ("network", "storage", "cores")},
                part: 1000 / loader["images_per_s"],
            }
            assert verdict["limit"] == max(limits, key=lambda name: limits[name])
            rounds = zip(*(row["repeats"] for row in (loader, step, both)), strict=True)
            overlap, shared = [], []
            for alone, stepped, done in rounds:
                core_s = loader["cores"] / alone + step["cores"] / stepped
                overlap.append(done / min(alone, stepped))
                shared.append(done / min(alone, stepped, cores / core_s))
            assert verdict["overlap_efficiency"] == pytest.approx(statistics.median(overlap), abs=0.01)
            assert verdict["shared_efficiency"] == pytest.approx(statistics.median(shared), abs=0.02)
