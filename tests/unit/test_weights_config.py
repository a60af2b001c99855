"""What weights say about their images: timm's, torchvision's, and a configuration in a file beside them."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.data
import torch
from safetensors.torch import save_file

from dali_fixres.checkpoints.model_source import build_source, data_config_of_source, find_source
from dali_fixres.config import EvaluateConfig, FinetuneConfig, TrainConfig
from dali_fixres.errors import CheckpointError
from dali_fixres.models import DataConfig, ModelSpec, build_model, build_on_meta
from dali_fixres.models.build import parse_argument
from dali_fixres.models.weights_config import config_beside, config_of_pretrained
from dali_fixres.runtime.progress import Reporter
from pipelines import open_dataset

SMALL = ("channels=(16, 16, 16, 32)", "stem_width=16")

QUIET = Reporter(quiet=True)

CFG = {
    "input_size": [3, 224, 224], "test_input_size": [3, 288, 288], "crop_pct": 0.875, "test_crop_pct": 0.95,
    "interpolation": "bicubic", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "num_classes": 4,
    "fixed_input_size": False, "crop_mode": "center", "first_conv": "conv1", "classifier": "fc",
}  # fmt: skip


def pretrained(name: str) -> DataConfig:
    """Return the images of a network with its library's weights, which are not loaded."""
    own = config_of_pretrained(name, build_on_meta(ModelSpec(name, 1000)).network)
    assert own is not None
    return DataConfig().given("weights", own.values)


@pytest.mark.parametrize(
    ("name", "interpolation", "resized", "sizes"),
    [
        ("resnet18", "bilinear", 256, (224, 224)),
        ("resnet50", "bilinear", 232, (176, 224)),
        ("resnet101", "bilinear", 232, (224, 224)),  # "New Recipe (without FixRes mitigations)"
        ("resnext101_32x8d", "bilinear", 232, (176, 224)),
        ("mobilenet_v2", "bilinear", 232, (176, 224)),
        ("shufflenet_v2_x2_0", "bilinear", 232, (176, 224)),
        ("convnext_tiny", "bilinear", 236, (176, 224)),
        ("efficientnet_b1", "bilinear", 255, (208, 240)),
        ("efficientnet_b3", "bicubic", 320, (288, 300)),
        ("efficientnet_v2_s", "bilinear", 384, (300, 384)),
        ("efficientnet_v2_m", "bilinear", 480, (384, 480)),
        ("swin_t", "bicubic", 232, (224, 224)),
        ("swin_v2_t", "bicubic", 260, (256, 256)),
        ("maxvit_t", "bicubic", 224, (224, 224)),
        ("vit_b_16", "bilinear", 256, (224, 224)),
    ],
)
def test_torchvision(name: str, interpolation: str, resized: int, sizes: tuple[int, int]) -> None:
    """Filter, resize and test size are those of the weights' transform, the training size that of their recipe."""
    config = pretrained(name)
    assert (config.interpolation, config.test_resolution.resize_px) == (interpolation, resized)
    assert (config.train_res, config.test_res) == sizes
    assert set(config.sources.values()) == {"weights"}


def test_torchvision_scales_its_resize() -> None:
    """At another size the crop ratio of the transform stays: 288 px of 298 for 224 of 232."""
    ratio = pretrained("resnet50").crop_ratio
    assert ratio == 224 / 232


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("timm/resnet50.a1_in1k", ("bicubic", 1.0, "center", 224, 288)),
        ("timm/resnet50.tv_in1k", ("bilinear", 0.875, "center", 224, 224)),
        ("timm/vit_base_patch16_224.augreg2_in21k_ft_in1k", ("bicubic", 0.9, "center", 224, 224)),
        ("timm/tf_efficientnetv2_s.in1k", ("bicubic", 1.0, "center", 300, 384)),
        ("timm/convnextv2_tiny.fcmae_ft_in22k_in1k_384", ("bicubic", 1.0, "squash", 384, 384)),
    ],
)
def test_timm(name: str, expected: tuple[object, ...]) -> None:
    """They are what timm's own resolve_data_config gives with the test size; the training size is input_size."""
    config = pretrained(name)
    found = (config.interpolation, config.crop_ratio, config.crop_mode, config.train_res, config.test_res)
    assert found == expected
    cfg: Any = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    resolve: Any = timm.data.resolve_data_config  # type: ignore[attr-defined]
    theirs = resolve({}, pretrained_cfg=cfg.to_dict(), use_test_size=True)
    assert (config.interpolation, config.crop_ratio, config.crop_mode) == (
        theirs["interpolation"], theirs["crop_pct"], theirs["crop_mode"],
    )  # fmt: skip
    assert ((3, config.test_res, config.test_res), config.mean, config.std) == (
        theirs["input_size"], theirs["mean"], theirs["std"],
    )  # fmt: skip


