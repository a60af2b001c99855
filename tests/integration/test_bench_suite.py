"""The benches as a user runs them: what they write, on a data set so small that no figure of theirs means anything."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from finetune_cost import put_together
from kept import kept_in, machine_name
from page import PAGE, page
from parity import differences_of
from switching import Bench as SwitchingBench
from visits import circuit

from dali_fixres.errors import UserError
from dali_fixres.resolution import Resolution

BENCH = Path(__file__).parents[2] / "bench"
NETWORK = ("--model", "timm/test_resnet")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(pictures: Path, tmp_path: Path) -> Run:
    """Return a function that runs a bench quickly on the small data set."""

    def call(name: str, *words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, BENCH / f"{name}.py", "--data", pictures, "--quick", *words]
        environment = {**os.environ, "PYTHONPATH": str(BENCH.parent), "COLUMNS": "160"}
        return subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return call


def figures(done: subprocess.CompletedProcess[str], path: Path) -> Any:
    """Return what a bench has written, with its rows checked for what all of them carry, and its plot."""
    assert done.returncode == 0, done.stderr
    content = json.loads(path.read_text())
    assert content["environment"]["usable_cores"] >= 1
    assert content["data"]["num_images"] == 60
    for row in content["results"]:
        assert {"stage", "loader", "res", "images_per_s", "repeats"} <= row.keys()
        assert row["images_per_s"] == pytest.approx(statistics.median(row["repeats"]), abs=0.1)
        assert row["images_per_s"] > 0
    return content


def test_switching_times_every_ordered_pair(run: Run, tmp_path: Path) -> None:
    """Each way of changing has each ordered pair once, the three stages follow, and no batch has a wrong size."""
    out = tmp_path / "out.json"
    content = figures(run("switching", "--res", "32,48,64", "--batch-size", 10, "--json", out), out)
    switches = [row for row in content["results"] if row["stage"] == "switch"]
    pairs = {(one, two) for one in (32, 48, 64) for two in (32, 48, 64) if one != two}
    loaders = ("dali-fixres", "dali-fixres, not pre-warmed", "rebuilt pipeline", "new DataLoader")
    for loader in loaders:
        found = [(row["from"], row["res"]) for row in switches if row["loader"] == loader]
        assert sorted(found) == sorted(pairs)
    for row in switches:
        assert row["images_per_s"] == pytest.approx(10_000 / row["first_ms"], rel=0.05)
        assert row["first_ratios"] == [row["first_ratio"]]
    assert [row["loader"] for row in content["summary"]] == list(loaders)
    stages = {(row["stage"], row["from"], row["res"]) for row in content["results"]} - {
        ("switch", one, two) for one, two in pairs
    }
    assert stages == {("fine-tune → train", 64, 32), ("train → evaluate", 32, 64), ("evaluate → fine-tune", 64, 64)}
    # A circuit of seven visits to four batches by each of four loaders, and two rounds of three stages.
    assert content["num_batches"] == 4 * 7 * 4 + 2 * 3 * 4
    assert content["batches_at_wrong_resolution"] == 0
    assert out.with_suffix(".png").stat().st_size > 0


def test_a_circuit_goes_from_each_resolution_to_each_other() -> None:
    """Of four resolutions it makes the twelve ordered pairs neighbours, each once."""
    sides = [Resolution(side) for side in (32, 64, 96, 128)]
    route = circuit(sides)
    pairs = list(pairwise(route))
    assert len(pairs) == len(set(pairs)) == 12
    assert all(one != two for one, two in pairs)


def test_finetune_cost_times_the_steps_of_each_method(run: Run, tmp_path: Path) -> None:
    """Training is timed at both resolutions, what tunes at the higher one; costs are for the epochs asked for."""
    out = tmp_path / "out.json"
    flags = ("--res", "32,64", "--batch-size", 4, "--num-classes", 10, "--epochs", "1,3", *NETWORK, "--json", out)
    content = figures(run("finetune_cost", *flags), out)
    stages = [(row["stage"], row["res"]) for row in content["results"]]
    everywhere = {(stage, res) for stage in ("train step", "features") for res in (32, 64)}
    assert sorted(stages) == sorted(everywhere | {("sgd step", 64), ("statistics", 64), ("classifier step", 64)})
    speeds = {(row["stage"], row["res"]): row["images_per_s"] for row in content["results"]}
    costs = {(row["method"], row["epochs"]): row["low_epochs"] for row in content["costs"]}
    learning = {(method, epochs) for method in ("train", "sgd", "one-pass") for epochs in (1, 3)}
    assert costs.keys() == learning | {("frechet", 0)}
    assert costs["sgd", 3] == pytest.approx(3 * speeds["train step", 32] / speeds["sgd step", 64], rel=1e-3)


def test_costs_are_put_together_from_speeds() -> None:
    """One pass costs features and a share of statistics once, and a classifier's step per epoch; frechet no epoch."""
    speeds = {
        ("train step", 128): 100.0,
        ("train step", 224): 25.0,
        ("sgd step", 224): 50.0,
        ("statistics", 224): 100.0,
        ("features", 128): 400.0,
        ("features", 224): 100.0,
        ("classifier step", 224): 10_000.0,
    }
    costs = {(row["method"], row["epochs"]): row for row in put_together(speeds, [1, 10], statistics_share=0.5)}
    assert costs["train", 1]["low_epochs"] == 4
    assert costs["sgd", 10]["low_epochs"] == 20
    assert costs["sgd", 10]["high_epochs"] == 5
    assert costs["one-pass", 10]["low_epochs"] == 1.6
    assert costs["frechet", 0]["low_epochs"] == 0.625


