"""Fine-tuning on cached features: it ends with the weights of fine-tuning by epochs, however it is computed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks

from dali_fixres.commands.finetune import finetune
from dali_fixres.commands.train import train
from dali_fixres.config import FinetuneConfig, TrainConfig
from dali_fixres.errors import ModelError
from dali_fixres.runtime.run_folder import RunFolder

NORM = "layer4.0.bn2"


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of one epoch."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    train(TrainConfig(data=images, model="timm/test_resnet", batch_size=8, train_res="64", epochs=1, out=run))
    return run


@pytest.fixture
def config(trained: Path, tmp_path: Path) -> FinetuneConfig:
    """Return a fine-tuning on cached features of test crops, in two epochs of five steps."""
    return FinetuneConfig(
        checkpoint=trained, test_res=96, method="cached-features", augmentation="v1", epochs=2, batch_size=8, workers=2,
        out=tmp_path / "cached",
    )  # fmt: skip


def tensors(config: FinetuneConfig) -> dict[str, torch.Tensor]:
    """Return what a run has learnt."""
    assert config.out is not None
    state: dict[str, torch.Tensor] = torch.load(config.out / "last.pt", weights_only=True)["state_dict"]
    return state


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float) -> None:
    """Compare all tensors."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=tolerance, atol=tolerance, msg=name)


def test_it_ends_with_the_weights_of_sgd(config: FinetuneConfig, trained: Path, tmp_path: Path) -> None:
    """With the same images and a frozen trunk, the two methods differ by half precision alone."""
    sgd = replace(config, trainable="classifier", norm_stats=False, method="sgd", out=tmp_path / "sgd")
    cached = replace(config, norm_stats=False, feature_dropout=0.0)
    finetune(cached)
    finetune(sgd)
    assert_close(tensors(cached), tensors(sgd), 1e-3)
    before = torch.load(trained / "last.pt", weights_only=True)["state_dict"]
    changed = {name for name, tensor in tensors(cached).items() if not torch.equal(tensor, before[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_statistics_are_exact(config: FinetuneConfig, trained: Path, tmp_path: Path) -> None:
    """The last norm's statistics do not depend on the batch, and they are not those of training."""
    other = replace(config, batch_size=13, out=tmp_path / "other")
    finetune(config)
    finetune(other)
    before = torch.load(trained / "last.pt", weights_only=True)["state_dict"]
    for name in (f"{NORM}.running_mean", f"{NORM}.running_var"):
        torch.testing.assert_close(tensors(config)[name], tensors(other)[name], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(tensors(config)[name], before[name], rtol=1e-3)


@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_end_with_the_weights_of_one(config: FinetuneConfig, tmp_path: Path, num_processes: int) -> None:
    """Statistics, features and steps are those of one process with the same global batch; a broken file is left out."""
    assert config.checkpoint is not None
    source = torch.load(config.checkpoint / "last.pt", weights_only=True)["config"]["data"]
    data = Path(shutil.copytree(source, tmp_path / "data"))
    victim = data / "train" / "cat" / "02.jpg"
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    alone = replace(config, data=data, augmentation="v2", augmented_views=2)
    finetune(alone)
    several = replace(alone, batch_size=8 // num_processes, out=tmp_path / "several")
    run_ranks(num_processes, finetune, several)
    assert_close(tensors(alone), tensors(several), 1e-3)
    assert alone.out is not None
    assert "cat/02.jpg" in (alone.out / "unreadable.txt").read_text()


def test_features_in_a_file_are_the_same(config: FinetuneConfig, tmp_path: Path) -> None:
    """Above the limit of memory features lie in a file, and nothing else is different."""
    spilled = replace(config, feature_memory=0.0, out=tmp_path / "spilled")
    finetune(config)
    finetune(spilled)
    assert_close(tensors(config), tensors(spilled), 0.0)


def test_features_are_left_out_at_random(config: FinetuneConfig, tmp_path: Path) -> None:
    """The same ones for the same seed, and none at all if that is asked for."""
    again, none = replace(config, out=tmp_path / "again"), replace(config, feature_dropout=0.0, out=tmp_path / "none")
    for one in (config, again, none):
        finetune(one)
    assert_close(tensors(config), tensors(again), 0.0)
    assert not torch.equal(tensors(config)["fc.weight"], tensors(none)["fc.weight"])


def test_views_differ(config: FinetuneConfig, tmp_path: Path) -> None:
    """Two views of each image teach something else than one, and both are counted."""
    one = replace(config, augmentation="v2", out=tmp_path / "one")
    two = replace(one, augmented_views=2, out=tmp_path / "two")
    finetune(one)
    finetune(two)
    assert not torch.equal(tensors(one)["fc.weight"], tensors(two)["fc.weight"])
    assert two.out is not None
    records = RunFolder(two.out).records()
    passed = next(record for record in records if record["event"] == "pass")
    assert (passed["num_images"], passed["views"]) == (3 * 40, 2)
    results = json.loads((two.out / "results.json").read_text())
    assert results["seconds"] >= passed["seconds"] - 0.1


def test_more_epochs_of_a_finished_run(config: FinetuneConfig, images: Path, tmp_path: Path) -> None:
    """A run resumes more epochs, as with sgd; with as many as are done nothing changes."""
    finetune(config)
    first = tensors(config)
    resumed = replace(config, resume=True, data=images, crop_ratio=0.875)  # as the command line reads them
    finetune(resumed)
    assert_close(first, tensors(config), 0.0)
    finetune(replace(resumed, epochs=3))
    records = RunFolder(tmp_path / "cached").records()
    assert [record["epoch"] for record in records if record["event"] == "epoch"] == [1, 2, 3]
    assert not torch.equal(first["fc.weight"], tensors(config)["fc.weight"])


@pytest.mark.parametrize("options", [{"method": "cached-features", "norm_stats": False}, {"method": "frechet"}])
def test_a_classifier_before_the_pooling(images: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """SqueezeNet classifies every position and pools then: there are no pooled features, and the error says so."""
    config = FinetuneConfig(
        data=images, model="squeezenet1_1", test_res=64, train_res=64, batch_size=8, out=tmp_path / "run", **options
    )
    with pytest.raises(ModelError, match=r"classifier of SqueezeNet runs before the pooling.*--method sgd"):
        finetune(config)
