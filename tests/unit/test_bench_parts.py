"""The pure parts of the benches: rounds, bottlenecks, saved results, costs, and the page made of them."""

import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise, permutations, product
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import finetune_cost, methods, scaling, switching, throughput
from bench.baselines.run import Baseline
from bench.bottleneck import Sharing, find_bottleneck
from bench.finetune_cost import put_together
from bench.harness import OURS, Flags, Key, Table, command_line, in_rounds, ratio_rows, row_of, segment_row
from bench.loaders import loader_tables, measured
from bench.parity import differences_of
from bench.report import PAGE, refreshed
from bench.saved import RESULTS, Content, SavedResult, machine_name, newest
from bench.segment import Segment
from bench.switching import round_trip, timed_segments
from dali_fixres.runtime import Reporter
from pipelines import Resolution, UserError

SLOW_LOADER = {
    "storage": [10_000.0],
    "decode": [1000.0],
    "loader": [500.0],
    "train step": [2000.0],
    "together": [450.0],
}
"""In ms per image: storage 0.1, decoding 1, resizing 1 more; the step 0.5."""

ALL_OF_TWO, ONE_EACH = Sharing(2, [4.0], [1.0]), Sharing(2, [2.0], [0.5])
"""Loader and step of these each fill two cores, or keep one of them busy."""


@pytest.mark.parametrize(
    ("changed", "sharing", "limit"),
    [
        ({"decode": [900.0]}, ONE_EACH, "decode"),
        ({"decode": [1100.0]}, ONE_EACH, "resize"),
        ({"decode": [1100.0]}, None, "resize"),
        ({"storage": [400.0]}, ONE_EACH, "storage"),
        ({"train step": [450.0]}, ONE_EACH, "network"),
        ({"train step": [450.0]}, None, "network"),
        ({}, ALL_OF_TWO, "cores"),  # 2 and 0.5 ms of both cores, 2.5 ms for an image
    ],
)
def test_the_limit_is_what_takes_longest(changed: dict[str, list[float]], sharing: Sharing | None, limit: str) -> None:
    """The larger part of the loader stands for it; shared cores limit where both want more than either alone."""
    assert find_bottleneck({**SLOW_LOADER, **changed}, sharing).limit == limit


def test_parts_are_in_ms_per_image() -> None:
    """Resizing is what the loader takes beyond decoding; cores are core time over their number."""
    found = find_bottleneck(SLOW_LOADER, ONE_EACH)
    assert found.ms_per_image == {"storage": 0.1, "decode": 1.0, "resize": 1.0, "network": 0.5, "cores": 1.25}


def test_overlap_is_against_the_slower_of_the_two_in_the_same_round() -> None:
    """Medians over rounds, so one disturbed round does not count. Two that each fill the cores come to half."""
    speeds = {
        **SLOW_LOADER,
        "loader": [500.0, 500.0, 250.0],
        "train step": [500.0, 1000.0, 250.0],
        "together": [250.0, 475.0, 125.0],
    }
    sharing = Sharing(2, [4.0, 4.0, 8.0], [4.0, 1.0, 8.0])
    gpu, cpu = (find_bottleneck(speeds, one) for one in (None, sharing))
    assert (gpu.share_of_possible, cpu.share_of_possible) == (0.5, 1.0)


def test_rounds_alternate_and_the_first_is_not_recorded() -> None:
    """Every other round runs backwards; values keep their order."""
    order: list[str] = []

    def measure(name: str) -> int:
        order.append(name)
        return order.count(name)

    work = {name: partial(measure, name) for name in "abc"}
    found = in_rounds(work, 2, Reporter(quiet=True))
    assert "".join(order) == "abc" + "cba" + "abc"
    assert found == {name: [2, 3] for name in "abc"}


def test_ratios_are_of_the_same_round() -> None:
    """The median of the rounds' ratios, which is not the ratio of the medians (4/3 here), and below it their range."""
    assert ratio_rows("timm", [([2, 9, 4], [1, 3, 4]), ([1, 1, 1], [1, 1, 1])]) == [
        ["timm", "2.00", "1.00"],
        ["minimum-maximum", "1.00-3.00", "1.00-1.00"],
    ]


