"""What `export` writes, loaded by others: timm, torchvision, onnxruntime."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.data
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torchvision import models as tv

from dali_fixres.checkpoints import EpochStatistics
from dali_fixres.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dali_fixres.commands.export import export
from dali_fixres.config import ExportConfig
from dali_fixres.errors import CheckpointError, ConfigError, ModelError
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.models import DataConfig, ModelSpec, build_model
from dali_fixres.models.onnx import require_onnx, write_onnx
from dali_fixres.models.weights_config import config_beside
from dali_fixres.runtime.run_folder import RunFolder
from pipelines.resolution import Resolution

CLASSES = ("ant", "bee", "snow 雪")


def run(folder: Path, name: str, args: tuple[str, ...] = (), side: int = 64) -> tuple[Path, nn.Module]:
    """Leave a run folder of a network as `finetune` does after two epochs, and return both."""
    torch.manual_seed(0)
    network = build_model(ModelSpec(name, len(CLASSES), args)).network.eval()
    checkpoint = Checkpoint(
        command="finetune", model=ModelSpec(name, len(CLASSES), args), state_dict=network.state_dict(),
        data_config=DataConfig((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bicubic", 0.9, "squash", 48, side), before=None,
        classes=CLASSES, fingerprint="f" * 64,
        config={"data": "/home/me/images", "epochs": 2, "trainable": "all"},
        epoch=2, global_batch=8, num_done=0, statistics=EpochStatistics(), step=10, optimizer={}, scaler={},
        unreadable={}, top1=50.0, best_top1=50.0,
    )  # fmt: skip
    folder.mkdir()
    save_checkpoint(folder / "best.pt", checkpoint)
    for epoch, test_res, num_top1 in ((0, 48, 4), (0, side, 8), (2, side, 20), (2, 48, 16)):
        accuracy = Accuracy(Resolution(test_res, 0.9), num_top1, 40, 40, 0, seconds=40.0)
        RunFolder(folder).record("evaluation", epoch=epoch, **accuracy.as_json())
    return folder, network


def logits_of(network: nn.Module, side: int = 64) -> torch.Tensor:
    """Return the logits of two random images."""
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        out: torch.Tensor = network.eval()(images)
    return out


def run_code(card: str, folder: Path) -> nn.Module:
    """Run the code on a model card that loads the network, and return the network."""
    code = card.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace("model.safetensors", str(folder / "model.safetensors")), names)  # noqa: S102 - our own card's
    network: nn.Module = names["network"]
    return network


@pytest.mark.parametrize(
    ("name", "args", "side"),
    [
        ("timm/test_resnet", (), 64),
        ("timm/resnet10t", ("channels=(16, 16, 16, 32)", "stem_width=16"), 64),
        ("timm/vit_tiny_patch16_224", ("embed_dim=12", "depth=1", "num_heads=1"), 96),
    ],
)
def test_timm_loads_its_networks(tmp_path: Path, name: str, args: tuple[str, ...], side: int) -> None:
    """By the card's code (name and weights file), and from the folder alone, timm loads the same network."""
    folder, network = run(tmp_path / "run", name, args, side)
    export(ExportConfig(checkpoint=folder, out=tmp_path / "out"))
    loaded = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    assert torch.equal(logits_of(loaded, side), logits_of(network, side))
    card = (tmp_path / "out" / "README.md").read_text()
    assert torch.equal(logits_of(run_code(card, tmp_path / "out"), side), logits_of(network, side))
    cfg: Any = loaded.pretrained_cfg
    assert tuple(cfg["input_size"]) == (3, side, side)
    assert (tuple(cfg["mean"]), tuple(cfg["std"]), cfg["crop_pct"]) == ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), 0.9)
    assert (cfg["num_classes"], tuple(cfg["label_names"])) == (3, CLASSES)
    resolve: Any = timm.data.resolve_data_config  # type: ignore[attr-defined]
    assert resolve({}, pretrained_cfg=dict(cfg)) == {
        "input_size": [3, side, side], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "squash",
        "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3],
    }  # fmt: skip
    own = config_beside(tmp_path / "out" / "model.safetensors")
    assert own is not None
    assert own.values == {
        "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3), "interpolation": "bicubic", "crop_ratio": 0.9,
        "crop_mode": "squash", "train_res": 48, "test_res": side,
    }  # fmt: skip


def test_torchvision_resnets_load_in_both_libraries(tmp_path: Path) -> None:
    """The tensors of torchvision's ResNets are named as timm's: both load the file."""
    folder, network = run(tmp_path / "run", "resnet18")
    export(ExportConfig(checkpoint=folder / "best.pt", out=tmp_path / "mine.safetensors"))
    file = tmp_path / "mine.safetensors"
    theirs = tv.get_model("resnet18", num_classes=3)
    theirs.load_state_dict(load_file(file))
    assert torch.equal(logits_of(theirs), logits_of(network))
    loaded = timm.create_model("resnet18", num_classes=3, checkpoint_path=str(file))
    torch.testing.assert_close(logits_of(loaded), logits_of(network), rtol=1e-5, atol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "mine.safetensors", "mine.json", "mine.md"}
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata() == {"format": "pt", "architecture": "resnet18"}


