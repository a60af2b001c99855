"""The images a network takes: which source counts, how they are planned, and the line that says so."""

import pytest

from dali_fixres.models import DataConfig
from pipelines import AUGMENTATIONS, Resolution
from pipelines.plan.crops import centre_crop, random_resized_crop, shifted_crop, squash_crop

HALF = (0.5, 0.5, 0.5)


def test_defaults_are_those_of_imagenet() -> None:
    """Without any source: ImageNet's mean and std, bilinear, 224 of 256 px, trained and tested at 224 px."""
    config = DataConfig()
    assert (config.mean, config.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (config.interpolation, config.crop_ratio, config.crop_mode) == ("bilinear", 0.875, "center")
    assert (config.train_res, config.test_resolution) == (224, Resolution(224, 0.875))
    assert str(config) == (
        "images: mean 0.485 0.456 0.406, std 0.229 0.224 0.225, bilinear, crop ratio 0.875 (default); "
        "trained at 224 px, tested at 224 px (default)"
    )


def test_later_sources_win_value_by_value() -> None:
    """A flag wins over a checkpoint over weights over defaults, each for what it says alone."""
    config = (
        DataConfig()
        .given("weights", {"mean": HALF, "interpolation": "bicubic", "crop_ratio": 0.95, "test_res": 288})
        .given("checkpoint", {"crop_ratio": 0.9, "train_res": 192})
        .given("flag", {"mean": None, "train_res": 176})
    )
    assert (config.mean, config.interpolation, config.crop_ratio) == (HALF, "bicubic", 0.9)
    assert (config.train_res, config.test_res) == (176, 288)
    assert str(config) == (
        "images: mean 0.5 0.5 0.5 (weights), std 0.229 0.224 0.225 (default), bicubic (weights), crop ratio 0.9 "
        "(checkpoint); trained at 176 px (flag), tested at 288 px (weights)"
    )


def test_an_unknown_test_size_is_the_training_size() -> None:
    """Where nothing says at which size a network is tested, that is the size it was trained at."""
    config = DataConfig().given("flag", {"train_res": 160})
    assert (config.test_res, config.source_of("test_res")) == (160, "flag")
    assert DataConfig().given("weights", {"test_res": 288}).given("flag", {"train_res": 160}).test_res == 288


def test_a_network_of_a_fixed_size_is_tested_at_it() -> None:
    """A network that takes one size is tested there, whatever its weights say, unless flag or checkpoint do."""
    built = DataConfig(fixed_size=True, test_res=384)
    config = built.given("weights", {"train_res": 224, "test_res": 224}).given("flag", {"train_res": 192})
    assert (config.train_res, config.test_res, config.source_of("test_res")) == (192, 384, "default")
    assert built.given("weights", {"test_res": 384}).source_of("test_res") == "weights"
    asked = built.given("flag", {"test_res": 256})  # refused by the network, before any work
    assert (asked.test_res, asked.source_of("test_res")) == (256, "flag")
    assert str(asked).endswith("tested at 256 px (flag)")
    assert str(built.given("flag", {"test_res": 384})).endswith("tested at 384 px, its only size (flag)")
    assert built.given("checkpoint", {"test_res": 256}).test_res == 256


def test_all_of_a_checkpoint_comes_from_it() -> None:
    """What a run took from flags and weights is the checkpoint's for the next command."""
    config = DataConfig().given("weights", {"mean": HALF}).from_checkpoint()
    assert str(config) == (
        "images: mean 0.5 0.5 0.5, std 0.229 0.224 0.225, bilinear, crop ratio 0.875 (checkpoint); "
        "trained at 224 px, tested at 224 px (checkpoint)"
    )


def test_json_gives_the_same_back() -> None:
    """What is written to results and checkpoints is read back, with sources."""
    config = DataConfig(fixed_size=True, test_res=288, crop_mode="squash").given(
        "weights", {"mean": HALF, "test_res": 288}
    )
    again = DataConfig.from_json(config.as_json())
    assert again.as_json() == config.as_json()
    assert config.as_json()["sources"] == {
        "mean": "weights", "std": "default", "interpolation": "default", "crop_ratio": "default",
        "crop_mode": "default", "train_res": "default", "test_res": "weights",
    }  # fmt: skip
    assert str(again).endswith("tested at 288 px, its only size (weights)")


@pytest.mark.parametrize(
    ("name", "crop", "squashed"),
    [("v1", centre_crop, squash_crop), ("v2", shifted_crop, squash_crop), ("train", random_resized_crop, None)],
)
def test_plans_take_crop_and_interpolation(name: str, crop: object, squashed: object) -> None:
    """Test crops are squashed where the network's are; training crops are not; all have its interpolation."""
    planned = DataConfig(interpolation="bicubic").planned(AUGMENTATIONS[name])
    assert (planned.crop, planned.interpolation) == (crop, "bicubic")
    assert (planned.flip, planned.jitter) == (AUGMENTATIONS[name].flip, AUGMENTATIONS[name].jitter)
    assert DataConfig(crop_mode="squash").planned(AUGMENTATIONS[name]).crop == (squashed or crop)
    assert DataConfig(interpolation="bicubic").planned(AUGMENTATIONS[name], "random").interpolation == "random"


def test_views_take_crop_and_interpolation() -> None:
    """Views that are averaged are squashed and interpolated as the single test crop is."""
    views = DataConfig(interpolation="bicubic", crop_mode="squash").views("flip")
    assert [(view.crop, view.flip, view.interpolation) for view in views] == [
        (squash_crop, 0.0, "bicubic"),
        (squash_crop, 1.0, "bicubic"),
    ]