def test_loaders_are_compared_by_both_figures() -> None:
    """Each of ours with the baselines and with ours before it; only by speed where core time was not measured."""
    sharing, alone = [Segment(200.0, 2.0), Segment(100.0, 2.0), Segment(300.0, 2.5)], [Segment(100.0, 4.0)] * 3
    rows = [
        segment_row(Key("loader", "originals", 64), alone),
        segment_row(Key("loader", "prepared", 64), sharing),
        row_of(Key("loader", "timm", 64), [50.0] * 3),
        segment_row(Key("storage", "originals", 64), alone),
    ]
    assert rows[1] == {
        "stage": "loader", "loader": "prepared", "res": 64, "images_per_s": 200.0, "repeats": [200.0, 100.0, 300.0],
        "core_ms": 2.0, "repeats_core_ms": [2.0, 2.0, 2.5],
    }  # fmt: skip
    speeds, core_ms, first, second = loader_tables(rows, {"originals": "Originals", "prepared": "Copies"})
    assert speeds.rows == [["originals", "100"], ["prepared", "200"], ["timm", "50"]]
    assert core_ms.rows == [["originals", "4.00"], ["prepared", "2.00"]]
    assert first.rows == [["timm, images/s", "2.00"], ["minimum-maximum", "2.00-2.00"]]
    assert second.title == "Copies over another, of the same round, medians"
    assert second.rows == [
        ["originals, images/s", "2.00"],
        ["minimum-maximum", "1.00-3.00"],
        ["originals, core ms per image", "0.50"],
        ["minimum-maximum", "0.50-0.62"],
        ["timm, images/s", "4.00"],
        ["minimum-maximum", "2.00-6.00"],
    ]


def test_failed_baselines_have_no_rows() -> None:
    """What they have found is not a number."""
    work = {Key("loader", name, 64): partial(Segment, speed, 1.0) for name, speed in (("ours", 2.0), ("timm", nan))}
    failed = Baseline("timm", None, Path(), Reporter(quiet=True), {"failed": "no memory"})  # type: ignore[arg-type]
    assert measured(work, 2, Reporter(quiet=True), [failed]) == {Key("loader", "ours", 64): [Segment(2.0, 1.0)] * 2}


def test_commands_are_recorded_without_folders() -> None:
    """Paths are called by their last name, also behind an equals sign; where figures go does not matter."""
    words = [
        "--data",
        "/home/me/images",
        "--json=/tmp/x.json",
        "--baselines",
        "timm,ffcv=/home/me/bin/python",
        "--full",
    ]
    shown = "--data images --baselines timm,ffcv=python --full"
    assert command_line("some", words) == f"uv run python -m bench.some {shown}"


def test_flags_are_checked() -> None:
    """Flags that exclude each other and numbers that are too small are refused."""
    with pytest.raises(UserError, match="--quick and --full exclude each other"):
        Flags(quick=True, full=True)
    with pytest.raises(UserError, match="--num-batches must be at least 2; found 1"):
        Flags(num_batches=1)
    with pytest.raises(UserError, match="--res takes one resolution here; found 64,96"):
        scaling.ScalingFlags(res="64,96")


def test_machines_have_names_for_files() -> None:
    """A GPU's name if it was used, or how many cores there are."""
    gpu = {"gpu": "NVIDIA H100 80GB HBM3", "usable_cores": 16}
    assert machine_name(gpu, "cuda") == "nvidia-h100-80gb-hbm3"
    assert machine_name(gpu, "cpu") == "16-core-cpu"
    assert machine_name({"gpu": None, "usable_cores": 2}, "cpu") == "2-core-cpu"


def test_a_round_trip_has_every_ordered_pair_once() -> None:
    """Of four resolutions it makes the twelve ordered pairs neighbours."""
    pairs = list(pairwise(round_trip([Resolution(side) for side in (32, 64, 96, 128)])))
    assert len(pairs) == len(set(pairs)) == 12
    assert all(one != two for one, two in pairs)


def test_segments_count_batches_of_a_wrong_size() -> None:
    """Each segment has its own, and knows the one before."""
    sides = {0: [(32, 32)] * 4, 1: [(48, 48), (48, 32), (48, 48)]}
    found = timed_segments(
        [32, 48], lambda number: (torch.empty(2, 3, *side) for side in sides[number]), torch.device("cpu")
    )
    assert [(one.before, one.res, len(one.batch_ms), one.num_wrong) for one in found] == [
        (None, 32, 4, 0),
        (32, 48, 3, 1),
    ]


SPEEDS = {
    ("loader", 128): 100.0,
    ("loader", 224): 50.0,
    ("train step", 128): 100.0,
    ("train step", 224): 25.0,
    ("sgd step", 224): 50.0,
    ("features", 128): 400.0,
    ("features", 224): 100.0,
    ("classifier step", 224): 10_000.0,
}
"""Images/s. In ms per image: loading 10 and 20, training 10 and 40, tuning 20, features 2.5 and 10."""