def test_torchvision_networks_that_timm_lacks(tmp_path: Path) -> None:
    """Where timm has no network with these tensors, the card says how torchvision loads them, and that works."""
    folder, network = run(tmp_path / "run", "mobilenet_v2")
    export(ExportConfig(checkpoint=folder, out=tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["library"] == "torchvision"
    card = (tmp_path / "out" / "README.md").read_text()
    assert torch.equal(logits_of(run_code(card, tmp_path / "out")), logits_of(network))


def test_the_card(tmp_path: Path) -> None:
    """It holds resolutions, normalisation, crop ratio, this state's accuracies by resolution, settings, fingerprint."""
    folder, _ = run(tmp_path / "run", "timm/test_resnet")
    export(ExportConfig(checkpoint=folder, out=tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: timm\n")
    for line in (
        "# timm/test_resnet, trained at 48 px, fixed for 64 px", "| trained at | 48 px |", "| fixed for | 64 px |",
        "| mean | 0.5, 0.4, 0.3 |", "| standard deviation | 0.2, 0.25, 0.3 |", f"| data fingerprint | `{'f' * 64}` |",
        "| resize | both sides to 71 px, bicubic with antialiasing |",
        "| test crop | central 64 x 64 px (crop ratio 0.9) |",
        'data = "images"', "epochs = 2",
    ):  # fmt: skip
        assert line in card.splitlines()
    assert "| 48 | 40.00 | 100.00 | 40 |\n| 64 | 50.00 | 100.00 | 40 |\n" in card
    assert "10.00" not in card
    assert "/home/me" not in card


def test_the_card_of_a_state_that_was_not_tested(tmp_path: Path) -> None:
    """In the middle of an epoch the weights are not those that the last test was of."""
    folder, _ = run(tmp_path / "run", "timm/test_resnet")
    save_checkpoint(tmp_path / "run" / "last.pt", replace(load_checkpoint(folder), num_done=8))
    export(ExportConfig(checkpoint=tmp_path / "run" / "last.pt", out=tmp_path / "out"))
    assert "40.00" not in (tmp_path / "out" / "README.md").read_text()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A file that is there is named, and nothing is written beside it."""
    folder, _ = run(tmp_path / "run", "timm/test_resnet")
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"README\.md is there already; give another --out"):
        export(ExportConfig(checkpoint=folder, out=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"run", "README.md"}
    with pytest.raises(ConfigError, match=r"--out must be a folder, or a file .* \.safetensors; found x\.pth"):
        ExportConfig(out=Path("x.pth"))
    with pytest.raises(CheckpointError, match=r"holds neither best\.pt nor last\.pt"):
        export(ExportConfig(checkpoint=tmp_path, out=tmp_path / "out"))


def test_onnx_takes_any_batch(tmp_path: Path) -> None:
    """Onnxruntime gives the network's logits for batches of one, three and five images."""
    from onnxruntime import InferenceSession  # noqa: PLC0415

    folder, network = run(tmp_path / "run", "timm/test_resnet")
    export(ExportConfig(checkpoint=folder, out=tmp_path / "out", onnx=True))
    names = {"model.safetensors", "config.json", "README.md", "model.onnx"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    session = InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    assert (images.name, images.shape[1:]) == ("images", [3, 64, 64])
    assert not isinstance(images.shape[0], int)
    for number in (1, 3, 5):
        images = torch.randn(number, 3, 64, 64, generator=torch.Generator().manual_seed(9))
        (logits,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), network(images), rtol=0, atol=1e-4)
    assert "`model.onnx` takes normalised images" in (tmp_path / "out" / "README.md").read_text()


def test_onnx_of_a_transformer(tmp_path: Path) -> None:
    """A transformer that interpolates its position embedding is exported at a size that it was not made for."""
    network = build_model(ModelSpec("timm/vit_tiny_patch16_224", 3, ("embed_dim=12", "depth=1", "num_heads=1"))).network
    assert write_onnx(network, Resolution(96), tmp_path / "vit.onnx") < 1e-5


class _Noisy(nn.Module):
    """Has other logits each time."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = images.mean((2, 3))
        logits: torch.Tensor = self.fc(pooled + torch.rand_like(pooled))
        return logits


def test_an_onnx_file_that_does_not_agree_is_refused(tmp_path: Path) -> None:
    """Other logits than the network's are an error that says by how much."""
    with pytest.raises(ModelError, match=r"the ONNX file of _Noisy differs from the network, by up to \d"):
        write_onnx(_Noisy(), Resolution(32), tmp_path / "noisy.onnx")


def test_a_missing_extra_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the extra's packages the error has the command that installs them, before anything is read."""
    require_onnx()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"--onnx needs onnxruntime: pip install 'dali-fixres\[onnx\]'"):
        export(ExportConfig(checkpoint=tmp_path / "none", out=tmp_path / "out", onnx=True))
