from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dali_fixres.config import EvaluateConfig, FinetuneConfig, FixresConfig, TrainConfig
from dali_fixres.errors import ConfigError

HERE = Path("run")


@pytest.mark.parametrize(
    ("trained_at", "swept"),
    [
        (32, "32,64"),
        (64, "64,96,128"),
        (128, "128,160,192,224,256"),
        (100, "100,128,160,192"),
        (4000, "4000,4032,4064,4096"),
    ],
)
def test_sweeps_go_to_twice_the_training_resolution(trained_at: int, swept: str) -> None:
    """Multiples of 32 from the training resolution, which is always among them, to twice that or to 4096."""
    assert FixresConfig().sweep_resolutions(trained_at) == swept


def test_sweeps_have_the_resolutions_that_matter() -> None:
    """Those of training and of tuning are added to those asked for, ascending and once."""
    assert FixresConfig(sweep="160,96", test_res="192").sweep_resolutions(128) == "96,128,160,192"
    assert FixresConfig(sweep="128").sweep_resolutions(128) == "128"
    assert FixresConfig(test_res="320").sweep_resolutions(128) == "128,160,192,224,256,320"


def test_the_target_is_a_number_or_the_best() -> None:
    """Without a number it is known only after a sweep."""
    assert (FixresConfig().target, FixresConfig(test_res="192").target) == (None, 192)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_res": "high"}, "--test-res must be a number of pixels, or best; found 'high'"),
        ({"test_res": "16"}, "--test-res: a resolution is .*; found 16"),
        ({"sweep": "128,x"}, "--sweep: resolutions are whole numbers .*; found '128,x'"),
        ({"sweep": "128,16"}, "--sweep: .*; found 16"),
        ({"finetune_epochs": 0}, "--finetune-epochs must be at least 1; found 0"),
        ({"finetune_lr": 0.0}, "--finetune-lr must be above 0; found 0.0"),
        ({"method": "cached-features", "trainable": "all"}, "--method cached-features trains the classifier alone"),
        ({"checkpoint": HERE, "epochs": 5, "lr": 0.1}, "replaces training, so there is no use for --epochs, --lr$"),
        ({"checkpoint": HERE, "model": "resnet50"}, "no use for --model$"),
        ({"checkpoint": HERE, "train_res": "96"}, "no use for --train-res$"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    """A bad value names its flag; training's flags beside a checkpoint are named."""
    with pytest.raises(ConfigError, match=message):
        FixresConfig(**changes)


def test_training_gets_all_of_its_own_flags() -> None:
    """Every field of `train` is taken over, but for what belongs to one call, and for what it tests at."""
    given: dict[str, Any] = {
        "train_res": "96@0,128@2", "epochs": 7, "lr": 0.3, "batch_size": 5, "model": "resnet18", "aug_repeats": 5,
        "color_jitter": 0.1, "seed": 3, "strict": True, "sync_bn": True, "accept_changed_data": True,
        "compile": True,
        "data": Path("images"),
    }  # fmt: skip
    config = FixresConfig(**given, test_res="192", json=Path("x.json"), config=Path("x.toml"), finetune_epochs=2)
    assert config.train_config(HERE, resume=True) == TrainConfig(**given, out=HERE, resume=True)


def test_fine_tuning_has_its_own_epochs_and_rate() -> None:
    """Data, machine and batch are those of all stages; training's epochs, rate and decay are not."""
    config = FixresConfig(
        data=Path("images"), model="resnet18", epochs=7, lr=0.3, weight_decay=0.5, batch_size=5, seed=3,
        finetune_epochs=2, finetune_lr=0.01, method="cached-features", augmentation="v1", norm_stats=False,
        checkpoint_every="3min",
    )  # fmt: skip
    assert config.finetune_config(HERE, 192, Path("out"), resume=False) == FinetuneConfig(
        data=Path("images"), checkpoint=HERE, test_res=192, epochs=2, lr=0.01, method="cached-features",
        augmentation="v1", norm_stats=False, batch_size=5, seed=3, checkpoint_every="3min", out=Path("out"),
    )  # fmt: skip


def test_sweeps_write_plots_beside_their_results() -> None:
    """Results and plot go into the folder of `fixres`, not into the run that is tested."""
    config = FixresConfig(data=Path("images"), model="resnet18", device="cpu", workers=2, val_fraction=0.5)
    assert config.evaluate_config(HERE, "64,96", Path("out/before.json")) == EvaluateConfig(
        data=Path("images"), checkpoint=HERE, test_res="64,96", json=Path("out/before.json"),
        plot=Path("out/before.png"), device="cpu", workers=2, val_fraction=0.5,
    )  # fmt: skip


def test_settings_fit_the_flags_of_training() -> None:
    """All flags of `train` but --dry-run are flags of `fixres`."""
    assert {field.name for field in fields(TrainConfig)} - {field.name for field in fields(FixresConfig)} == {"dry_run"}
