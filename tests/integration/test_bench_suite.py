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
from finetune_cost import Bench as FinetuneBench
from finetune_cost import put_together
from harness import Key
from kept import kept_in, machine_name
from operators import own_milliseconds
from page import PAGE, page
from parity import differences_of
from switching import Bench as SwitchingBench
from unreadable import Bench as UnreadableBench
from unreadable import rows_of
from visits import circuit

from dali_fixres.errors import UserError
from pipelines.resolution import Resolution

BENCH = Path(__file__).parents[2] / "bench"
NETWORK = ("--model", "timm/test_resnet")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(images: Path, tmp_path: Path) -> Run:
    """Return a function that runs a bench quickly on the small data set."""

    def call(name: str, *words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, BENCH / f"{name}.py", "--data", images, "--quick", *words]
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
    """Each way has each ordered pair once, first times have the rises, three stages follow, and no size is wrong."""
    out = tmp_path / "out.json"
    content = figures(run("switching", "--res", "32,48,64", "--batch-size", 10, "--json", out), out)
    switches = [row for row in content["results"] if row["stage"] == "switch"]
    pairs = {(one, two) for one in (32, 48, 64) for two in (32, 48, 64) if one != two}
    rises = {(32, 48), (48, 64), (32, 64)}
    changes = dict.fromkeys(("dali-fixres", "dali-fixres, first time", "rebuilt pipeline", "new DataLoader"), pairs)
    changes["dali-fixres, first time"] = rises
    for loader, wanted in changes.items():
        found = [(row["from"], row["res"]) for row in switches if row["loader"] == loader]
        assert sorted(found) == sorted(wanted)
    for row in switches:
        assert row["images_per_s"] == pytest.approx(10_000 / row["first_ms"], rel=0.05)
        assert row["first_ratios"] == [row["first_ratio"]]
    assert [row["loader"] for row in content["summary"]] == list(changes)
    stages = {(row["stage"], row["from"], row["res"]) for row in content["results"]} - {
        ("switch", one, two) for one, two in pairs
    }
    assert stages == {("fine-tune → train", 64, 32), ("train → evaluate", 32, 64), ("evaluate → fine-tune", 64, 64)}
    # Visits have four batches: a circuit of seven, three pairs of first times, and two rounds of three stages.
    assert content["num_batches"] == (7 + 3 * 2 + 2 * 3) * 4
    assert content["batches_at_wrong_resolution"] == 0
    assert out.with_suffix(".png").stat().st_size > 0


def test_freed_memory_is_measured_kept_and_given_back(run: Run, tmp_path: Path) -> None:
    """Each way has a row per resolution, from processes of its own."""
    out = tmp_path / "out.json"
    flags = ("--res", "32", "--batch-size", 4, "--num-batches", 2, *NETWORK, "--json", out)
    content = figures(run("freed_memory", *flags), out)
    assert [(row["loader"], row["res"]) for row in content["results"]] == [("kept", 32), ("given back", 32)]
    assert all(row["host_mib"] > 100 for row in content["results"])
    assert out.with_suffix(".png").stat().st_size > 0


def test_a_circuit_goes_from_each_resolution_to_each_other() -> None:
    """Of four resolutions it makes the twelve ordered pairs neighbours, each once."""
    sides = [Resolution(side) for side in (32, 64, 96, 128)]
    route = circuit(sides)
    pairs = list(pairwise(route))
    assert len(pairs) == len(set(pairs)) == 12
    assert all(one != two for one, two in pairs)


def test_finetune_cost_times_the_steps_of_each_method(run: Run, tmp_path: Path) -> None:
    """Loader and training are timed at both resolutions, what tunes at the higher one; costs are as asked for."""
    out = tmp_path / "out.json"
    flags = ("--res", "32,64", "--batch-size", 4, "--num-classes", 10, "--epochs", "1,3", *NETWORK, "--json", out)
    content = figures(run("finetune_cost", *flags), out)
    stages = [(row["stage"], row["res"]) for row in content["results"]]
    everywhere = {(stage, res) for stage in ("loader", "train step", "features") for res in (32, 64)}
    assert sorted(stages) == sorted(everywhere | {("sgd step", 64), ("statistics", 64), ("classifier step", 64)})
    speeds = {(row["stage"], row["res"]): row["images_per_s"] for row in content["results"]}
    costs = {(row["method"], row["epochs"]): row["low_epochs"] for row in content["costs"]}
    learning = {(method, epochs) for method in ("train", "sgd", "one-pass") for epochs in (1, 3)}
    assert costs.keys() == learning | {("frechet", 0)}
    if content["device"] == "cpu":
        epoch = 1 / speeds["loader", 32] + 1 / speeds["train step", 32]
        tuning = 1 / speeds["loader", 64] + 1 / speeds["sgd step", 64]
        assert costs["sgd", 3] == pytest.approx(3 * tuning / epoch, rel=1e-2)