def test_what_is_padded_is_cropped_with_a_note() -> None:
    """Where timm pads images, the nearest crop that is done here is taken, and said."""
    own = config_of_pretrained("timm/volo_d4_448", build_on_meta(ModelSpec("timm/volo_d4_448", 2)).network)
    assert own is not None
    assert own.values["crop_ratio"] == 1.0
    assert own.notes == (
        "timm's configuration of volo_d4_448 pads images (crop ratio 1.15); crop ratio 1 is taken instead",
    )


def test_networks_without_pretrained_weights() -> None:
    """The FixRes authors' largest network has no weights in a library, and so no configuration."""
    assert config_of_pretrained("resnext101_32x48d", torch.nn.Identity()) is None


@pytest.mark.parametrize(
    ("name", "args", "fixed_at"),
    [
        ("vit_b_16", (), 224),
        ("vit_b_16", ("image_size=384",), 384),
        ("resnet18", (), None),
        ("maxvit_t", (), 224),
        ("timm/xcit_nano_12_p16_224", (), None),
        ("timm/mvitv2_tiny", (), None),
        ("timm/maxvit_tiny_tf_224", (), None),  # takes 448 px
        ("timm/vit_tiny_patch16_224", ("dynamic_img_size=False",), 224),
        ("timm/vit_small_patch14_dinov2", (), None),  # 518 px, and not 518 + 32
        ("timm/vit_tiny_patch16_384", (), None),
        ("timm/mixer_s32_224", (), 224),
        ("timm/cait_xxs24_224", ("img_size=384",), 384),
        ("timm/swin_tiny_patch4_window7_224", ("dynamic_img_size=False",), 224),
        ("timm/swin_tiny_patch4_window7_224", ("dynamic_img_size=False", "strict_img_size=False"), None),
    ],
)
def test_fixed_sizes(name: str, args: tuple[str, ...], fixed_at: int | None) -> None:
    """A network is tested at the one size it is built for, unless it takes others by itself."""
    config = build_on_meta(ModelSpec(name, 2, args)).data_config
    assert (config.test_res if config.fixed_size else None) == fixed_at


# Files


def write(folder: Path, content: object, name: str = "config.json") -> Path:
    """Write a configuration beside where weights would lie, and return that place."""
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / "model.safetensors"


def test_a_file_of_the_hub(tmp_path: Path) -> None:
    """config.json beside model.safetensors is read as timm reads it with the test size."""
    own = config_beside(write(tmp_path, {"architecture": "test_resnet", "num_classes": 4, "pretrained_cfg": CFG}))
    assert own is not None
    assert own.notes == ()
    assert own.values == {
        "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "interpolation": "bicubic", "crop_ratio": 0.95,
        "crop_mode": "center", "train_res": 224, "test_res": 288,
    }  # fmt: skip


def test_what_a_file_leaves_out_is_timms_default(tmp_path: Path) -> None:
    """Missing keys and null are what timm's own function takes for them; sizes are left to other sources."""
    cfg = {"crop_mode": None, "num_classes": 4}
    own = config_beside(write(tmp_path, {"architecture": "test_resnet", "pretrained_cfg": cfg}))
    assert own is not None
    assert own.values == {
        "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bicubic", "crop_ratio": 0.875,
        "crop_mode": "center", "train_res": None, "test_res": None,
    }  # fmt: skip
    resolve: Any = timm.data.resolve_data_config  # type: ignore[attr-defined]
    theirs = resolve({}, pretrained_cfg=cfg, use_test_size=True)
    assert [own.values["mean"], own.values["std"], own.values["interpolation"], own.values["crop_ratio"]] == [
        theirs[key] for key in ("mean", "std", "interpolation", "crop_pct")
    ]


def test_older_files_of_the_hub(tmp_path: Path) -> None:
    """Older files have all keys at the top, and some that timm no longer has."""
    own = config_beside(write(tmp_path, {**CFG, "architecture": "test_resnet", "labels": ["ant"]}))
    assert own is not None
    assert own.values["crop_ratio"] == 0.95


