"""The data configuration that weights come with: in timm, in torchvision, or in a file beside them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import nn

from dali_fixres.config import DataValues
from dali_fixres.errors import CheckpointError, did_you_mean
from dali_fixres.models.build import TIMM_PREFIX
from pipelines.plan.colour import IMAGENET
from pipelines.plan.interpolation import INTERPOLATIONS
from pipelines.resolution import MAX_RESOLUTION_PX, MIN_RESOLUTION_PX

__all__ = ["WeightsConfig", "config_beside", "config_of_pretrained"]

REPOSITORY = "https://github.com/pytorch/vision/"

TRAIN_RES_BY_RECIPE = {
    # In issue 3995, "New Recipe" is "without FixRes mitigations": its command names no training size, so it is 224,
    # although these weights are tested at 232 -> 224 as well.
    "issues/3995#new-recipe": 224,
    "issues/3995#new-recipe-with-fixres": 176,
    "issues/3995#issuecomment-1013906621": 176,  # ResNet-50; pull request 5201
    "issues/3995#new-recipe-with-reg-tuning": 176,  # MobileNetV2's command is in pull request 5560
    "issues/3995#new-recipe-with-lr-wd-crop-tuning": 208,  # EfficientNet-B1
    "pull/5906": 176,  # ShuffleNetV2 x1.5 and x2.0
    "pull/5935": 176,  # ResNeXt-101 64x4d
    "pull/6019": 176,  # MNASNet 0.75 and 1.3
    "tree/main/references/classification#convnext": 176,
}
"""Training sizes of torchvision's weights in pixels, by the recipe that their metadata names. The recipes' other
networks train at the size they test at: ViT, Swin (V2 at 256) and MaxViT among them."""

TRAIN_RES_BY_NETWORK = {
    # references/classification/README.md
    "efficientnet_v2_s": 300,
    "efficientnet_v2_m": 384,
    # Weights that torchvision has taken from timm and from google/automl: sizes of timm's pretrained_cfg.
    "efficientnet_b2": 256,
    "efficientnet_b3": 288,
    "efficientnet_b4": 320,
    "efficientnet_v2_l": 384,
}
"""Likewise by network, where weights of one recipe differ or have been ported."""

STANDARD_NAMES = ("model.safetensors", "pytorch_model.bin")
"""Names of weights on the Hugging Face hub, beside which their config.json lies."""


READ = (
    "mean", "std", "interpolation", "crop_pct", "test_crop_pct", "crop_mode", "input_size", "test_input_size",
)  # fmt: skip
"""Keys of a `pretrained_cfg` that count here."""

DEFAULTS_OF_TIMM: Mapping[str, Any] = {
    "mean": IMAGENET.mean, "std": IMAGENET.std, "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center",
}  # fmt: skip
"""What timm's `resolve_data_config` takes where a `pretrained_cfg` leaves a key out."""


@dataclass(frozen=True, slots=True)
class WeightsConfig:
    """What weights say about their images.

    Attributes:
        values: What this program does as they ask.
        notes: What it does otherwise, a sentence for each.
        model: The network's name, as `--model` takes it; None if they do not say.
        model_arg: Arguments of its constructor, as `--model-arg` takes them.
    """

    values: DataValues
    notes: tuple[str, ...] = ()
    model: str | None = None
    model_arg: tuple[str, ...] = ()


def config_of_pretrained(name: str, network: nn.Module) -> WeightsConfig | None:
    """Return the configuration of a library's pretrained weights, without loading them; None if there are none.

    Args:
        name: The network's, as `--model` takes it.
        network: As it is built; it may be on the meta device.
    """
    if name.startswith(TIMM_PREFIX):
        cfg: Any = network.pretrained_cfg
        return WeightsConfig(*_of_timm(cfg, f"timm's configuration of {name.removeprefix(TIMM_PREFIX)}"))
    from torchvision import models as tv  # noqa: PLC0415 - slow to import, as in build.py

    if name not in tv.list_models(module=tv):
        return None
    weights: Any = tv.get_model_weights(name)
    transform, recipe = weights.DEFAULT.transforms(), weights.DEFAULT.meta["recipe"].removeprefix(REPOSITORY)
    (crop_px,), (resize_px,) = transform.crop_size, transform.resize_size
    return WeightsConfig(
        {
            "mean": tuple(transform.mean),
            "std": tuple(transform.std),
            "interpolation": transform.interpolation.value,
            "crop_ratio": crop_px / resize_px,
            "train_res": TRAIN_RES_BY_RECIPE.get(recipe) or TRAIN_RES_BY_NETWORK.get(name, crop_px),
            "test_res": crop_px,
        }
    )


def config_beside(weights: Path) -> WeightsConfig | None:
    """Read the configuration that lies beside a weights file, as `export` or the Hugging Face hub put it there.

    That is config.json beside a file with one of the hub's `STANDARD_NAMES`, and NAME.json beside NAME.safetensors.

    Returns:
        It; None if there is no such file, or it is not in timm's form.

    Raises:
        CheckpointError: If it cannot be read, or a value in it has another form.
    """
    path = weights.with_name("config.json") if weights.name in STANDARD_NAMES else weights.with_suffix(".json")
    if weights.suffix not in {".safetensors", ".bin"} or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}, the configuration beside the weights: {error}") from error
    if not isinstance(content, dict) or "architecture" not in content:
        return None
    cfg = content.get("pretrained_cfg", content)
    if not isinstance(cfg, dict):
        raise CheckpointError(f"{path}: pretrained_cfg must be an object; found {cfg!r}")
    if cfg is not content:
        _refuse_unknown(cfg, path)
        _refuse_misspelt(content, ("train_res",), path)
    elif "input_size" not in content:  # timm's older files have all keys at the top
        raise CheckpointError(f"{path} has neither pretrained_cfg nor input_size; see docs/networks.md for its form")
    else:
        _refuse_misspelt(content, (*READ, "train_res"), path)
    values, notes = _of_timm(cfg, f"{path}")
    if "train_res" in content:  # of `export`: timm has no place for it
        values["train_res"] = _side_alone(content["train_res"], f"{path}: train_res")
    return WeightsConfig(values, notes, *_network_of(content, path))


