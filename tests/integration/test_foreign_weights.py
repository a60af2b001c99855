"""Weights from elsewhere without --model, and a network on its way out: train, fine-tune, evaluate, export."""

import json
import tomllib
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from dali_fixres.cli import app
from dali_fixres.errors import CheckpointError
from dali_fixres.models import ModelSpec, build_model

SMALL = ("--batch-size", 8, "--epochs", 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint as timm's training script writes it, of a small network with 1000 classes."""
    torch.manual_seed(0)
    network = build_model(ModelSpec("timm/test_resnet", 1000)).network
    path = tmp_path_factory.mktemp("weights") / "model_best.pth.tar"
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 1, "arch": "test_resnet", "state_dict": state, "args": Namespace(model="test_resnet")}, path)
    return path


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where nothing else is."""
    monkeypatch.chdir(tmp_path)


def run(*words: object) -> None:
    """Run a command line in this process; its errors are raised."""
    app([*map(str, words)], exit_on_error=False, print_error=False, result_action="return_value")


def test_train_then_export(images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`train` starts from the file's network and stores its name; what `export` writes of the run, timm loads."""
    run("train", "--data", images, "--weights", weights, *SMALL, "--train-res", 64, "--out", "run")
    said = capsys.readouterr().err
    assert "recognised: timm/test_resnet" in said
    assert f"weights of {weights} (state_dict), with a new head for 4 classes (fc.bias, fc.weight)" in said
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["model"] == "timm/test_resnet"
    run("export", "--checkpoint", "run", "--out", "out")
    network: Any = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    assert network.pretrained_cfg["label_names"] == ["ant", "bee", "cat", "dog"]
    state = torch.load(tmp_path / "run" / "best.pt", weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    results = json.loads((tmp_path / "run" / "results.json").read_text())["results"]
    assert f"| 64 | {results[0]['top1']:.2f} |" in (tmp_path / "out" / "README.md").read_text()


def test_finetune_and_evaluate(images: Path, weights: Path, tmp_path: Path) -> None:
    """`finetune` and `evaluate` do not need --model either."""
    words = ("--data", images, "--weights", weights)
    run("finetune", *words, *SMALL, "--test-res", 64, "--train-res", 64, "--out", "fixed")
    assert tomllib.loads((tmp_path / "fixed" / "config.toml").read_text())["model"] == "timm/test_resnet"
    run("evaluate", *words, "--batch-size", 8, "--test-res", 64, "--json", "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["model"] == "timm/test_resnet"


def test_dry_runs_touch_nothing(
    images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--dry-run says what would be done, and leaves no run folder; weights that do not fit are found."""
    words = ("--data", images, "--weights", weights, *SMALL, "--test-res", 64, "--dry-run")
    run("finetune", *words)
    said = capsys.readouterr()
    assert "tuning fc, the running statistics of layer4.0.bn2" in said.err
    assert "what would be done" in said.out
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CheckpointError, match="does not fit this network"):
        run("finetune", *words, "--model", "resnet18")