def test_parity_compares_pixels_and_answers(run: Run, tmp_path: Path) -> None:
    """Pixels lie within 1/255 of PIL's, and answers are counted over all test pictures of both loaders."""
    out = tmp_path / "out.json"
    content = figures(run("parity", "--res", "32,64", "--batch-size", 8, *NETWORK, "--json", out), out)
    rows = [row for row in content["differences"] if row["loader"] == "dali cpu"]
    assert [(row["against"], row["res"]) for row in rows if row["against"] == "pil"] == [("pil", 32), ("pil", 64)]
    assert all(0 < row["mean"] <= 0.2 and row["max"] <= 1.001 for row in rows if row["against"] == "pil")
    answers = [row for row in content["results"] if row["stage"] == "answers"]
    assert {(row["loader"], row["res"]) for row in answers} >= {("dali cpu", 32), ("pil", 32), ("pil", 64)}
    assert all(row["num_images"] == 20 for row in answers)
    assert all(row["num_other_answers"] == 0 for row in answers if row["loader"] == "pil")
    # Classes are tested on five pictures each: an accuracy is a whole number of twentieths.
    assert all(row["top1"] % 5 == 0 for row in answers)


def test_differences_are_summed_up() -> None:
    """Of 1000 pixels one differs by 51 levels and one by 5.1: mean, 99.9th percentile and maximum are these."""
    one = torch.zeros(2, 1, 20, 25)
    other = one.clone()
    other[0, 0, 0, 0], other[1, 0, 3, 3] = 0.2, -0.02
    found = differences_of(iter([(one[:1], other[:1]), (one[1:], other[1:])]))
    assert found == {"mean": 0.0561, "p99_9": 5.1, "max": 51.0}


def test_scaling_varies_one_thing_at_a_time(run: Run, tmp_path: Path) -> None:
    """The loader by threads, batch size, prefetch and processes, a train step under torchrun, plans by size."""
    out = tmp_path / "out.json"
    flags = ("--batch-sizes", "2,4", "--prefetches", "1", "--processes", "1", "--sizes", "2000")
    content = figures(run("scaling", "--res", "32", "--batch-size", 4, *flags, *NETWORK, "--json", out), out)
    cores = content["environment"]["usable_cores"]
    rows = content["results"]
    threads = [row["threads"] for row in rows if row["stage"] == "loader by threads"]
    assert threads == sorted(set(threads))
    assert {1, cores, cores + 1, cores + 2} <= set(threads)
    assert [row["batch_size"] for row in rows if row["stage"] == "loader by batch size"] == [2, 4]
    assert [row["prefetch"] for row in rows if row["stage"] == "loader by prefetch"] == [1]
    stages = [(row["stage"], row["processes"]) for row in rows if "processes" in row]
    assert stages == [("loader", 1), ("loader and train step", 1)]
    assert [row["num_images"] for row in content["plan"]] == [2000]
    assert all(row[key] > 0 for row in content["plan"] for key in ("build_s", "epoch_start_ms", "plan_ms", "feed_ms"))