def _network_of(content: Mapping[str, Any], path: Path) -> tuple[str, tuple[str, ...]]:
    """Return a network's name, and its constructor's arguments as ``KEY=VALUE``."""
    name, args = content["architecture"], content.get("model_args") or {}
    _expected(isinstance(name, str), name, f"{path}: architecture", "a name")
    _expected(isinstance(args, dict), args, f"{path}: model_args", "an object")
    of_timm = content.get("library", "timm") == "timm"
    return f"{TIMM_PREFIX if of_timm else ''}{name}", tuple(f"{key}={value!r}" for key, value in args.items())


def _refuse_unknown(cfg: Mapping[str, Any], path: Path) -> None:
    known = _keys_of_timm()
    for key in cfg:
        if key not in known:
            raise CheckpointError(f"{path}: pretrained_cfg has an unknown key {key!r}{did_you_mean(key, known)}")


def _refuse_misspelt(content: Mapping[str, Any], read: tuple[str, ...], path: Path) -> None:
    """Refuse what is nearly a key that is read. At the top files have keys of many programs, so others pass."""
    for key in content.keys() - {*read, *_keys_of_timm()}:
        hint = did_you_mean(key, read)
        if hint:
            raise CheckpointError(f"{path} has an unknown key {key!r}{hint}")


def _keys_of_timm() -> list[str]:
    from timm.models import PretrainedCfg  # noqa: PLC0415 - slow to import

    return [one.name for one in fields(PretrainedCfg)]


def _of_timm(cfg: Mapping[str, Any], where: str) -> tuple[DataValues, tuple[str, ...]]:
    """Read a ``pretrained_cfg`` as timm's ``resolve_data_config(use_test_size=True)`` does, and check its values.

    Sizes that it leaves out are left to other sources.
    """

    def read(key: str, parse: Callable[[Any, str], Any]) -> Any:
        value = DEFAULTS_OF_TIMM.get(key) if cfg.get(key) is None else cfg[key]
        return None if value is None else parse(value, f"{where}: {key}")

    train_res, test_res = read("input_size", _side), read("test_input_size", _side)
    ratio, test_ratio = read("crop_pct", _positive), read("test_crop_pct", _positive)
    crop_ratio, crop_mode = test_ratio or ratio, read("crop_mode", _crop_mode)
    notes = []
    if crop_mode == "border":
        notes.append(f"{where} pads images to a square (crop_mode border); the centre crop is taken instead")
    if crop_ratio > 1:
        notes.append(f"{where} pads images (crop ratio {crop_ratio:g}); crop ratio 1 is taken instead")
    values: DataValues = {
        "mean": read("mean", _three_numbers),
        "std": read("std", _three_positive),
        "interpolation": read("interpolation", _interpolation),
        "crop_ratio": min(crop_ratio, 1.0),
        "crop_mode": "center" if crop_mode == "border" else crop_mode,
        "train_res": train_res,
        "test_res": test_res or train_res,
    }
    return values, tuple(notes)


def _expected(holds: bool, value: Any, what: str, expected: str) -> None:
    if not holds:
        raise CheckpointError(f"{what} must be {expected}; found {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _positive(value: Any, what: str) -> float:
    _expected(_is_number(value) and value > 0, value, what, "a number above 0")
    return float(value)


def _three_numbers(value: Any, what: str) -> tuple[float, ...]:
    right = isinstance(value, list | tuple) and len(value) == 3 and all(map(_is_number, value))
    _expected(right, value, what, "three numbers")
    return tuple(map(float, value))


def _three_positive(value: Any, what: str) -> tuple[float, ...]:
    numbers = _three_numbers(value, what)
    _expected(min(numbers) > 0, value, what, "three numbers above 0")
    return numbers


def _side_alone(value: Any, what: str) -> int:
    right = type(value) is int and MIN_RESOLUTION_PX <= value <= MAX_RESOLUTION_PX
    _expected(right, value, what, f"a number of pixels from {MIN_RESOLUTION_PX} to {MAX_RESOLUTION_PX}")
    return int(value)


def _side(value: Any, what: str) -> int:
    right = isinstance(value, list | tuple) and len(value) == 3 and value[0] == 3 and value[1] == value[2]
    _expected(right, value, what, "[3, side, side]: images are square and have three channels")
    return _side_alone(value[1], f"{what}'s side")


def _interpolation(value: Any, what: str) -> str:
    _expected(value in INTERPOLATIONS, value, what, f"one of {', '.join(INTERPOLATIONS)}")
    return str(value)


def _crop_mode(value: Any, what: str) -> str:
    _expected(value in ("center", "squash", "border"), value, what, "center, squash or border")
    return str(value)
