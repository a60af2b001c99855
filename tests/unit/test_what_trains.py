"""What fine-tuning trains in the networks of the field."""

import pytest
import torch
from torch import nn

from dali_fixres.config import TrainableParts
from dali_fixres.errors import ModelError
from dali_fixres.finetuning.trainable import freeze_for_tuning
from dali_fixres.models import ModelSpec, build_model, find_head, last_blocks
from pipelines.resolution import Resolution

PARTS: tuple[TrainableParts, ...] = ("classifier", "classifier+norm", "last-blocks", "all")

EXPECTED = {
    "resnet50": ("fc", "layer4.2.bn3", ("layer4.2",), (2_049_000, 2_053_096, 6_511_592, 25_557_032)),
    "timm/inception_resnet_v2": (
        "classif",
        "conv2d_7b.bn",
        ("conv2d_7b",),
        (1_537_000, 1_540_072, 4_734_952, 55_843_464),
    ),
    "timm/tf_efficientnet_b0": (
        "classifier",
        "bn2",
        ("conv_head", "bn2"),
        (1_281_000, 1_283_560, 1_693_160, 5_288_548),
    ),
    "timm/mobilenetv2_100": ("classifier", "bn2", ("conv_head", "bn2"), (1_281_000, 1_283_560, 1_693_160, 3_504_872)),
    "convnext_tiny": (
        "classifier.2",
        "features.7.2.block.2",
        ("features.7.2", "classifier.0"),
        (769_000, 770_536, 5_533_672, 28_589_128),
    ),
    "timm/vit_small_patch16_224": ("head", "norm", ("blocks.11", "norm"), (385_000, 385_768, 2_160_232, 21_989_224)),
    "resnext101_32x48d": ("fc", "layer4.2.bn3", ("layer4.2",), (2_049_000, 2_053_096, 94_901_224, 828_411_176)),
    "timm/legacy_senet154": (
        "last_linear",
        "layer4.2.bn3",
        ("layer4.2",),
        (2_049_000, 2_053_096, 9_172_072, 115_088_984),
    ),
    "timm/pnasnet5large": (
        "last_linear",
        "cell_11.comb_iter_3_left.bn_sep_2",
        ("cell_11",),
        (4_321_000, 4_322_728, 20_985_832, 86_057_668),
    ),
}
"""With 1000 classes: classifier, last norm, last block, and how many parameters train with each of PARTS."""

LARGE = ("resnext101_32x48d", "timm/legacy_senet154", "timm/pnasnet5large")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in EXPECTED]
)
def test_what_trains(name: str) -> None:
    """The parts are found in the networks of the field, and as many parameters train as they have."""
    torch.manual_seed(0)
    args = ("img_size=96",) if "vit" in name else ()
    network = build_model(ModelSpec(name, 1000, args)).network
    side = Resolution(96)
    head = find_head(network, side)
    blocks = last_blocks(network, side, head.classifier_name, 1)
    counts = tuple(
        freeze_for_tuning(network, head, parts, blocks=blocks if parts == "last-blocks" else ()).num_parameters
        for parts in PARTS
    )
    assert (head.classifier_name, head.norm_name, blocks, counts) == EXPECTED[name]


class _Staged(nn.Module):
    """Stages that hold their blocks as timm's ConvNeXt does, a norm behind them, a head around the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(_Stage(3, 8), _Stage(8, 8))
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.norm(self.stages(images)))
        return out


class _Stage(nn.Module):
    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels_in, channels, 2, stride=2)
        self.blocks = nn.Sequential(_Block(channels), _Block(channels))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.blocks(self.down(maps))
        return out


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = maps + self.two(self.one(maps).relu())
        return out


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1, ("stages.1.blocks.1", "norm")),
        (2, ("stages.1.blocks.0", "stages.1.blocks.1", "norm")),
        (3, ("stages.1.down", "stages.1.blocks.0", "stages.1.blocks.1", "norm")),
    ],
)
def test_last_blocks(number: int, expected: tuple[str, ...]) -> None:
    """Blocks are found inside stages; a norm goes with the block before it."""
    assert last_blocks(_Staged(), Resolution(32), "head.2", number) == expected


def test_more_blocks_than_there_are() -> None:
    """What cannot be tuned is said with how many there are; hooks do not stay."""
    network = _Staged()
    with pytest.raises(ModelError, match="has only 6 blocks before its classifier; lower --num-blocks"):
        last_blocks(network, Resolution(32), "head.2", 7)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(("parts", "following"), [("last-blocks", {"stages.1.blocks.1", "norm"}), ("all", None)])
def test_what_learns_and_what_follows(parts: TrainableParts, following: set[str] | None) -> None:
    """Parameters that learn are those of the modules in training mode, and the classifier's."""
    network = _Staged()
    head = find_head(network, Resolution(32))
    blocks = last_blocks(network, Resolution(32), head.classifier_name, 1) if following else ()
    tuned = freeze_for_tuning(network, head, parts, blocks=blocks)
    tuned.set_mode()
    names = {name for name, _ in network.named_parameters()}
    inside = {name for name in names if following is None or any(name.startswith(f"{part}.") for part in following)}
    assert set(tuned.names) == inside | {"head.2.weight", "head.2.bias"}
    training = {name for name, module in network.named_modules() if module.training}
    if following is None:
        assert training == {name for name, _ in network.named_modules()}
    else:
        assert {name for name in training if name.count(".") == 0 or name.endswith("blocks.1")} == following
