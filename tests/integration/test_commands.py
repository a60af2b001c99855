"""The commands from training to evaluation, each on the run of the previous one; and the smaller commands."""

import json
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

TINY = ("--model", "timm/test_resnet", "--batch-size", 8, "--train-res", "64@0,96@1", "--test-res", 96, "--lr", 0.05)


@pytest.fixture(scope="module")
def trained(call: Any, images: Path, workplace: Path) -> Path:
    """Return the run folder of a short training with one resolution switch."""
    result = call("train", "--data", images, *TINY, "--epochs", 2, "--out", "runs/low", "--json", "train.json")
    assert result.returncode == 0, result.stderr
    assert "top-1" in result.stdout
    return workplace / "runs" / "low"


@pytest.fixture(scope="module")
def finetuned(call: Any, trained: Path, workplace: Path) -> Path:
    """Return the run folder of a fine-tuning of that run."""
    assert trained.is_dir()
    result = call(
        "finetune", "--test-res", 128, "--epochs", 2, "--batch-size", 8, "--out", "runs/high", "--json", "finetune.json"
    )
    assert result.returncode == 0, result.stderr
    assert "checkpoint: runs/low" in result.stderr
    assert "tuning fc" in result.stderr
    return workplace / "runs" / "high"


def records(run: Path) -> list[dict[str, Any]]:
    """Return a run's records."""
    return [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]


def test_train_leaves_a_whole_run_folder(trained: Path, images: Path) -> None:
    """Settings, records, checkpoints, results and plot are there and say what was asked for."""
    names = {path.name for path in trained.iterdir()}
    assert names == {
        ".lock", "best.pt", "config.toml", "curves.png", "data.npz", "last.pt", "records.jsonl", "results.json",
    }  # fmt: skip
    config = tomllib.loads((trained / "config.toml").read_text())
    assert config["data"] == str(images)
    assert (config["train_res"], config["test_res"], config["epochs"]) == ("64@0,96@1", 96, 2)
    epochs = [record for record in records(trained) if record["event"] == "epoch"]
    assert [(record["epoch"], record["step"], record["train_res"]) for record in epochs] == [(1, 5, 64), (2, 10, 96)]
    tests = [record for record in records(trained) if record["event"] == "evaluation"]
    assert [(record["epoch"], record["test_res"], record["num_images"]) for record in tests] == [
        (1, 96, 20),
        (2, 96, 20),
    ]


def test_train_writes_its_figures_as_json(trained: Path, workplace: Path) -> None:
    """``--json`` holds the same as results.json: one row per resolution, and what it was measured on."""
    content = json.loads((workplace / "train.json").read_text())
    assert content == json.loads((trained / "results.json").read_text())
    (row,) = content["results"]
    assert row.keys() >= {"test_res", "crop_ratio", "top1", "top5", "num_images", "num_unreadable", "images_per_s"}
    assert (row["test_res"], row["num_images"]) == (96, 20)
    assert content["synthetic"] is False
    assert content["environment"]["torch"] == torch.__version__.partition("+")[0]


def test_finetune_reports_before_and_after(finetuned: Path, workplace: Path) -> None:
    """The figures cover training and test resolution, before and after, with seconds and tuned parameters."""
    content = json.loads((workplace / "finetune.json").read_text())
    assert [row["test_res"] for row in content["before"]] == [96, 128]
    assert [row["test_res"] for row in content["after"]] == [96, 128]
    assert content["seconds"] > 0
    assert content["trained_parameters"] > 0
    assert (finetuned / "before_after.png").stat().st_size > 5000


def test_finetune_changes_classifier_and_last_norm_alone(trained: Path, finetuned: Path) -> None:
    """Every tensor of the trunk is bit for bit that of training; classifier and last norm have changed."""
    before = torch.load(trained / "best.pt", weights_only=True)["state_dict"]
    after = torch.load(finetuned / "last.pt", weights_only=True)["state_dict"]
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {name.rpartition(".")[0] for name in changed} == {"fc", "layer4.0.bn2"}


def test_evaluate_sweeps_the_newest_run(call: Any, finetuned: Path, workplace: Path) -> None:
    """Without --checkpoint it takes the newest run; the JSON has one row per resolution, ascending."""
    result = call("evaluate", "--test-res", "128,64,96", "--json", "sweep.json")
    assert result.returncode == 0, result.stderr
    content = json.loads((workplace / "sweep.json").read_text())
    assert [row["test_res"] for row in content["results"]] == [64, 96, 128]
    assert all(row["num_images"] == 20 for row in content["results"])
    assert (finetuned / "evaluation.png").exists()
    after = json.loads((finetuned / "results.json").read_text())["after"]
    assert content["results"][2]["top1"] == after[1]["top1"]