def test_run_all_names_results_and_keeps_them(run: Run, pictures: Path, tmp_path: Path) -> None:
    """A results file is named after bench, data, machine and date; a second call does not measure it again."""
    flags = ("--only", "limits", "--results", tmp_path / "kept", "--date", "2026-01-02")
    first = run("run_all", *flags)
    (out,) = (tmp_path / "kept").glob("*.json")
    content = figures(first, out)
    assert out.name == f"limits-{pictures.name}_{machine_name(content['environment'])}_2026-01-02.json"
    assert content["memory_gb_per_s"]["median"] > 0
    network = {row["res"]: row for row in content["network"]}
    # Multiplications and additions of MobileNetV2: 0.3 billion each at 224 px (Sandler et al., 2018, table 4).
    assert network[224]["forward_gflop"] == pytest.approx(0.6, rel=0.05)
    assert network[224]["step_gflop"] == pytest.approx(1.8, rel=0.05)
    second = run("run_all", *flags)
    assert f"limits: kept {out}" in second.stderr


def test_mistakes_are_one_line(run: Run) -> None:
    """What cannot be measured is refused before anything is, with exit code 2."""
    done = run("run_all", "--only", "nothing")
    assert done.returncode == 2
    assert "error: no bench is called nothing; there are limits, throughput" in done.stderr
    with pytest.raises(UserError, match="--res must name at least two resolutions"):
        SwitchingBench(res="64")
    with pytest.raises(UserError, match="--num-batches must be at least 4 here; found 3"):
        SwitchingBench(num_batches=3)


def test_machines_have_names_for_files() -> None:
    """A GPU's name, or how many cores there are."""
    assert machine_name({"gpu": None, "usable_cores": 2}) == "2-core-cpu"
    assert machine_name({"gpu": "NVIDIA H100 80GB HBM3", "usable_cores": 16}) == "nvidia-h100-80gb-hbm3"


def test_the_committed_page_is_made_of_the_committed_results() -> None:
    """docs/performance.md is what `run_all.py --page` makes."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_the_page_takes_the_newest_file_of_each_machine(tmp_path: Path) -> None:
    """Tables and figures come from the newest date; what has no file says so; an unknown figure is refused."""
    environment = dict.fromkeys(("torch", "torchvision", "nvidia-dali-cuda120", "timm", "pillow", "python"), "1")
    for date, speed in (("2026-01-02", 10.0), ("2026-01-03", 20.0)):
        rows = [
            {"stage": "loader", "loader": loader, "res": 128, "images_per_s": number * speed, "repeats": [1, 2]}
            for number, loader in enumerate(("prepared", "other"), start=1)
        ]
        content = {
            "command": "the command",
            "environment": {**environment, "cpu": "CPU", "usable_cores": 2, "gpu": None},
            "data": "some",
            "results": rows,
        }
        (tmp_path / f"prepared_2-core-cpu_{date}.json").write_text(json.dumps(content))
    assert [(kept.what, kept.machine, kept.date) for kept in kept_in(tmp_path)] == [
        ("prepared", "2-core-cpu", "2026-01-03")
    ]
    made = page(tmp_path, "{{table prepared}}\n{{table switching}}\n{{prepared:results.0.images_per_s|.1f}}\n")
    assert "| prepared | 20 |\n| other | 40 |\n| prepared ÷ other | 0.50 |" in made
    assert made.startswith("`the command` on 2 cores of CPU, 2026-01-03; pictures: some;")
    assert "Not measured yet; `uv run python bench/switching.py` does.\n20.0\n" in made
    with pytest.raises(UserError, match=r"has no results\.5, which"):
        page(tmp_path, "{{prepared:results.5|}}")
