"""Adapting activations without training: the mapping goes with the checkpoint, whoever fits it."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks

from dali_fixres.checkpoints.checkpoint import load_checkpoint
from dali_fixres.commands.analyze import analyze
from dali_fixres.commands.evaluate import evaluate
from dali_fixres.commands.finetune import finetune
from dali_fixres.commands.train import train
from dali_fixres.config import AnalyzeConfig, EvaluateConfig, FinetuneConfig, TrainConfig
from dali_fixres.errors import CheckpointError, ConfigError
from dali_fixres.models import ModelSpec, build_model
from dali_fixres.runtime.run_folder import RunFolder


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of one epoch at 64 px."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    train(TrainConfig(data=images, model="timm/test_resnet", batch_size=8, train_res="64", epochs=1, out=run))
    return run


@pytest.fixture(scope="module")
def config(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneConfig:
    """Return what `adapted` was made with."""
    return FinetuneConfig(
        checkpoint=trained, test_res=96, method="frechet", batch_size=8, workers=2,
        out=tmp_path_factory.mktemp("adapted") / "run",
    )  # fmt: skip


@pytest.fixture(scope="module")
def adapted(config: FinetuneConfig) -> Path:
    """Return an adapted run."""
    finetune(config)
    assert config.out is not None
    return config.out


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a run's network."""
    state: dict[str, torch.Tensor] = torch.load(run / "last.pt", weights_only=True)["state_dict"]
    return state


def test_only_the_mapping_is_new(adapted: Path, trained: Path) -> None:
    """No tensor of the network changes; the classifier's stand behind those of the mapping."""
    before, after = tensors(trained), tensors(adapted)
    assert after.keys() - before.keys() == {
        "fc.classifier.weight", "fc.classifier.bias", "fc.frechet.trained", "fc.frechet.tested",
        "fc.frechet.rectified",
    }  # fmt: skip
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name.replace("fc.", "fc.classifier.")]), name
    assert after["fc.frechet.rectified"]  # it ends with a ReLU
    assert load_checkpoint(adapted).model.frechet == "fc"


def test_figures_are_left_behind(adapted: Path) -> None:
    """Records and results hold both fits, which are the numbers of the checkpoint, and the tests before and after."""
    results = json.loads((adapted / "results.json").read_text())
    fits = results["frechet"]
    for view in ("trained", "tested"):
        numbers = [fits[view][name] for name in ("location", "scale", "shape")]
        np.testing.assert_allclose(tensors(adapted)[f"fc.frechet.{view}"].numpy(), numbers)
        assert 0 <= fits[view]["zeros"] < 1
    assert [row["test_res"] for row in results["before"]] == [row["test_res"] for row in results["after"]] == [64, 96]
    assert results["trained_parameters"] == 0
    records = RunFolder(adapted).records()
    passed = next(record for record in records if record["event"] == "pass")
    assert (passed["num_images"], passed["test_res"]) == (2 * 40, 96)
    assert not [record for record in records if record["event"] == "epoch"]
    assert (adapted / "before_after.png").stat().st_size > 0


def test_the_mapping_is_evaluated(adapted: Path, tmp_path: Path) -> None:
    """`evaluate` builds the network again, mapping and all, and gets the very accuracy of the run."""
    evaluate(
        EvaluateConfig(
            checkpoint=adapted, test_res="64,96", batch_size=8, json=tmp_path / "r.json", plot=tmp_path / "p.png"
        )
    )
    found = json.loads((tmp_path / "r.json").read_text())["results"]
    after = json.loads((adapted / "results.json").read_text())["after"]
    keys = ("test_res", "top1", "top5", "num_images")
    assert [[row[key] for key in keys] for row in found] == [[row[key] for key in keys] for row in after]


def test_two_processes_fit_what_one_fits(config: FinetuneConfig, tmp_path: Path) -> None:
    """The numbers do not depend on how images are assigned to processes; a broken file is left out."""
    assert config.checkpoint is not None
    source = torch.load(config.checkpoint / "last.pt", weights_only=True)["config"]["data"]
    data = Path(shutil.copytree(source, tmp_path / "data"))
    victim = data / "train" / "cat" / "02.jpg"
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    alone = replace(config, data=data, out=tmp_path / "alone")
    several = replace(alone, out=tmp_path / "several")
    finetune(alone)
    run_ranks(2, finetune, several)
    one, other = tensors(tmp_path / "alone"), tensors(tmp_path / "several")
    for view in ("trained", "tested"):
        torch.testing.assert_close(one[f"fc.frechet.{view}"], other[f"fc.frechet.{view}"], rtol=1e-5, atol=1e-6)
    assert "cat/02.jpg" in (tmp_path / "several" / "unreadable.txt").read_text()