def test_a_file_that_is_named_after_the_weights(tmp_path: Path) -> None:
    """NAME.json beside NAME.safetensors is what `export --out NAME.safetensors` writes."""
    write(tmp_path, {"architecture": "x", "train_res": 128, "pretrained_cfg": CFG}, "mine.json")
    own = config_beside(tmp_path / "mine.safetensors")
    assert own is not None
    assert own.values["train_res"] == 128
    assert config_beside(tmp_path / "other.safetensors") is None
    assert config_beside(tmp_path / "mine.pth") is None


def test_files_of_other_programs(tmp_path: Path) -> None:
    """A config.json that is not in timm's form says nothing."""
    assert config_beside(write(tmp_path, {"architectures": ["ViTForImageClassification"], "image_size": 224})) is None
    assert config_beside(write(tmp_path, [1, 2])) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"interpolation": "nearest"}, "interpolation must be one of bilinear, bicubic, lanczos; found 'nearest'"),
        ({"crop_pct": "0.9"}, "crop_pct must be a number above 0; found '0.9'"),
        ({"test_crop_pct": 0}, "test_crop_pct must be a number above 0; found 0"),
        ({"mean": [0.5, 0.5]}, "mean must be three numbers; found [0.5, 0.5]"),
        ({"mean": 0.5}, "mean must be three numbers; found 0.5"),
        ({"std": [0.5, 0, 0.5]}, "std must be three numbers above 0; found [0.5, 0, 0.5]"),
        (
            {"input_size": 224},
            "input_size must be [3, side, side]: images are square and have three channels; found 224",
        ),
        ({"input_size": [3, 8, 8]}, "input_size's side must be a number of pixels from 32 to 4096; found 8"),
        ({"crop_mode": ["center"]}, "crop_mode must be center, squash or border; found ['center']"),
        ({"crop_mode": "centre"}, "crop_mode must be center, squash or border; found 'centre'"),
        ({"crop_ptc": 0.9}, "pretrained_cfg has an unknown key 'crop_ptc'; did you mean 'crop_pct'?"),
    ],
)
def test_wrong_values_in_a_file(changed: dict[str, object], message: str, tmp_path: Path) -> None:
    """A value of another form is refused with the file, the key and what is expected."""
    weights = write(tmp_path, {"architecture": "x", "pretrained_cfg": CFG | changed})
    with pytest.raises(CheckpointError) as caught:
        config_beside(weights)
    assert str(caught.value) == f"{tmp_path / 'config.json'}: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"input_size": [3, 224, 224], "crop_ptc": 0.95}, "'crop_ptc'; did you mean 'crop_pct'?"),
        ({"input_size": [3, 224, 224], "interpolaton": "bicubic"}, "'interpolaton'; did you mean 'interpolation'?"),
        ({"pretrained_cfg": CFG, "trainres": 128}, "'trainres'; did you mean 'train_res'?"),
    ],
)
def test_misspelt_keys_at_the_top(content: dict[str, object], message: str, tmp_path: Path) -> None:
    """What is nearly a key that is read is refused; other programs' keys are left alone."""
    weights = write(tmp_path, {"architecture": "x", "global_pool": "avg", **content})
    with pytest.raises(CheckpointError) as caught:
        config_beside(weights)
    assert str(caught.value) == f"{tmp_path / 'config.json'} has an unknown key {message}"


def test_a_file_without_a_configuration(tmp_path: Path) -> None:
    """A file of timm's form whose configuration has another name is refused: it would be ignored without a word."""
    weights = write(tmp_path, {"architecture": "x", "pretrained_config": CFG})
    with pytest.raises(CheckpointError, match=r"config\.json has neither pretrained_cfg nor input_size; "):
        config_beside(weights)


@pytest.mark.parametrize("text", ["{", "\x00", '{"architecture": "x", "pretrained_cfg": 3}'])
def test_broken_files(text: str, tmp_path: Path) -> None:
    """A file that is not JSON, or has no object, is refused and named."""
    with pytest.raises(CheckpointError, match=str(tmp_path / "config.json")):
        config_beside(write(tmp_path, text))


# Which count


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return the weights of a small network of timm's, as they lie on the hub, without a configuration."""
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    save_file(build_model(ModelSpec("timm/resnet10t", 4, SMALL)).network.state_dict(), path)
    return path


def of(config: EvaluateConfig | FinetuneConfig, images: Path) -> DataConfig:
    """Return the images of the network that a command's settings name."""
    return build_source(config, find_source(config, QUIET), open_dataset(images), QUIET)[1].data_config


