"""Weights files as other programs write them, and the networks that are recognised in them."""

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dali_fixres.errors import CheckpointError
from dali_fixres.models import ModelSpec, WeightsFile, build_model, build_on_meta, load_into, read_weights, recognise

State = dict[str, torch.Tensor]


def _network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(ModelSpec("resnet18", 5)).network


def _module(state: State) -> "OrderedDict[str, torch.Tensor]":
    """Return names as DistributedDataParallel and DataParallel save them."""
    return OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())


def _authors(state: State, _: State) -> dict[str, Any]:
    """FixRes: accuracies are Python's or NumPy's numbers."""
    return {"model": _module(state), "epoch": 3, "accuracy": np.float64(79.1), "best": np.float32(0.5), "lr": 1e-3}


def _cutmix(state: State, _: State) -> dict[str, Any]:
    """CutMix-PyTorch: `arch` is no name of a library, and the optimiser is there too."""
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9, nesterov=True)
    errors = {"best_err1": torch.tensor(21.4), "best_err5": 5.92}
    return {"epoch": 299, "arch": "resnet", "state_dict": _module(state), **errors, "optimizer": optimizer.state_dict()}


def _timm(state: State, averaged: State) -> dict[str, Any]:
    """Timm's training script, with averaged weights."""
    args = Namespace(model="resnet18", lr=0.1, mean=None, data_dir="imagenet")
    return {"epoch": 9, "arch": "resnet18", "state_dict": state, "args": args, "version": 2, "metric": 77.0,
            "state_dict_ema": averaged, "optimizer": {"state": {}, "param_groups": []}}  # fmt: skip


def _torchvision(state: State, averaged: State) -> dict[str, Any]:
    """Torchvision's reference training, with an AveragedModel around DistributedDataParallel's module."""
    average = AveragedModel(_network())
    average.module.load_state_dict(averaged)
    args = Namespace(model="resnet18", lr=0.5, norm_weight_decay=None, device="cuda")
    return {"model": state, "model_ema": average.state_dict(), "optimizer": {}, "lr_scheduler": {}, "epoch": 1,
            "args": args, "scaler": None}  # fmt: skip


def _torchvision_plain(state: State, _: State) -> dict[str, Any]:
    """The same without an average."""
    return {"model": state, "optimizer": {}, "epoch": 1, "args": Namespace(model="resnet18")}


@pytest.mark.parametrize(
    ("make", "part", "arch", "zipped"),
    [
        (_authors, "model", None, True),
        (_cutmix, "state_dict", "resnet", False),
        (_timm, "state_dict_ema", "resnet18", True),
        (_timm, "state_dict_ema", "resnet18", False),
        (_torchvision, "model_ema", "resnet18", True),
        (_torchvision_plain, "model", "resnet18", True),
    ],
)
def test_training_checkpoints(
    make: Callable[[State, State], dict[str, Any]], part: str, arch: str | None, zipped: bool, tmp_path: Path
) -> None:
    """What training scripts save is read, in torch's old file format too, averaged weights first, with its network."""
    state, averaged = _network(0).state_dict(), _network(1).state_dict()
    path = tmp_path / "model_best.pth.tar"
    torch.save(make(state, averaged), path, _use_new_zipfile_serialization=zipped)
    weights = read_weights(path)
    assert (weights.part, weights.arch) == (part, arch)
    assert str(weights) == f"{path} ({part})"
    network = _network(2)
    assert load_into(network, weights.state, str(path)) == ()
    expected = averaged if part in {"state_dict_ema", "model_ema"} else state
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
    assert recognise(weights) == "resnet18"


def test_an_average_that_was_not_kept(tmp_path: Path) -> None:
    """Where the averaged part is empty, the plain one is taken."""
    path = tmp_path / "last.pth"
    torch.save({"state_dict": _network().state_dict(), "state_dict_ema": None, "arch": "resnet18"}, path)
    assert read_weights(path).part == "state_dict"


