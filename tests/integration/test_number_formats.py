"""Number formats of commands: what trains in bfloat16 is tested in float32, and every file says which it was."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dali_fixres.checkpoints import load_checkpoint, rebuild
from dali_fixres.commands.analyze import analyze
from dali_fixres.commands.doctor import doctor
from dali_fixres.commands.evaluate import evaluate
from dali_fixres.commands.finetune import finetune
from dali_fixres.commands.fixres import fixres
from dali_fixres.commands.train import train
from dali_fixres.config import AnalyzeConfig, EvaluateConfig, FinetuneConfig, FixresConfig, Precision, TrainConfig
from dali_fixres.config.finetuning import Method
from dali_fixres.errors import ConfigError
from dali_fixres.runtime import precision as precision_module
from pipelines import EvalPlan, Loader, Resolution, open_dataset

RESOLUTION = Resolution(64)


@pytest.fixture(scope="module")
def low(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a training in bfloat16."""
    out = tmp_path_factory.mktemp("runs") / "low"
    train(
        TrainConfig(
            data=images, model="timm/test_resnet", batch_size=20, train_res="64", epochs=2, lr=0.05, workers=2,
            precision="bf16", out=out,
        )
    )  # fmt: skip
    return out


def saved_logits(low: Path, images: Path, folder: Path, precision: Precision) -> NDArray[np.float32]:
    """Return what `evaluate` saves of the trained network at the resolution of its training."""
    config = EvaluateConfig(
        data=images, checkpoint=low, batch_size=20, workers=2, save_outputs=folder, plot=folder.with_suffix(".png"),
        json=folder.with_suffix(".json"), eval_precision=precision,
    )  # fmt: skip
    evaluate(config)
    assert json.loads(folder.with_suffix(".json").read_text())["eval_precision"] == precision
    assert json.loads((folder / "outputs.json").read_text())["eval_precision"] == precision
    logits: NDArray[np.float32] = np.load(folder / "logits.npy")
    return logits


def test_a_network_trained_in_bfloat16_is_tested_in_float32(low: Path, images: Path, tmp_path: Path) -> None:
    """The logits are, bit for bit, those of plain torch with the same weights and images; so is the accuracy."""
    dataset = open_dataset(images)
    model = rebuild(load_checkpoint(low / "last.pt"), low)
    network = model.network.to(memory_format=torch.channels_last).eval()
    with Loader(dataset, max_batch_size=20, normalisation=model.normalisation) as loader, torch.inference_mode():
        (batch,) = loader.run(EvalPlan(dataset, batch_size=20).batches(RESOLUTION))
        expected = network(batch.images)
    (row,) = json.loads((low / "results.json").read_text())["results"]
    assert row["num_top1"] == int((expected.argmax(1) == batch.labels).sum())
    found = saved_logits(low / "last.pt", images, tmp_path / "fp32", "fp32")
    np.testing.assert_array_equal(found, expected.numpy())
    rounded = saved_logits(low / "last.pt", images, tmp_path / "bf16", "bf16")
    np.testing.assert_array_equal(rounded, torch.from_numpy(rounded).bfloat16().float().numpy())
    assert 0 < np.abs(rounded - found).max() < 0.1 * np.abs(found).max()


def test_a_run_says_what_it_ran_in(low: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings, results and the line about the network have both formats; auto is stored as what it has taken."""
    assert load_checkpoint(low / "last.pt").config["precision"] == "bf16"
    found = json.loads((low / "results.json").read_text())
    assert (found["precision"], found["eval_precision"]) == ("bf16", "fp32")
    config = FinetuneConfig(
        data=images, checkpoint=low, test_res=96, epochs=1, batch_size=20, workers=2, eval_precision="bf16",
        out=tmp_path / "high",
    )  # fmt: skip
    finetune(config)
    assert "on cpu; network in fp32, tests in bf16" in capsys.readouterr().err
    found = json.loads((tmp_path / "high" / "results.json").read_text())
    assert (found["precision"], found["eval_precision"]) == ("fp32", "bf16")
    assert 'precision = "fp32"' in (tmp_path / "high" / "config.toml").read_text().splitlines()
    analyze(AnalyzeConfig(data=images, checkpoint=low, test_res="64", batch_size=20, workers=2, out=tmp_path / "about"))
    assert json.loads((tmp_path / "about" / "analysis.json").read_text())["eval_precision"] == "fp32"
    doctor(tmp_path / "doctor.json")
    assert json.loads((tmp_path / "doctor.json").read_text())["precision"]["cpu"]["auto"] == "fp32"


def test_fixres_warns_of_slow_bf16_once(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said before the first stage, and not again in each."""
    (tmp_path / "cpuinfo").write_text("flags\t: avx2\n")
    monkeypatch.setattr(precision_module, "CPUINFO", tmp_path / "cpuinfo")
    fixres(
        FixresConfig(
            data=images, device="cpu", model="timm/test_resnet", batch_size=20, train_res="64", epochs=1, sweep="96",
            test_res="96", method="cached-features", precision="bf16", eval_precision="bf16", workers=2,
            out=tmp_path / "run",
        )
    )  # fmt: skip
    errors = capsys.readouterr().err
    assert (errors.count("--precision bf16 is slow"), errors.count("--eval-precision bf16 is slow")) == (1, 1)


@pytest.mark.parametrize("method", ["sgd", "cached-features", "frechet"])
def test_every_method_of_fine_tuning_runs_in_bfloat16(low: Path, images: Path, tmp_path: Path, method: Method) -> None:
    """Steps, features and fits are of that format: another network comes out than in float32, tested alike."""
    ends = []
    precisions: tuple[Precision, ...] = ("bf16", "fp32")
    config = FinetuneConfig(data=images, checkpoint=low, test_res=96, batch_size=20, workers=2, method=method)
    for precision in precisions:
        out = tmp_path / precision
        finetune(replace(config, precision=precision, out=out))
        ends.append(load_checkpoint(out / "last.pt").state_dict)
    assert ends[0].keys() == ends[1].keys()
    assert all(tensor.dtype != torch.bfloat16 for tensor in ends[0].values())
    assert not all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("flag", ["precision", "eval_precision"])
def test_fp16_on_a_cpu_is_refused_before_anything_is_made(low: Path, images: Path, tmp_path: Path, flag: str) -> None:
    """Every command says which flag it is and what to take."""
    out, wrong = tmp_path / "none", {flag: "fp16"}
    commands: list[tuple[Callable[[Any], object], Any]] = [
        (train, TrainConfig(data=images, device="cpu", model="timm/test_resnet", out=out)),
        (finetune, FinetuneConfig(data=images, device="cpu", checkpoint=low, test_res=96, out=out)),
        (fixres, FixresConfig(data=images, device="cpu", model="timm/test_resnet", out=out)),
    ]
    if flag == "eval_precision":
        commands += [
            (evaluate, EvaluateConfig(data=images, device="cpu", checkpoint=low, plot=out)),
            (analyze, AnalyzeConfig(data=images, device="cpu", checkpoint=low, out=out)),
        ]
    for command, config in commands:
        with pytest.raises(ConfigError) as caught:
            command(replace(config, **wrong))
        assert str(caught.value) == f"--{flag.replace('_', '-')} fp16 needs a GPU; on a CPU take bf16 or fp32"
    assert not out.exists()