SPEEDS = {
    ("loader", 128): 100.0,
    ("loader", 224): 50.0,
    ("train step", 128): 100.0,
    ("train step", 224): 25.0,
    ("sgd step", 224): 50.0,
    ("statistics", 224): 100.0,
    ("features", 128): 400.0,
    ("features", 224): 100.0,
    ("classifier step", 224): 10_000.0,
}
"""Images/s. In ms per image: loading 10 and 20, training 10 and 40, tuning 20, statistics and features 10."""


def costs_of(**settings: Any) -> dict[tuple[str, int], dict[str, Any]]:
    """Return what each way and number of epochs costs."""
    rows = put_together(SPEEDS, [1, 10], statistics_share=0.5, **settings)
    return {(row["method"], row["epochs"]): row for row in rows}


def test_costs_on_a_cpu_add_loading_to_every_pass() -> None:
    """A low epoch takes 20 ms an image; only the classifier's steps on features load nothing."""
    costs = costs_of(shares_cores=True)
    assert costs["train", 1]["low_epochs"] == pytest.approx(60 / 20)
    assert costs["sgd", 10]["low_epochs"] == pytest.approx(10 * 40 / 20)
    assert costs["sgd", 10]["high_epochs"] == pytest.approx(10 * 40 / 60, rel=1e-4)
    assert costs["one-pass", 10]["low_epochs"] == pytest.approx((30 + 0.5 * 30 + 10 * 0.1) / 20)
    assert costs["frechet", 0]["low_epochs"] == pytest.approx(0.5 * (12.5 + 30) / 20)


def test_costs_on_a_gpu_are_of_the_slower_of_loader_and_network() -> None:
    """A low epoch takes 10 ms an image; at 224 px only training is slower than the loader."""
    costs = costs_of(shares_cores=False)
    assert costs["train", 1]["low_epochs"] == pytest.approx(40 / 10)
    assert costs["sgd", 10]["low_epochs"] == pytest.approx(10 * 20 / 10)
    assert costs["one-pass", 10]["low_epochs"] == pytest.approx((20 + 0.5 * 20 + 10 * 0.1) / 10)
    assert costs["frechet", 0]["low_epochs"] == pytest.approx(0.5 * (10 + 20) / 10)


def test_parity_compares_pixels_and_answers(run: Run, tmp_path: Path) -> None:
    """Training images lie within 1/255 of PIL's, and all test images are answered both ways; nothing is timed."""
    out = tmp_path / "out.json"
    done = run("parity", "--res", "32,64", "--batch-size", 5, *NETWORK, "--json", out)
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert out.with_suffix(".png").stat().st_size > 0
    rows = [row for row in content["differences"] if row["loader"] == "dali cpu"]
    assert content["num_images"] == 20  # every other one of 40: four batches of five
    assert [(row["against"], row["res"]) for row in rows if row["against"] == "pil"] == [("pil", 32), ("pil", 64)]
    assert all(0 < row["mean"] <= 0.2 and row["max"] <= 1.001 for row in rows if row["against"] == "pil")
    answers = content["results"]
    assert {(row["loader"], row["res"]) for row in answers} >= {("dali cpu", 32), ("pil", 32), ("pil", 64)}
    assert all(row["num_images"] == 20 for row in answers)
    assert all((row["stage"], row["images_per_s"], row["repeats"]) == ("answers", None, []) for row in answers)
    assert all(row["num_other_answers"] == 0 for row in answers if row["loader"] == "pil")
    # Classes are tested on five images each: an accuracy is a whole number of twentieths.
    assert all(row["top1"] % 5 == 0 for row in answers)


def test_differences_are_summed_up() -> None:
    """Of 1000 pixels one differs by 51 levels and one by 5.1: mean, 99.9th percentile and maximum are these."""
    one = torch.zeros(2, 1, 20, 25)
    other = one.clone()
    other[0, 0, 0, 0], other[1, 0, 3, 3] = 0.2, -0.02
    found = differences_of(iter([(one[:1], other[:1]), (one[1:], other[1:])]))
    assert found == {"mean": 0.0561, "p99_9": 5.1, "max": 51.0}


