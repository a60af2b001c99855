"""A network's own images: from a folder as on the Hugging Face hub through tests, fine-tuning and export."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import timm.data
import torch
from PIL import Image
from safetensors.torch import save_file

from dali_fixres.checkpoints.checkpoint import load_checkpoint
from dali_fixres.commands.analyze import analyze
from dali_fixres.commands.evaluate import evaluate
from dali_fixres.commands.export import export
from dali_fixres.commands.finetune import finetune
from dali_fixres.commands.train import train
from dali_fixres.config import AnalyzeConfig, EvaluateConfig, ExportConfig, FinetuneConfig, TrainConfig
from dali_fixres.errors import ConfigError
from dali_fixres.models import ModelSpec, build_model
from dali_fixres.runtime.run_folder import RunFolder

CFG = {
    "input_size": [3, 64, 64], "test_input_size": [3, 96, 96], "interpolation": "bicubic", "crop_pct": 0.8,
    "test_crop_pct": 0.95, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "num_classes": 4,
}  # fmt: skip


def hub_folder(folder: Path, **more: object) -> Path:
    """Write a small network as it lies on the hub, and return its weights."""
    torch.manual_seed(0)
    folder.mkdir()
    save_file(build_model(ModelSpec("timm/test_resnet", 4)).network.state_dict(), folder / "model.safetensors")
    content = {"architecture": "test_resnet", "num_classes": 4, "pretrained_cfg": {**CFG, **more}}
    (folder / "config.json").write_text(json.dumps(content))
    return folder / "model.safetensors"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return weights whose images are bicubic, of crop ratio 0.95."""
    return hub_folder(tmp_path / "hub")


def timm_logits(folder: Path, paths: list[bytes], images: Path) -> np.ndarray[Any, Any]:
    """Return the logits of a folder's network for images that timm's own transform has made."""
    network: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    library: Any = timm.data
    cfg = library.resolve_data_config({}, model=network, use_test_size=True)
    transform = library.create_transform(**cfg, is_training=False)
    inputs = [transform(Image.open(images / path.decode()).convert("RGB")) for path in paths]
    with torch.no_grad():
        logits: np.ndarray[Any, Any] = network(torch.stack(inputs)).numpy()
    return logits


@pytest.mark.parametrize("mode", ["center", "squash"])
def test_tests_are_timms(mode: str, images: Path, tmp_path: Path) -> None:
    """Without any flag a network is tested at the size, filter and crop that timm takes, to the same logits."""
    weights = hub_folder(tmp_path / "hub", crop_mode=mode)
    out = tmp_path / "outputs"
    config = EvaluateConfig(
        data=images, model="timm/test_resnet", weights=weights, save_outputs=out, batch_size=8,
        json=tmp_path / "out.json", plot=tmp_path / "plot.png",
    )  # fmt: skip
    evaluate(config)
    content = json.loads((tmp_path / "out.json").read_text())
    (row,) = content["results"]
    assert (row["test_res"], row["crop_ratio"]) == (96, 0.95)
    assert {name: content["data_config"][name] for name in ("interpolation", "crop_mode", "train_res")} == {
        "interpolation": "bicubic", "crop_mode": mode, "train_res": 64,
    }  # fmt: skip
    ours, theirs = np.load(out / "logits.npy"), timm_logits(weights.parent, np.load(out / "paths.npy").tolist(), images)
    np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())


def test_fine_tuning_starts_from_them(weights: Path, images: Path, tmp_path: Path) -> None:
    """It tests before at the network's own size and at the target, and keeps filter, crop ratio and training size."""
    out = tmp_path / "run"
    finetune(FinetuneConfig(data=images, weights=weights, test_res=128, epochs=1, batch_size=8, out=out))
    results = json.loads((out / "results.json").read_text())
    for rows in (results["before"], results["after"]):
        assert [(row["test_res"], row["crop_ratio"]) for row in rows] == [(96, 0.95), (128, 0.95)]
    checkpoint = load_checkpoint(out)
    assert checkpoint.before is not None
    assert (checkpoint.train_res, checkpoint.before.test_res, checkpoint.test_res) == (64, 96, 128)
    assert (checkpoint.data_config.interpolation, checkpoint.data_config.mean) == ("bicubic", (0.5, 0.4, 0.3))
    assert checkpoint.data_config.source_of("crop_ratio") == "weights"