@pytest.mark.parametrize(
    ("shares_cores", "costs"),
    [  # ms of an epoch of each method, over those of a low one
        (True, {"train": 60, "sgd": 40, "cached-features": 1.5 * 30 + 0.1, "frechet": 0.5 * (12.5 + 30), "low": 20}),
        (False, {"train": 40, "sgd": 20, "cached-features": 1.5 * 20 + 0.1, "frechet": 0.5 * (10 + 20), "low": 10}),
    ],
    ids=["cpu", "gpu"],
)
def test_costs_add_up_on_a_cpu_and_overlap_on_a_gpu(shares_cores: bool, costs: dict[str, float]) -> None:
    """On a GPU a pass takes as long as the slower of loader and network."""
    rows = put_together(SPEEDS, [1], statistics_share=0.5, shares_cores=shares_cores)
    for row in rows:
        assert row["low_epochs"] == pytest.approx(costs[row["method"]] / costs["low"], rel=1e-4)


def test_differences_are_summed_up() -> None:
    """Of 1000 pixels one differs by 51 levels and one by 5.1: mean, 99.9th percentile and maximum are these."""
    one = torch.zeros(2, 1, 20, 25)
    other = one.clone()
    other[0, 0, 0, 0], other[1, 0, 3, 3] = 0.2, -0.02
    found = differences_of(iter([(one[:1], other[:1]), (one[1:], other[1:])]))
    assert found == {"mean": 0.0561, "p99_9": 5.1, "max": 51.0}