def test_evaluate_takes_weights_of_any_file(call: Any, trained: Path, images: Path, workplace: Path) -> None:
    """The same tensors under --model and --weights, prefixed, give the same accuracy as the checkpoint."""
    state = torch.load(trained / "last.pt", weights_only=True)["state_dict"]
    torch.save({"model": {f"module.{name}": tensor for name, tensor in state.items()}}, workplace / "foreign.pth")
    command = ("evaluate", "--data", images, "--test-res", 96, "--json", "foreign.json")
    result = call(*command, "--model", "timm/test_resnet", "--weights", "foreign.pth", "--plot", "foreign.png")
    assert result.returncode == 0, result.stderr
    foreign = json.loads((workplace / "foreign.json").read_text())["results"][0]
    last = [record for record in records(trained) if record["event"] == "evaluation"][-1]
    assert (foreign["top1"], foreign["top5"]) == (last["top1"], last["top5"])


def test_a_preempted_run_names_the_command_that_resumes_it(call: Any, images: Path, workplace: Path) -> None:
    """SIGTERM ends a run with exit code 75 and the command that resumes it; that command finishes the run."""
    words = [sys.executable, "-m", "dali_fixres", "train", "--data", images, *TINY, "--epochs", 50]
    with subprocess.Popen(
        [*map(str, words), "--out", "runs/part"], cwd=workplace, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("epoch 2/50"))
        process.send_signal(signal.SIGTERM)
        *_, last_line = process.stderr
    assert process.returncode == 75
    said, _, command = last_line.strip().partition("; resume with: dali-fixres ")
    assert said.startswith("stopped by SIGTERM after step ")
    step = torch.load(workplace / "runs" / "part" / "last.pt", weights_only=True)["step"]
    assert said.split()[-3] == f"{step},"
    resumed = call(*command.split(), "--epochs", 12)
    assert resumed.returncode == 0, resumed.stderr
    assert f"resuming runs/part after step {step}" in resumed.stderr
    assert torch.load(workplace / "runs" / "part" / "last.pt", weights_only=True)["epoch"] == 12


def test_verify_has_an_exit_code(call: Any, images: Path, tmp_path: Path) -> None:
    """0 for good data; 1 and a list for data with broken files."""
    good = call("verify", images, folder=tmp_path)
    assert (good.returncode, good.stdout) == (0, "0 of 60 files cannot be read\n")
    data = Path(shutil.copytree(images, tmp_path / "data"))
    victim = data / "val" / "ant" / "03.jpg"
    victim.write_bytes(victim.read_bytes()[:2000])
    bad = call("verify", data, folder=tmp_path)
    assert bad.returncode == 1
    assert "1 of 60 files cannot be read, listed in unreadable.txt" in bad.stdout
    assert (tmp_path / "unreadable.txt").read_text().startswith(f"{victim}: ")


@pytest.mark.slow
def test_demo_trains_without_any_flags_but_a_shorter_run(call: Any, tmp_path: Path) -> None:
    """Without --data the demo is made, labelled synthetic, and trained with its recipe; flags still win."""
    result = call("train", "--epochs", 1, "--train-res", 32, "--test-res", 32, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "synthetic" in result.stdout
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "results.json").read_text())["synthetic"] is True
    assert tomllib.loads((run / "config.toml").read_text())["epochs"] == 1


def test_preview_index_and_doctor(call: Any, images: Path, workplace: Path) -> None:
    """Preview draws an image, index counts files, doctor finds a graph that works."""
    assert call("preview", "--data", images, "--num-images", 2, "--test-res", "64").returncode == 0
    assert (workplace / "preview.png").stat().st_size > 10_000
    result = call("index", "--data", images, "--json", "index.json")
    assert result.returncode == 0
    content = json.loads((workplace / "index.json").read_text())
    assert content["splits"]["train"]["num_images"] == 40
    assert content["classes"] == ["ant", "bee", "cat", "dog"]
    doctor = call("doctor")
    assert doctor.returncode == 0
    assert "graph on cpu" in doctor.stdout
    assert "works" in doctor.stdout


def test_a_class_without_test_images_is_named(call: Any, images: Path, tmp_path: Path) -> None:
    """No accuracy says anything about it."""
    data = Path(shutil.copytree(images, tmp_path / "data"))
    shutil.rmtree(data / "val" / "bee")
    assert "warning: 1 class(es) have no test images: bee" in call("index", "--data", data).stderr
    assert "no test images" not in call("index", "--data", images).stderr