def test_weights_count_if_they_are_loaded(weights: Path, images: Path) -> None:
    """With weights from a file timm's configuration of the network gives mean and std, the file beside it the rest."""
    given = EvaluateConfig(model="timm/resnet10t", model_arg=SMALL, weights=weights)
    without = of(given, images)
    cfg: Any = timm.get_pretrained_cfg("resnet10t")
    assert (cfg.interpolation, cfg.crop_pct) == ("bicubic", 0.875)
    assert (without.mean, without.interpolation, without.crop_ratio) == (cfg.mean, "bilinear", 0.875)
    assert set(without.sources.values()) == set()
    write(weights.parent, {"architecture": "test_resnet", "pretrained_cfg": CFG})
    beside = of(given, images)
    assert (beside.mean, beside.interpolation, beside.test_resolution.crop_px) == ((0.5, 0.5, 0.5), "bicubic", 288)
    assert of(EvaluateConfig(model="timm/resnet10t", model_arg=SMALL), images) == without


def test_flags_win(weights: Path, images: Path) -> None:
    """A flag wins over the configuration beside the weights."""
    write(weights.parent, {"architecture": "test_resnet", "pretrained_cfg": CFG})
    flags = EvaluateConfig(
        model="timm/resnet10t",
        model_arg=SMALL,
        weights=weights,
        interpolation="bilinear",
        crop_ratio="0.9",
        mean=(0.1, 0.2, 0.3),
    )
    config = of(flags, images)
    assert (config.interpolation, config.crop_ratio, config.mean) == ("bilinear", 0.9, (0.1, 0.2, 0.3))
    assert [config.source_of(name) for name in ("interpolation", "std")] == ["flag", "weights"]
    tuned = of(
        FinetuneConfig(test_res=320, model="timm/resnet10t", model_arg=SMALL, weights=weights, train_res=192), images
    )
    assert (tuned.train_res, tuned.test_res) == (192, 288)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, {"train_res": (128, "default"), "test_res": (128, "default")}),
        ({"train_res": "96"}, {"train_res": (96, "flag"), "test_res": (96, "default")}),
        ({"test_res": 160}, {"train_res": (128, "default"), "test_res": (160, "flag")}),
    ],
)
def test_sizes_of_a_training(sizes: dict[str, Any], expected: dict[str, tuple[int, str]]) -> None:
    """`train` has its own sizes, not those of the weights it starts from; only what is given is of a flag."""
    config = TrainConfig(model="resnet50", pretrained=True, **sizes)
    source = find_source(config, QUIET)
    found = data_config_of_source(config, source, build_on_meta(ModelSpec("resnet50", 4)), QUIET)
    assert {name: (getattr(found, name), found.source_of(name)) for name in expected} == expected
    assert found.source_of("mean") == "weights"


def test_pretrained_weights_without_a_download() -> None:
    """What `--dry-run` says of pretrained weights is known without them."""
    config = FinetuneConfig(test_res=288, model="resnet50", pretrained=True)
    source = find_source(config, QUIET)
    found = data_config_of_source(config, source, build_on_meta(ModelSpec("resnet50", 4)), QUIET)
    assert (found.train_res, found.test_resolution.crop_px, found.test_resolution.resize_px) == (176, 224, 232)


def test_the_network_beside_weights_is_built_with_its_arguments(tmp_path: Path) -> None:
    """Name and arguments come from config.json; flags win; torchvision's names stay as they are."""
    args = {"pad_type": "same", "width": 1.5}
    content = {"architecture": "mobilenetv2_100", "model_args": args, "pretrained_cfg": {"crop_pct": 0.9}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    weights = tmp_path / "model.safetensors"
    source = find_source(EvaluateConfig(weights=weights), QUIET)
    assert (source.name, source.model_arg) == ("timm/mobilenetv2_100", ("pad_type='same'", "width=1.5"))
    assert dict(map(parse_argument, source.model_arg)) == args
    source = find_source(EvaluateConfig(weights=weights, model="resnet18", model_arg=("a=1",)), QUIET)
    assert (source.name, source.model_arg) == ("resnet18", ("a=1",))
    (tmp_path / "config.json").write_text(json.dumps({**content, "library": "torchvision", "architecture": "resnet18"}))
    assert find_source(EvaluateConfig(weights=weights), QUIET).name == "resnet18"
    (tmp_path / "config.json").write_text(json.dumps({**content, "model_args": ["same"]}))
    with pytest.raises(CheckpointError, match=r"config.json: model_args must be an object; found \['same'\]"):
        find_source(EvaluateConfig(weights=weights), QUIET)