def test_scaling_varies_one_number_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On two cores the loader has one to four threads alone, and training one to three with one or two of torch."""
    monkeypatch.setattr(scaling, "usable_cores", lambda: 2)
    monkeypatch.setattr(scaling, "loader_threads", lambda: 3)
    found = list(scaling.settings_of(scaling.ScalingFlags()))
    by_threads = [(one.what, one.threads, one.torch_threads) for one in found if one.varied == "threads"]
    assert by_threads == [
        *(("loader", threads, 2) for threads in (1, 2, 3, 4)),
        *(("training", threads, torchs) for threads in (1, 2, 3) for torchs in (1, 2)),
    ]
    assert len(set(found)) == len(found)


def test_planning_costs_the_same_for_any_size() -> None:
    """Memory grows with the data set; the paths made for it are those of its rows."""
    assert scaling.synthetic_dataset(2000).relative_path(1999).decode().startswith("train/n00000999/")
    small, large = scaling.plan_cost(1000), scaling.plan_cost(4000)
    assert large["resident_mib"] == pytest.approx(4 * small["resident_mib"], rel=0.01)
    assert all(value > 0 for value in small.values())


def test_accuracy_is_mean_and_spread_over_seeds() -> None:
    """A method has a row, a resolution a column; one seed has no spread."""
    rows = [("before", 64, 40.0), ("sgd", 96, 50.0), ("sgd", 96, 52.0)]
    content = {"results": [{"stage": stage, "res": res, "top1": top1} for stage, res, top1 in rows]}
    (table,) = methods.tables(content)
    assert table.rows == [["before", "40.00", ""], ["sgd", "", "51.00 ± 1.41"]]


def test_tables_are_markdown() -> None:
    """Figures are aligned to the right; empty cells stay."""
    table = Table("Some", ("", "128 px"), [["a", ""], ["b", "2"]])
    assert table.markdown() == "Some:\n\n| | 128 px |\n| --- | ---: |\n| a | |\n| b | 2 |"


@pytest.fixture
def results(tmp_path: Path) -> Callable[..., list[SavedResult]]:
    """Return a function that writes results of `bench.prepared` and reads the newest."""

    def write(**speed_of_date: float) -> list[SavedResult]:
        for date, speed in speed_of_date.items():
            row: dict[str, Any] = {"stage": "loader", "res": 128, "images_per_s": speed, "repeats": [speed]}
            content = {
                "bench": "prepared",
                "command": "the command",
                "environment": {"usable_cores": 2, "cpu": "CPU", "torch": "1", "nvidia-dali-cuda120": "2"},
                "baselines": {"timm": {"failed": "no memory"}, "ffcv-raw50": {"workers": 3, "ffcv": "1.0.2"}},
                "results": [{"loader": "prepared", **row}, {"loader": "originals", **row, "repeats": [2 * speed]}],
            }
            name = f"prepared_2-core-cpu_2026-01-{date.removeprefix('d')}.json"
            (tmp_path / name).write_text(json.dumps(content))
        return newest(tmp_path)

    return write


def test_the_page_has_the_newest_tables(results: Callable[..., list[SavedResult]]) -> None:
    """Text around them stays; what has no result says so; an unknown bench is refused."""
    page = "Text.\n<!-- table: {} -->\nold\n<!-- end -->\nMore.\n"
    found = results(d02=10.0, d03=20.0)
    made = refreshed(page.format("prepared"), found)
    assert made.startswith("Text.\n<!-- table: prepared -->\n\n`the command` on 2 cores of CPU, 2026-01-03, torch 1")
    assert made.endswith("<!-- end -->\nMore.\n")
    assert "timm (failed), ffcv-raw50 1.0.2 (3 workers); [prepared_2-core-cpu_2026-01-03.json]" in " ".join(
        made.split()
    )
    assert "| prepared | 20 |" in made
    assert "| originals, images/s | 0.50 |\n| minimum-maximum | 0.50-0.50 |" in made
    assert "old" not in made
    assert refreshed(made, found) == made
    assert "Not measured yet; `uv run python -m bench.switching` does." in refreshed(page.format("switching"), found)
    with pytest.raises(UserError, match="names nothing, which is none of throughput, switching"):
        refreshed(page.format("nothing"), found)


def committed(bench: str) -> list[Content]:
    """Return the committed results of a bench."""
    found = [one.content for one in newest(RESULTS) if one.content.get("bench") == bench]
    assert found
    return found


def test_the_committed_tables_are_those_of_the_committed_results() -> None:
    """docs/performance.md has been refreshed."""
    text = PAGE.read_text(encoding="utf-8")
    assert refreshed(text, newest(RESULTS)) == text


def test_committed_bottlenecks_are_those_of_their_rows() -> None:
    """Every stage has a row for each resolution, and there are no others; limits and times come from these."""
    for content in committed("throughput"):
        rows = {(row["stage"], row["res"]): row for row in content["results"] if row["loader"] == OURS}
        sides = [one["res"] for one in content["bottlenecks"]]
        assert rows.keys() == set(product(throughput.STAGES, sides))
        for one in content["bottlenecks"]:
            stages = {stage: rows[stage, one["res"]] for stage in throughput.STAGES}
            # Older results have the median of core time alone, so the share of what is possible agrees nearly.
            num_rounds = len(stages["loader"]["repeats"])
            core_ms = (
                stages[stage].get("repeats_core_ms", [stages[stage]["core_ms"]] * num_rounds)
                for stage in ("loader", "train step")
            )
            sharing = Sharing(content["environment"]["usable_cores"], *core_ms)
            found = find_bottleneck({stage: row["repeats"] for stage, row in stages.items()}, sharing)
            assert found.limit == one["limit"]
            assert found.ms_per_image == pytest.approx(one["ms_per_image"], rel=0.01)
            assert found.share_of_possible == pytest.approx(one["share_of_possible"], abs=0.04)


def test_committed_changes_are_those_that_are_measured() -> None:
    """Each way has a row for every change of a round trip, and a summary of these."""
    for content in committed("switching"):
        for one in content["summary"]:
            assert one["loader"] in switching.WAYS
            rows = [row for row in content["results"] if row["loader"] == one["loader"]]
            sides = sorted({row["res"] for row in rows})
            assert sorted((row["from"], row["res"]) for row in rows) == list(permutations(sides, 2))
            assert switching.summary_of(one["loader"], rows) == one
        assert {row["loader"] for row in content["results"]} == {one["loader"] for one in content["summary"]}


def test_committed_costs_are_those_of_their_rows() -> None:
    """No stage is left from an earlier bench, and methods cost what today's code makes of these."""
    for content in committed("finetune_cost"):
        speeds = {(row["stage"], row["res"]): row["images_per_s"] for row in content["results"]}
        assert {stage for stage, _ in speeds} == finetune_cost.STAGES
        epochs = sorted({one["epochs"] for one in content["costs"]} - {0})
        share = min(1.0, finetune_cost.STATISTICS_IMAGES / content["num_images"])
        assert content["costs"] == put_together(speeds, epochs, statistics_share=share, shares_cores=True)


def test_committed_settings_are_those_that_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of scaling are today's settings on as many cores."""
    for content in committed("scaling"):
        monkeypatch.setattr(scaling, "usable_cores", lambda: content["environment"]["usable_cores"])  # noqa: B023
        monkeypatch.setattr(scaling, "loader_threads", lambda: content["environment"]["threads"])  # noqa: B023
        settings = scaling.settings_of(scaling.ScalingFlags(batch_size=content["environment"]["batch_size"]))
        rows = [(row["stage"], *(row[name] for name in scaling.CHOICES)) for row in content["results"]]
        assert rows == [(one.stage, *(getattr(one, name) for name in scaling.CHOICES)) for one in settings]


@pytest.mark.parametrize("bench", ["throughput", "prepared", "parity"])
def test_committed_commands_give_the_resolutions_of_their_rows(bench: str) -> None:
    """With --res or --full, or those that are the default."""
    for content in committed(bench):
        words = content["command"].split()
        asked = words[words.index("--res") + 1] if "--res" in words else None
        found = {row["res"] for row in content["results"] or content["differences"]}
        assert found == {one.crop_px for one in Flags(res=asked, full="--full" in words).resolutions}
