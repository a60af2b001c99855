"""The main line: train low, fine-tune high, evaluate, resume; each step builds on the run of the one before."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

TINY = ("--model", "timm/test_resnet", "--batch-size", 8, "--train-res", "64@0,96@1", "--test-res", 96, "--lr", 0.05)


@pytest.fixture(scope="module")
def trained(cli: Any, pictures: Path, workplace: Path) -> Path:
    """Return the run folder of a short training with one resolution switch."""
    result = cli("train", "--data", pictures, *TINY, "--epochs", 2, "--out", "runs/low", "--json", "train.json")
    assert result.returncode == 0, result.stderr
    assert "top-1" in result.stdout
    return workplace / "runs" / "low"


@pytest.fixture(scope="module")
def finetuned(cli: Any, trained: Path, workplace: Path) -> Path:
    """Return the run folder of a fine-tuning of that run."""
    assert trained.is_dir()
    result = cli(
        "finetune", "--test-res", 128, "--epochs", 2, "--batch-size", 8, "--out", "runs/high", "--json", "finetune.json"
    )
    assert result.returncode == 0, result.stderr
    assert "checkpoint: runs/low" in result.stderr
    assert "tuning fc" in result.stderr
    return workplace / "runs" / "high"


def records(run: Path) -> list[dict[str, Any]]:
    """Return a run's records."""
    return [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]


def test_train_leaves_a_whole_run_folder(trained: Path, pictures: Path) -> None:
    """Settings, records, checkpoints, results and plot are there and say what was asked for."""
    names = {path.name for path in trained.iterdir()}
    assert names == {"config.toml", "records.jsonl", "last.pt", "best.pt", "results.json", "curves.png"}
    config = tomllib.loads((trained / "config.toml").read_text())
    assert config["data"] == str(pictures)
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
    assert row.keys() == {"test_res", "crop_ratio", "top1", "top5", "num_images", "images_per_s"}
    assert (row["test_res"], row["num_images"]) == (96, 20)
    assert content["synthetic"] is False
    assert content["environment"]["torch"] == torch.__version__.partition("+")[0]


def test_finetune_reports_before_and_after(finetuned: Path, workplace: Path) -> None:
    """The figures cover training and test resolution, before and after, with seconds and tuned parameters."""
    content = json.loads((workplace / "finetune.json").read_text())
    assert [row["test_res"] for row in content["before"]] == [96, 128]
    assert [row["test_res"] for row in content["after"]] == [96, 128]
    assert content["seconds"] > 0
    assert content["tuned_parameters"] > 0
    assert (finetuned / "before_after.png").stat().st_size > 5000


def test_finetune_changes_classifier_and_last_norm_alone(trained: Path, finetuned: Path) -> None:
    """Every tensor of the trunk is bit for bit what training left; classifier and last norm have moved."""
    before = torch.load(trained / "best.pt", weights_only=True)["state_dict"]
    after = torch.load(finetuned / "last.pt", weights_only=True)["state_dict"]
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {name.rpartition(".")[0] for name in changed} == {"fc", "layer4.0.bn2"}


def test_evaluate_sweeps_the_newest_run(cli: Any, finetuned: Path, workplace: Path) -> None:
    """Without --checkpoint it takes the newest run; the JSON has one row per resolution, ascending."""
    result = cli("evaluate", "--test-res", "128,64,96", "--json", "sweep.json")
    assert result.returncode == 0, result.stderr
    content = json.loads((workplace / "sweep.json").read_text())
    assert [row["test_res"] for row in content["results"]] == [64, 96, 128]
    assert all(row["num_images"] == 20 for row in content["results"])
    assert (finetuned / "evaluation.png").exists()
    after = json.loads((finetuned / "results.json").read_text())["after"]
    assert content["results"][2]["top1"] == after[1]["top1"]


def test_evaluate_takes_weights_of_any_file(cli: Any, trained: Path, pictures: Path, workplace: Path) -> None:
    """The same tensors under --model and --weights, prefixed, give the same accuracy as the checkpoint."""
    state = torch.load(trained / "last.pt", weights_only=True)["state_dict"]
    torch.save({"model": {f"module.{name}": tensor for name, tensor in state.items()}}, workplace / "foreign.pth")
    command = ("evaluate", "--data", pictures, "--test-res", 96, "--json", "foreign.json")
    result = cli(*command, "--model", "timm/test_resnet", "--weights", "foreign.pth", "--plot", "foreign.png")
    assert result.returncode == 0, result.stderr
    foreign = json.loads((workplace / "foreign.json").read_text())["results"][0]
    last = [record for record in records(trained) if record["event"] == "evaluation"][-1]
    assert (foreign["top1"], foreign["top5"]) == (last["top1"], last["top5"])


def test_resume_goes_on_where_a_killed_run_stopped(cli: Any, pictures: Path, workplace: Path) -> None:
    """A run killed in the middle and resumed ends with the very tensors of one that was never stopped."""
    command = ("train", "--data", pictures, *TINY, "--epochs", 8)
    whole = cli(*command, "--out", "runs/whole")
    assert whole.returncode == 0, whole.stderr
    words = [sys.executable, "-m", "dali_fixres", *map(str, command), "--out", "runs/part"]
    with subprocess.Popen(
        words, cwd=workplace, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("epoch 2/8"))
        process.kill()
    part = workplace / "runs" / "part"
    assert torch.load(part / "last.pt", weights_only=True)["epoch"] < 8
    resumed = cli("train", "--resume", "--out", "runs/part")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming runs/part after epoch" in resumed.stderr
    expected, found = (
        torch.load(workplace / "runs" / name / "last.pt", weights_only=True)["state_dict"] for name in ("whole", "part")
    )
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_demo_trains_without_any_flags_but_a_shorter_run(cli: Any, tmp_path: Path) -> None:
    """Without --data the demo is made, labelled synthetic, and trained with its recipe; flags still win."""
    result = cli("train", "--epochs", 1, "--train-res", 32, "--test-res", 32, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "synthetic" in result.stdout
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "results.json").read_text())["synthetic"] is True
    assert tomllib.loads((run / "config.toml").read_text())["epochs"] == 1


def test_preview_and_index_and_doctor_work(cli: Any, pictures: Path, workplace: Path) -> None:
    """The lesser commands do what their help says."""
    assert cli("preview", "--data", pictures, "--num-images", 2, "--test-res", "64").returncode == 0
    assert (workplace / "preview.png").stat().st_size > 10_000
    result = cli("index", "--data", pictures, "--json", "index.json")
    assert result.returncode == 0
    content = json.loads((workplace / "index.json").read_text())
    assert content["splits"]["train"]["num_images"] == 40
    assert content["classes"] == ["ant", "bee", "cat", "dog"]
    doctor = cli("doctor")
    assert doctor.returncode == 0
    assert "graph on cpu" in doctor.stdout
    assert "works" in doctor.stdout