def test_a_resumed_run_tests_where_it_did(weights: Path, images: Path, tmp_path: Path) -> None:
    """A finished run that is resumed tests at the same sizes, with the same images."""
    config = FinetuneConfig(
        data=images, weights=weights, model="timm/test_resnet", test_res=128, epochs=1, batch_size=8,
        out=tmp_path / "run",
    )  # fmt: skip
    finetune(config)
    first = json.loads((tmp_path / "run" / "results.json").read_text())
    finetune(FinetuneConfig(**{**vars(config), "resume": True}))
    again = json.loads((tmp_path / "run" / "results.json").read_text())
    for name in ("before", "after"):
        assert [(row["test_res"], row["top1"]) for row in again[name]] == [
            (row["test_res"], row["top1"]) for row in first[name]
        ]
    assert again["data_config"] == first["data_config"]


def test_frechet_takes_training_crops_of_the_training_size(weights: Path, images: Path, tmp_path: Path) -> None:
    """The distribution in training is measured at the size that the weights say they were trained at."""
    out = tmp_path / "run"
    finetune(FinetuneConfig(data=images, weights=weights, test_res=128, method="frechet", batch_size=8, out=out))
    assert load_checkpoint(out).train_res == 64
    (record,) = [row for row in RunFolder(out).records() if row["event"] == "pass"]
    assert record["test_res"] == 128


def test_analysis_takes_the_training_size(weights: Path, images: Path, tmp_path: Path) -> None:
    """Training crops are of the size that the weights were trained at, test crops of their crop ratio."""
    analyze(AnalyzeConfig(data=images, weights=weights, test_res="96", out=tmp_path / "analysis", batch_size=8))
    content = json.loads((tmp_path / "analysis" / "analysis.json").read_text())
    assert content["sizes"]["train"]["train_res"] == content["activations"]["train"]["res"] == 64
    assert content["sizes"]["test"][0]["crop_ratio"] == 0.95
    assert content["data_config"]["interpolation"] == "bicubic"


def test_squashed_images_have_no_corners(images: Path, tmp_path: Path) -> None:
    """Ten crops need an image that keeps its aspect; that is said before anything runs."""
    weights = hub_folder(tmp_path / "hub", crop_mode="squash")
    with pytest.raises(ConfigError, match="--views ten-crop crops corners"):
        evaluate(EvaluateConfig(data=images, model="timm/test_resnet", weights=weights, views="ten-crop"))


def test_from_training_to_export_and_back(images: Path, tmp_path: Path) -> None:
    """`train --interpolation` is in the checkpoint; the exported folder is tested as the checkpoint is."""
    run, out = tmp_path / "run", tmp_path / "model"
    train(
        TrainConfig(
            data=images, model="timm/test_resnet", train_res="64", test_res=96, crop_ratio=0.9, epochs=1,
            batch_size=8, interpolation="bicubic", out=run,
        )
    )  # fmt: skip
    checkpoint = load_checkpoint(run)
    assert (checkpoint.data_config.interpolation, checkpoint.before) == ("bicubic", None)
    assert [checkpoint.data_config.source_of(name) for name in ("train_res", "test_res", "mean")] == [
        "flag", "flag", "default",
    ]  # fmt: skip
    export(ExportConfig(checkpoint=run, out=out))
    found = []
    for which in ({"checkpoint": run}, {"model": "timm/test_resnet", "weights": out / "model.safetensors"}):
        given: dict[str, Any] = {**which, "data": images, "json": tmp_path / "out.json", "plot": tmp_path / "plot.png"}
        evaluate(EvaluateConfig(**given))
        found.append(json.loads((tmp_path / "out.json").read_text()))
    one, other = ({**content["data_config"], "sources": None} for content in found)
    assert one == other
    rows = [content["results"][0] for content in found]
    assert [(row["test_res"], row["crop_ratio"], row["num_top1"]) for row in rows] == [
        (96, 0.9, rows[0]["num_top1"]),
        (96, 0.9, rows[0]["num_top1"]),
    ]


def test_drawn_interpolation(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--interpolation random` draws the filter of training images; tests are bilinear."""
    run = tmp_path / "run"
    train(
        TrainConfig(
            data=images, model="timm/test_resnet", train_res="64", epochs=1, batch_size=8, interpolation="random",
            out=run,
        )
    )  # fmt: skip
    assert "images in training: random of bilinear and bicubic\n" in capsys.readouterr().err
    checkpoint = load_checkpoint(run)
    assert checkpoint.config["interpolation"] == "random"
    assert (checkpoint.data_config.interpolation, checkpoint.data_config.source_of("interpolation")) == (
        "bilinear", "default",
    )  # fmt: skip