def test_scaling_varies_one_thing_at_a_time(run: Run, tmp_path: Path) -> None:
    """The loader by threads, batch size and prefetch, training by threads and batch size, both by processes; plans."""
    out = tmp_path / "out.json"
    sizes = ("--batch-sizes", "2,4", "--train-batch-sizes", "4", "--sizes", "2000")
    flags = (*sizes, "--prefetches", "1", "--processes", "1,2")
    content = figures(run("scaling", "--res", "32", "--batch-size", 4, *flags, *NETWORK, "--json", out), out)
    cores = content["environment"]["usable_cores"]
    rows = content["results"]
    threads = [row["threads"] for row in rows if row["stage"] == "loader by threads"]
    assert threads == sorted(set(threads))
    assert {1, cores, cores + 1, cores + 2} <= set(threads)
    assert [row["batch_size"] for row in rows if row["stage"] == "loader by batch size"] == [2, 4]
    assert [row["prefetch"] for row in rows if row["stage"] == "loader by prefetch"] == [1]
    splits = {(row["threads"], row["torch_threads"]) for row in rows if row["stage"] == "training by threads"}
    some = max(1, cores // 2)
    assert splits == {(ours, torchs) for ours in (some, cores, cores + 1) for torchs in (some, cores)}
    assert [row["batch_size"] for row in rows if row["stage"] == "training by batch size"] == [4]
    names = ("stage", "processes", "threads", "torch_threads")
    by_processes = {tuple(row[name] for name in names) for row in rows if row["stage"].endswith("by processes")}
    # Each of two has its share of the cores, and one thread of the loader more; so has torch in one and in both.
    shares = {1: cores, 2: max(1, cores // 2)}
    stages = ("loader by processes", "training by processes")
    assert by_processes == {(stage, number, share + 1, share) for stage in stages for number, share in shares.items()}
    assert [row["num_images"] for row in content["plan"]] == [2000]
    assert all(row[key] > 0 for row in content["plan"] for key in ("build_s", "epoch_start_ms", "plan_ms", "feed_ms"))


def test_operators_take_what_their_graphs_differ_by(run: Run, tmp_path: Path) -> None:
    """Graphs as far as each operator are timed at each resolution; what an operator takes is a difference of two."""
    out = tmp_path / "out.json"
    content = figures(run("operators", "--res", "32,64", "--batch-size", 5, "--json", out), out)
    assert out.with_suffix(".png").stat().st_size > 0
    rows = {(row["stage"], row["loader"], row["res"]): row["images_per_s"] for row in content["results"]}
    operators = ("read", "decode", "resize", "normalise")
    timed = [*((name, "dali-fixres") for name in operators), ("resize", "torch")]
    assert rows.keys() == {(*name, res) for name in timed for res in (32, 64)}
    found = {Key(*key): [speed] for key, speed in rows.items()}
    for shown in content["milliseconds"]:
        own = own_milliseconds(found, shown["res"])
        assert list(shown) == ["res", *operators, "torch resize"]
        assert shown["decode"] == pytest.approx(own["decode"], rel=0.01, abs=0.01)


def test_broken_files_are_found_in_the_first_epoch(run: Run, tmp_path: Path) -> None:
    """Each share has a row for each epoch, beside the same images without a broken one."""
    out = tmp_path / "out.json"
    flags = ("--res", "32", "--batch-size", 4, "--shares", "0,0.25", "--num-batches", 2, "--json", out)
    content = figures(run("unreadable", *flags), out)
    assert out.with_suffix(".png").stat().st_size > 0
    assert content["num_images"] == 4 * 2 * 4
    rows = [(row["stage"], row["share"], row["num_broken"]) for row in content["results"]]
    epochs = ("first epoch", "second epoch")
    assert rows == [(epoch, share, broken) for share, broken in ((0, 0), (0.25, 8)) for epoch in epochs]
    assert [row["ratio"] for row in content["results"][:2]] == [1, 1]


def test_ratios_of_broken_files_are_of_the_same_round() -> None:
    """Where the machine has halved its speed for a round, that round's ratio stays what it is."""
    size = Resolution(128)
    found = {
        (0.0, size): [(100.0, 100.0), (50.0, 50.0), (100.0, 100.0)],
        (0.1, size): [(40.0, 90.0), (20.0, 45.0), (40.0, 90.0)],
    }
    rows = rows_of(found, num_images=1000)
    assert [(row["num_broken"], row["ratio"]) for row in rows] == [(0, 1), (0, 1), (100, 0.4), (100, 0.9)]


def test_run_all_names_results_and_keeps_them(run: Run, images: Path, tmp_path: Path) -> None:
    """A results file is named after bench, data, machine and date; a second call does not measure it again."""
    flags = ("--only", "limits", "--results", tmp_path / "kept", "--date", "2026-01-02")
    first = run("run_all", *flags)
    (out,) = (tmp_path / "kept").glob("*.json")
    content = figures(first, out)
    assert out.name == f"limits-{images.name}_{machine_name(content['environment'])}_2026-01-02.json"
    assert content["memory_gb_per_s"]["most"] > 0
    assert {row["model"] for row in content["network"]} >= {"timm/mobilenetv2_100"}
    network = {row["res"]: row for row in content["network"] if row["model"] == "timm/mobilenetv2_100"}
    # Multiplications and additions of MobileNetV2: 0.3 billion each at 224 px (Sandler et al., 2018, table 4).
    assert network[224]["forward_gflop"] == pytest.approx(0.6, rel=0.05)
    assert network[224]["step_gflop"] == pytest.approx(1.8, rel=0.05)
    second = run("run_all", *flags)
    assert f"limits: kept {out}" in second.stderr
    made = run("run_all", "--page", "--results", tmp_path / "kept")
    assert f"wrote {tmp_path / 'kept' / 'performance.md'}" in made.stderr
    assert f"]({out.name})" in (tmp_path / "kept" / "performance.md").read_text()


def test_a_bench_that_fails_does_not_stop_the_others(run: Run, images: Path, tmp_path: Path) -> None:
    """It is named at the end."""
    missing = tmp_path / "nothing.pt"
    flags = ("--only", "parity,limits", "--checkpoint", missing, "--results", tmp_path / "kept")
    done = run("run_all", *flags)
    assert done.returncode == 1
    assert str(missing) in done.stderr
    assert "error: failed: parity, and have said why above; the same call measures what is missing" in done.stderr
    assert [path.name.partition("_")[0] for path in (tmp_path / "kept").glob("*.json")] == [f"limits-{images.name}"]


def test_mistakes_are_one_line(run: Run) -> None:
    """What cannot be measured is refused before anything is, with exit code 2."""
    done = run("run_all", "--only", "nothing")
    assert done.returncode == 2
    assert "error: no bench is called nothing; there are limits, throughput" in done.stderr
    done = run("unreadable", "--shares", "0,2")
    assert (done.returncode, done.stderr) == (2, "error: --shares must be from 0 to 0.5; found 0,2\n")
    with pytest.raises(UserError, match="--shares must be numbers with commas between; found some"):
        UnreadableBench(shares="some")
    with pytest.raises(UserError, match="--epochs must be whole numbers from 1 on with commas between; found 1,x"):
        FinetuneBench(epochs="1,x")
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
    packages = ("dali-fixres", "torch", "torchvision", "nvidia-dali-cuda120", "timm", "pillow", "python")
    environment = dict.fromkeys(packages, "1")
    for date, speed in (("2026-01-02", 10.0), ("2026-01-03", 20.0)):
        rows = [
            {
                "stage": "loader",
                "loader": loader,
                "res": 128,
                "images_per_s": number * speed,
                "repeats": [number * speed] * 2,
            }
            for number, loader in enumerate(("prepared", "other"), start=1)
        ]
        content = {
            "command": "the command",
            "environment": {**environment, "cpu": "CPU", "usable_cores": 2, "gpu": None},
            "sources": "0a1b2c3",
            "data": "some",
            "peers": {"ffcv-raw50": {"workers": 3, "ffcv": "1.0.2"}, "timm": {"failed": "it has no memory"}},
            "results": rows,
        }
        (tmp_path / f"prepared_2-core-cpu_{date}.json").write_text(json.dumps(content))
    assert [(kept.what, kept.machine, kept.date) for kept in kept_in(tmp_path)] == [
        ("prepared", "2-core-cpu", "2026-01-03")
    ]
    made = page(tmp_path, "{{table prepared}}\n{{table switching}}\n{{prepared:results.0.images_per_s|.1f}}\n")
    assert "| prepared | 20 (20-20) |\n| other | 40 (40-40) |\n| prepared ÷ other | 0.50 (0.50-0.50) |" in made
    assert made.startswith("`the command` on 2 cores of CPU, 2026-01-03; images: some; dali-fixres 1 (0a1b2c3), ")
    assert "; beside it ffcv-raw50 1.0.2 (3 workers), timm (failed); " in made
    assert "Not measured yet; `uv run python bench/switching.py` does.\n20.0\n" in made
    with pytest.raises(UserError, match=r"has no results\.5, which"):
        page(tmp_path, "{{prepared:results.5|}}")


def test_the_usual_results_come_first_on_the_page(tmp_path: Path) -> None:
    """Before those of other settings or data, which have a longer name."""
    kept = next(one for one in kept_in(PAGE.parents[1] / "bench" / "results") if one.what == "prepared")
    for name, command in (("prepared", "usual"), ("prepared-other", "other")):
        content = {**kept.content, "command": command}
        (tmp_path / f"{name}_2-core-cpu_2026-01-03.json").write_text(json.dumps(content))
    made = page(tmp_path, "{{table prepared}}")
    assert 0 <= made.index("`usual` on") < made.index("`other` on")