@pytest.mark.parametrize("options", [{"method": "cached-features"}, {"trainable": "last-blocks"}])
def test_tuning_from_an_adapted_run(adapted: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """Other methods find classifier and norm behind the mapping, tune them, and leave the mapping as it is."""
    run = tmp_path / "tuned"
    finetune(FinetuneConfig(checkpoint=adapted, test_res=96, epochs=1, batch_size=8, out=run, **options))
    before, after = tensors(adapted), tensors(run)
    assert load_checkpoint(run).model.frechet == "fc"
    assert not torch.equal(before["fc.classifier.weight"], after["fc.classifier.weight"])
    assert torch.equal(before["fc.frechet.tested"], after["fc.frechet.tested"])


def test_a_second_mapping_is_refused(adapted: Path, tmp_path: Path) -> None:
    """What reaches the classifier of an adapted network is mapped already; the error says where to start."""
    with pytest.raises(CheckpointError, match=r"has a Fréchet mapping already; start from the network before it"):
        finetune(FinetuneConfig(checkpoint=adapted, test_res=128, method="frechet", out=tmp_path / "run"))


def test_a_new_classifier_is_not_adapted(adapted: Path, config: FinetuneConfig, tmp_path: Path) -> None:
    """Where nothing learns, a classifier of other classes would stay the zeros that it starts as."""
    network = build_model(ModelSpec("timm/test_resnet", 7)).network
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    named = replace(config, checkpoint=None, model="timm/test_resnet", weights=tmp_path / "weights.pth")
    data = Path(str(load_checkpoint(adapted).config["data"]))
    with pytest.raises(ConfigError, match="has a new classifier for the classes of this data; train it first"):
        finetune(replace(named, data=data, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_finished_run_stays_as_it_is(config: FinetuneConfig, images: Path, adapted: Path) -> None:
    """Resumed, it maps nothing a second time, and its results are the same."""
    before, results = tensors(adapted), json.loads((adapted / "results.json").read_text())
    finetune(replace(config, resume=True, data=images, crop_ratio=0.875))  # as the command line reads them
    after, again = tensors(adapted), json.loads((adapted / "results.json").read_text())
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert [row["top1"] for row in again["after"]] == [row["top1"] for row in results["after"]]
    assert again["frechet"] == results["frechet"]


def test_analysis_of_a_run(adapted: Path, trained: Path, tmp_path: Path) -> None:
    """`analyze` compares the crops of the run's data and what its network makes of them, fitted as `finetune` does."""
    out = tmp_path / "analysis"
    analyze(AnalyzeConfig(checkpoint=trained, test_res="64,96", batch_size=8, out=out))
    found = json.loads((out / "analysis.json").read_text())
    sizes, activations = found["sizes"], found["activations"]
    assert sizes["num_images"] == 60
    assert [sizes["train"]["train_res"], *(row["test_res"] for row in sizes["test"])] == [64, 64, 96]
    assert sizes["train"]["mean_px"] > sizes["test"][0]["mean_px"]
    assert sizes["matching_multiple"] % 32 == 0
    assert (activations["classifier"], activations["num_images"], activations["rectified"]) == ("fc", 40, True)
    fits = json.loads((adapted / "results.json").read_text())["frechet"]
    for row, view in ((activations["train"], "trained"), (activations["test"][1], "tested")):
        assert len(row["histogram"]) == len(activations["edges"]) - 1
        assert row["zeros"] == pytest.approx(fits[view]["zeros"])
        assert row["fitted"]["shape"] == pytest.approx(fits[view]["shape"], abs=1e-4)
    assert {path.name for path in out.iterdir()} == {"analysis.json", "sizes.png", "activations.png"}


def test_analysis_without_a_network(
    cli: Callable[..., subprocess.CompletedProcess[str]], images: Path, tmp_path: Path
) -> None:
    """Where there is no checkpoint, no model and no run, sizes are analysed and it says so."""
    result = cli("analyze", "--data", images, "--train-res", 128, "--test-res", "128,160", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "sizes are analysed, activations are not" in result.stderr
    assert "the nearest multiple of 32 is 160 px" in result.stdout
    assert json.loads((tmp_path / "analysis" / "analysis.json").read_text())["activations"] is None
    assert not (tmp_path / "analysis" / "activations.png").exists()