def test_numbers_of_older_numpys(tmp_path: Path) -> None:
    """A NumPy number that was saved under its module's name before NumPy 2 is read."""
    path = tmp_path / "old.pth"
    torch.save(
        {"model": {"a": torch.zeros(1)}, "accuracy": np.float64(77.0)}, path, _use_new_zipfile_serialization=False
    )
    saved = path.read_bytes()
    assert b"numpy._core.multiarray" in saved
    path.write_bytes(saved.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_weights(path).part == "model"


class _Settings:
    """A class of a training script's own."""


def test_other_objects_are_refused_by_name(tmp_path: Path) -> None:
    """What is not known to be harmless is refused, and the error names it."""
    path = tmp_path / "other.pth"
    torch.save({"model": {"a": torch.zeros(1)}, "settings": _Settings()}, path)
    with pytest.raises(CheckpointError, match=r"other\.pth is not a plain checkpoint: .* code of \S+\._Settings; save"):
        read_weights(path)


def test_safetensors_may_name_their_network(tmp_path: Path) -> None:
    """The metadata of a safetensors file may say what it is of."""
    path = tmp_path / "model.safetensors"
    save_file(_network().state_dict(), path, metadata={"format": "pt", "architecture": "resnet18"})
    weights = read_weights(path)
    assert (weights.arch, weights.part, str(weights)) == ("resnet18", "", str(path))


# Recognition


def _weights(name: str, num_classes: int = 7, arch: str | None = None, args: tuple[str, ...] = ()) -> WeightsFile:
    """Return a weights file of a network, without numbers."""
    network = build_on_meta(ModelSpec(name, num_classes, args)).network
    return WeightsFile(Path("some.pth"), network.state_dict(), "", arch)


@pytest.mark.parametrize(
    "name",
    [
        "resnet50",
        "resnext101_32x48d",
        "timm/pnasnet5large",
        "timm/inception_resnet_v2",
        "timm/legacy_senet154",
        "convnext_tiny",
        "vit_b_16",
        "densenet121",
    ],
)
def test_networks_are_recognised(name: str) -> None:
    """Names and shapes of the tensors are enough, whatever the number of classes."""
    assert recognise(_weights(name)) == name


def test_old_names_and_prefixes_do_not_matter() -> None:
    """Files from before batch norm counted batches are recognised."""
    weights = _weights("resnet18", 1000)
    state = {name: tensor for name, tensor in weights.state.items() if not name.endswith("num_batches_tracked")}
    assert recognise(WeightsFile(Path("old.pth"), state, "", None)) == "resnet18"


def test_what_the_file_says_is_believed_if_it_fits() -> None:
    """Of networks with the same tensors the one that is named counts; a name that does not fit is passed over."""
    assert recognise(_weights("timm/tf_efficientnet_b0", arch="tf_efficientnet_b0")) == "timm/tf_efficientnet_b0"
    assert recognise(_weights("timm/resnetblur50", arch="resnetblur50")) == "timm/resnetblur50"
    assert recognise(_weights("resnet34", arch="resnet18")) == "resnet34"


def test_networks_that_look_alike_are_asked_for() -> None:
    """Several networks with the same tensors are named."""
    with pytest.raises(CheckpointError) as caught:
        recognise(_weights("timm/deit_base_patch16_384"))
    assert str(caught.value) == (
        "some.pth fits 2 networks alike: timm/vit_base_patch16_384, timm/deit_base_patch16_384; say which with --model"
    )


def test_networks_that_are_not_recognised() -> None:
    """A file that comes close to a network says to which; one that comes close to none says so."""
    weights = _weights("timm/pnasnet5large")
    weights.state.pop("cell_0.conv_1x1.bn.weight")
    with pytest.raises(CheckpointError, match=r"no network .* \(nearest: timm/pnasnet5large, 100%\); say which with"):
        recognise(weights)
    other = WeightsFile(Path("other.pth"), {"trunk.weight": torch.zeros(3)}, "", None)
    with pytest.raises(CheckpointError, match=r"^other\.pth is of no network that is recognised; say which with"):
        recognise(other)
