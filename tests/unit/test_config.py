import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dali_fixres.cli import app
from dali_fixres.config import (
    AnalyzeConfig,
    CachedFeaturesSettings,
    EvaluateConfig,
    FinetuneConfig,
    FrechetSettings,
    IndexConfig,
    PrepareConfig,
    PreviewConfig,
    SgdSettings,
    TrainableParts,
    TrainConfig,
    VerifyConfig,
    read_toml,
    to_toml,
)
from dali_fixres.config.finetuning import Method
from dali_fixres.config.network import Config
from dali_fixres.errors import ConfigError, UserError
from pipelines.resolution import Resolution

Build = Callable[..., Config]

FINETUNE = partial(FinetuneConfig, test_res=160)


def _flags(config: Config) -> set[str]:
    return {field.name for field in fields(config)}


# What is stored


def test_defaults_leave_out_what_is_unset() -> None:
    """What the user left unset is not stored, and neither is what concerns one call alone."""
    assert TrainConfig().stored() == {
        "pretrained": False,
        "model_arg": [],
        "batch_size": 64,
        "device": "auto",
        "precision": "auto",
        "eval_precision": "fp32",
        "seed": 0,
        "copies": "exact",
        "decode": "auto",
        "strict": False,
        "epochs": 30,
        "lr_decay": "cosine",
        "warmup_ratio": 0.0,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "label_smoothing": 0.0,
        "sync_bn": False,
        "interpolation": "auto",
        "checkpoint_every": "10min",
        "train_res": "128",
        "aug_repeats": 1,
        "compile": False,
    }


def test_stored_is_plain_and_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Paths are stored as absolute text, tuples as lists; what concerns one call is not stored."""
    monkeypatch.chdir(tmp_path)
    config = FinetuneConfig(
        test_res=160,
        data=Path("images"),
        checkpoint=Path("/runs/one"),
        mean=(0.1, 0.2, 0.3),
        model_arg=("a=1", "b=2"),
        out=Path("out"),
        json=Path("out.json"),
        config=Path("mine.toml"),
        resume=True,
        accept_changed_data=True,
        trainable="all",
    )
    stored = config.stored()
    assert not {"out", "json", "config", "resume", "accept_changed_data"} & set(stored)
    assert not {"lr", "train_res", "std", "workers", "crop_ratio"} & set(stored)
    assert stored["data"] == str(tmp_path / "images")
    assert stored["checkpoint"] == "/runs/one"
    assert (stored["mean"], stored["model_arg"]) == ([0.1, 0.2, 0.3], ["a=1", "b=2"])
    assert (stored["test_res"], stored["trainable"], stored["augmentation"]) == (160, "all", "v2")
    assert (stored["epochs"], stored["num_blocks"]) == (8, 1)


def test_the_rate_follows_from_what_trains() -> None:
    """Layers that have been trained before have a tenth of a classifier's learning rate, unless one is given."""
    rates = {trainable: SgdSettings(trainable=trainable).rate for trainable in get_args(TrainableParts)}
    assert rates == {"classifier": 0.2, "classifier+norm": 0.2, "last-blocks": 0.02, "all": 0.02}
    assert SgdSettings(trainable="all", base_lr=0.5).rate == 0.5
    assert CachedFeaturesSettings().rate == 0.2
    assert (TrainConfig().rate, TrainConfig(base_lr=0.3).rate) == (0.1, 0.3)


# Methods of fine-tuning


def test_each_method_has_its_own_defaults() -> None:
    """Settings that are left out are the method's own; given ones are taken over."""
    assert FINETUNE().settings == CachedFeaturesSettings(trainable="classifier", epochs=8)
    assert FINETUNE(method="sgd").settings == SgdSettings(trainable="classifier+norm", epochs=8)
    assert FINETUNE(method="frechet").settings == FrechetSettings(statistics_images=4096)
    assert FINETUNE(method="sgd", trainable="classifier", lr=0.1, norm_stats=False).settings == SgdSettings(
        trainable="classifier", lr=0.1, norm_stats=False
    )


@pytest.mark.parametrize("settings", [SgdSettings, CachedFeaturesSettings, FrechetSettings])
def test_settings_of_methods_are_flags(settings: type) -> None:
    """Each setting of a method is a flag of finetune, with the same default unless that depends on the method."""
    flags = {field.name: field.default for field in fields(FinetuneConfig)}
    assert {field.name: field.default for field in fields(settings)}.items() <= flags.items() | {
        ("trainable", "classifier"), ("trainable", "classifier+norm"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "absent"),
    [
        ("cached-features", {"num_blocks"}),
        ("sgd", {"feature_dropout", "augmented_views", "statistics_images", "feature_memory"}),
        ("frechet", {"trainable", "norm_stats", "num_blocks", "epochs", "momentum", "feature_dropout"}),
    ],
)
def test_a_run_stores_what_its_method_uses(method: Method, absent: set[str]) -> None:
    """A resumed run is compared by what it stores, so a setting that its method does not use cannot differ."""
    stored = FINETUNE(method=method).stored()
    settings = {field.name for field in fields(FINETUNE(method=method).settings)}
    assert stored["method"] == method
    assert not stored.keys() & absent
    assert settings - {"lr", "base_lr", "decay_epochs", "clip_grad"} <= stored.keys()


def test_cached_features_train_the_classifier() -> None:
    """What changes the network before the classifier by training is refused."""
    for trainable in ("classifier+norm", "last-blocks", "all"):
        with pytest.raises(
            ConfigError, match=rf"^--method cached-features trains .* not --trainable {re.escape(trainable)}; use"
        ):
            FINETUNE(method="cached-features", trainable=trainable)
    with pytest.raises(ConfigError, match=r"--feature-dropout must be from 0 to below 1; found 1.0"):
        FINETUNE(method="cached-features", feature_dropout=1.0)


@pytest.mark.parametrize(
    ("trainable", "method"),
    [
        (None, "cached-features"),
        ("classifier", "cached-features"),
        ("classifier+norm", "sgd"),
        ("last-blocks", "sgd"),
        ("all", "sgd"),
    ],
)
def test_the_method_follows_from_what_trains(trainable: TrainableParts | None, method: Method) -> None:
    """Features are cached where training does not change them; a method that is named is taken."""
    assert FINETUNE(trainable=trainable).chosen_method == method
    assert FINETUNE(trainable=trainable, method="sgd").chosen_method == "sgd"


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("frechet", {"epochs": 5}, "trains nothing, so it has no use for --epochs; leave that out"),
        ("frechet", {"trainable": "all", "lr": 0.1}, "trains nothing, so it has no use for --lr, --trainable; leave"),
        ("frechet", {"norm_stats": False}, "trains nothing, so it has no use for --no-norm-stats; leave"),
        ("frechet", {"augmentation": "v1"}, "trains nothing, so it has no use for --augmentation; leave"),
        ("frechet", {"trainable": "last-blocks", "num_blocks": 2}, "for --trainable, --num-blocks; leave"),
        (
            "sgd",
            {"augmented_views": 2, "statistics_images": 64},
            "runs the network in every epoch, so it has no use for --statistics-images, --augmented-views; leave",
        ),
        ("cached-features", {"num_blocks": 3}, "trains the classifier alone, so it has no use for --num-blocks; leave"),
    ],
)
def test_settings_that_do_not_fit_the_method(method: Method, settings: dict[str, Any], message: str) -> None:
    """A setting that the method does not use is refused by the flag's name."""
    with pytest.raises(ConfigError, match=f"^--method {method} .*{message}"):
        FINETUNE(method=method, **settings)


def test_frechet_takes_what_it_uses() -> None:
    """The colour jitter of training crops, the number of images and the batch are its own."""
    config = FINETUNE(method="frechet", color_jitter=0.1, statistics_images=100, batch_size=8)
    assert config.settings == FrechetSettings(statistics_images=100)


def test_decay_epochs_go_with_steps() -> None:
    """Falls every so many epochs are those of --lr-decay step; a cosine has none."""
    assert TrainConfig(lr_decay="step", decay_epochs=30).decay_epochs == 30
    with pytest.raises(ConfigError, match="--decay-epochs goes with --lr-decay step; found --lr-decay cosine"):
        TrainConfig(decay_epochs=30)
    with pytest.raises(ConfigError, match="--decay-epochs must be at least 1; found 0"):
        TrainConfig(lr_decay="step", decay_epochs=0)


def test_a_dry_run_is_of_a_new_run() -> None:
    """A dry run does not resume."""
    with pytest.raises(ConfigError, match="--dry-run shows what a new run would do; leave --resume out"):
        TrainConfig(dry_run=True, resume=True)


def test_blocks_go_with_last_blocks() -> None:
    """A number of blocks that has no effect is refused."""
    assert SgdSettings(trainable="last-blocks", num_blocks=3).num_blocks == 3
    with pytest.raises(ConfigError, match="--num-blocks goes with --trainable last-blocks; found --trainable all"):
        FINETUNE(trainable="all", num_blocks=3)


@pytest.mark.parametrize("trainable", ["last-blocks", "all"])
def test_statistics_are_kept_for_a_frozen_network(trainable: TrainableParts) -> None:
    """Layers that train estimate their statistics anew."""
    with pytest.raises(ConfigError, match=rf"--no-norm-stats goes with .*; found --trainable {trainable}$"):
        FINETUNE(trainable=trainable, norm_stats=False)


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(train_res="96@0,128@8", lr=1e-5, weight_decay=0.0, color_jitter=0.25, clip_grad=1.0, test_res=160),
        TrainConfig(train_res="96-192@0-16:batch=32:lr=0.1", aug_repeats=2, strict=True, checkpoint_every="500steps"),
        FinetuneConfig(test_res=160, method="frechet"),
        FinetuneConfig(test_res=160, data=Path('/a "b"\\c/ä 雪\n'), mean=(0.5, 0.5, 0.5), std=(1e-3, 1.0, 2.0)),
        EvaluateConfig(test_res="96,128", model="timm/mobilenetv2_100", model_arg=("pad_type=same",), batch_size=1),
        PreviewConfig(num_images=2),
        IndexConfig(val_fraction=0.1),
    ],
)
def test_stored_settings_survive_the_file(config: Config, tmp_path: Path) -> None:
    """What is written into the run folder is read back by --config, value for value and type for type."""
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config.stored()), encoding="utf-8")
    values = read_toml(path, _flags(config))
    assert values == config.stored()
    assert {name: type(value) for name, value in values.items()} == {
        name: type(value) for name, value in config.stored().items()
    }


def test_toml_literals() -> None:
    """One line per setting, in the order given."""
    assert to_toml({"train_res": "96@0", "lr": 0.1, "epochs": 3, "resume": True, "mean": [0.5, 1.0]}) == (
        'train_res = "96@0"\nlr = 0.1\nepochs = 3\nresume = true\nmean = [\n    0.5,\n    1.0,\n]\n'
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()


@settings(derandomize=True, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), TEXT | NUMBERS | st.lists(TEXT)))
def test_any_settings_survive_toml(values: dict[str, Any]) -> None:
    """Any text, number, truth value or list reads back as it was written."""
    assert tomllib.loads(to_toml(values)) == values


def test_text_with_a_control_character_survives_toml() -> None:
    """Control characters are escaped, the delete character among them, which JSON leaves and TOML forbids."""
    values = {"data": "".join(map(chr, range(32))) + "\x7f\x80"}
    assert tomllib.loads(to_toml(values)) == values


# Config files


def test_config_files_take_dashes_or_underscores(tmp_path: Path) -> None:
    """A key is a flag without its leading dashes, written either way."""
    path = tmp_path / "mine.toml"
    path.write_text('train-res = "128"\nbatch_size = 8  # images\n')
    assert read_toml(path, {"train_res", "batch_size", "lr"}) == {"train_res": "128", "batch_size": 8}


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("trian_res", "; did you mean 'train_res'?"),
        ("batchsize", "; did you mean 'batch_size'?"),
        ("label-smothing", "; did you mean 'label_smoothing'?"),
        ("zzz", ""),
    ],
)
def test_unknown_keys(key: str, hint: str, tmp_path: Path) -> None:
    """An unknown key is refused with the file and the nearest flag."""
    path = tmp_path / "mine.toml"
    path.write_text(f"lr = 0.1\n{key} = 1\n")
    with pytest.raises(ConfigError) as caught:
        read_toml(path, _flags(TrainConfig()))
    assert str(caught.value) == f"--config {path} has an unknown key {key!r}{hint}"


@pytest.mark.parametrize("content", [b"train_res = 96@0\n", b"lr\n", b'data = "\xe4"\n', b"lr = 1\nlr = 2\n"])
def test_files_that_are_no_toml(content: bytes, tmp_path: Path) -> None:
    """A file that is no TOML is refused with its path and the parser's reason."""
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^--config {path} is not valid TOML: ."):
        read_toml(path, _flags(TrainConfig()))


def test_config_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is not there, and a folder, are named with the system's reason."""
    with pytest.raises(ConfigError, match=rf"^cannot read --config {tmp_path}/none: No such file or directory$"):
        read_toml(tmp_path / "none", {"lr"})
    with pytest.raises(ConfigError, match=rf"^cannot read --config {tmp_path}: Is a directory$"):
        read_toml(tmp_path, {"lr"})


# Validation


@pytest.mark.parametrize(
    ("build", "name", "value", "rule"),
    [
        (IndexConfig, "val_fraction", 0.0, "above 0 and at most 1"),
        (IndexConfig, "val_fraction", 1.01, "above 0 and at most 1"),
        (EvaluateConfig, "batch_size", 0, "at least 1"),
        (EvaluateConfig, "workers", 0, "at least 1"),
        (EvaluateConfig, "seed", -1, "from 0 to 2^63 - 1"),
        (EvaluateConfig, "seed", 2**63, "from 0 to 2^63 - 1"),
        (TrainConfig, "epochs", 1.5, "a whole number"),
        (TrainConfig, "epochs", True, "a whole number"),
        (TrainConfig, "test_res", 128.5, "a whole number"),
        (PrepareConfig, "quality", 96, "from 1 to 95"),
        (PrepareConfig, "quality", 0, "from 1 to 95"),
        (PrepareConfig, "shard_size", 0, "at least 1"),
        (PrepareConfig, "val_fraction", 2.0, "above 0 and at most 1"),
        (TrainConfig, "crop_ratio", 1.5, "above 0 and at most 1"),
        (EvaluateConfig, "std", (0.1, 0.0, 0.1), "above 0"),
        (TrainConfig, "epochs", 0, "at least 1"),
        (TrainConfig, "warmup_ratio", -0.1, "from 0 to below 1"),
        (TrainConfig, "warmup_ratio", 1.0, "from 0 to below 1"),
        (TrainConfig, "momentum", 1.0, "from 0 to below 1"),
        (TrainConfig, "momentum", -0.1, "from 0 to below 1"),
        (TrainConfig, "label_smoothing", 1.0, "from 0 to below 1"),
        (TrainConfig, "color_jitter", 1.1, "from 0 to 1"),
        (TrainConfig, "color_jitter", -0.1, "from 0 to 1"),
        (TrainConfig, "lr", 0.0, "above 0"),
        (TrainConfig, "lr", math.nan, "above 0"),
        (TrainConfig, "lr", math.inf, "above 0"),
        (TrainConfig, "base_lr", -0.1, "above 0"),
        (TrainConfig, "clip_grad", 0.0, "above 0"),
        (TrainConfig, "weight_decay", -1e-4, "at least 0"),
        (TrainConfig, "weight_decay", math.nan, "at least 0"),
        (TrainConfig, "aug_repeats", 0, "at least 1"),
        (TrainConfig, "aug_repeats", -2, "at least 1"),
        (FINETUNE, "epochs", 0, "at least 1"),
        (partial(FINETUNE, method="sgd"), "num_blocks", 0, "at least 1"),
        (FINETUNE, "augmented_views", 0, "at least 1"),
        (FINETUNE, "statistics_images", 1, "at least 2"),
        (FINETUNE, "feature_memory", -1.0, "at least 0"),
        (AnalyzeConfig, "statistics_images", 0, "at least 1"),
        (FINETUNE, "label_smoothing", -0.5, "from 0 to below 1"),
        (PreviewConfig, "num_images", 0, "from 1 to 64"),
        (PreviewConfig, "num_images", 65, "from 1 to 64"),
        (VerifyConfig, "workers", 0, "at least 1"),
    ],
)
def test_bad_values(build: Build, name: str, value: object, rule: str) -> None:
    """A value out of its range is refused with its flag, the rule and the value."""
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(ConfigError) as caught:
        build(**{name: value})
    assert str(caught.value) == f"{flag} must be {rule}; found {value}"


@pytest.mark.parametrize(
    ("build", "name", "value", "found"),
    [
        (TrainConfig, "train_res", "16", "16"),
        (TrainConfig, "train_res", "96@0,5000@2", "5000"),
        (TrainConfig, "train_res", "96@1", "96@1"),
        (TrainConfig, "train_res", "big", "'big'"),
        (TrainConfig, "train_res", "96@0,128@30", "96@0,128@30"),
        (TrainConfig, "train_res", "96-192@0-30", "96-192@0-30"),
        (TrainConfig, "train_res", "96-100@0-16", "'96-100@0-16'"),
        (TrainConfig, "train_res", "96:batch=0", "0"),
        (TrainConfig, "train_res", "96:lr=x", "'x'"),
        (TrainConfig, "test_res", 31, "31"),
        (FinetuneConfig, "test_res", 5000, "5000"),
        (FINETUNE, "train_res", 16, "16"),
        (EvaluateConfig, "test_res", "96,16", "16"),
        (EvaluateConfig, "crop_ratio", "0.875,2", "2.0"),
        (EvaluateConfig, "crop_ratio", "0.0", "0.0"),
        (EvaluateConfig, "crop_ratio", "0.875;1", "'0.875;1'"),
        (EvaluateConfig, "test_res", "96;128", "'96;128'"),
        (PreviewConfig, "train_res", 16, "16"),
        (AnalyzeConfig, "train_res", 16, "16"),
        (AnalyzeConfig, "test_res", "96,8", "8"),
        (PreviewConfig, "test_res", "96,8", "8"),
    ],
)
def test_bad_resolutions(build: Build, name: str, value: object, found: str) -> None:
    """A resolution that cannot be used is refused with its flag, the rule and the value."""
    with pytest.raises(ConfigError, match=rf"; found {re.escape(found)}$") as caught:
        build(**{name: value})
    assert f"--{name.replace('_', '-')}" in str(caught.value)


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [
        (TrainConfig, "weight_decay", math.inf),
        (EvaluateConfig, "std", (math.inf, 1.0, 1.0)),
        (EvaluateConfig, "std", (1.0, math.nan, 1.0)),
        (EvaluateConfig, "mean", (0.5, math.nan, 0.5)),
        (PreviewConfig, "seed", -1),
    ],
)
def test_values_that_nothing_can_use(build: Build, name: str, value: object) -> None:
    """A value that could only end in NaN or in a failure later on is refused with its flag at once."""
    with pytest.raises(ConfigError, match=rf"^--{name.replace('_', '-')} "):
        build(**{name: value})


@pytest.mark.parametrize(
    "build",
    [
        partial(TrainConfig, epochs=1, warmup_ratio=0.99, momentum=0.0, weight_decay=0.0, label_smoothing=0.99),
        partial(TrainConfig, color_jitter=0.0, batch_size=1, workers=1, val_fraction=1.0, crop_ratio=1.0, lr=1e-9),
        partial(TrainConfig, color_jitter=1.0, train_res="32@0,64@29", test_res=4096, epochs=30),
        partial(PreviewConfig, num_images=64),
        partial(EvaluateConfig, mean=(0.0, 0.0, 0.0), std=(1e-6, 1.0, 1.0)),
    ],
)
def test_values_at_the_edge(build: "partial[Config]") -> None:
    """The last allowed values are allowed."""
    config = build()
    assert build.keywords.items() <= {field.name: getattr(config, field.name) for field in fields(config)}.items()


def test_two_ways_to_start(tmp_path: Path) -> None:
    """--pretrained and --weights exclude each other."""
    assert EvaluateConfig(weights=tmp_path).weights == tmp_path
    with pytest.raises(ConfigError, match=r"--pretrained and --weights are two ways to start; give one of them"):
        EvaluateConfig(pretrained=True, weights=tmp_path)


def test_the_gpu_decodes_for_a_gpu_only() -> None:
    """Asking for the GPU as decoder and the CPU as device is refused before anything starts."""
    with pytest.raises(ConfigError, match=r"--decode gpu needs a GPU, but --device is cpu; take --decode auto"):
        EvaluateConfig(device="cpu", decode="gpu")
    assert EvaluateConfig(device="cpu", decode="cpu").decode == "cpu"


@pytest.mark.parametrize(
    "given", [{"model": "resnet18"}, {"test_res": "128"}, {"views": "flip"}, {"checkpoint": Path()}]
)
def test_saved_outputs_need_no_network(given: dict[str, Any]) -> None:
    """--from-outputs refuses what is about running a network, by the flag's name."""
    (name,) = given
    with pytest.raises(
        ConfigError, match=rf"^--from-outputs runs no network, .* no use for --{name.replace('_', '-')}; leave"
    ):
        EvaluateConfig(from_outputs=Path("outputs"), **given)


def test_config_errors_are_the_users() -> None:
    """Every ConfigError is a UserError, for which the command line exits with 2."""
    with pytest.raises(UserError):
        TrainConfig(epochs=0)


# What is derived


def test_resolutions_of_training() -> None:
    """Testing is at the last training resolution unless another is asked for; the crop ratio is 0.875 or as asked."""
    assert (TrainConfig().ratio, TrainConfig(crop_ratio=0.9).ratio) == (0.875, 0.9)
    config = TrainConfig(train_res="96@0,128@8", crop_ratio=0.9)
    expected = [Resolution(96, 0.9), Resolution(96, 0.9), Resolution(128, 0.9)]
    assert [config.schedule.at(epoch) for epoch in (0, 7, 8)] == expected
    assert config.test_resolution == Resolution(128, 0.9)
    assert TrainConfig(train_res="96", test_res=160).test_resolution == Resolution(160)
    assert FinetuneConfig(test_res=160, crop_ratio=0.9).test_resolution == Resolution(160, 0.9)


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("10min", (10.0, "min")),
        (" 0.5 min ", (0.5, "min")),
        ("500steps", (500.0, "steps")),
        ("1 step", (1.0, "steps")),
    ],
)
def test_checkpoint_intervals(text: str, interval: tuple[float, str]) -> None:
    """Checkpoints within an epoch are due every so many minutes or steps."""
    assert TrainConfig(checkpoint_every=text).checkpoint_interval == interval
    assert FINETUNE(checkpoint_every=text).checkpoint_interval == interval


@pytest.mark.parametrize("text", ["", "10", "min", "0min", "0steps", "-1min", "10h", "10 mins", "1e3steps", ".5min"])
def test_bad_checkpoint_intervals(text: str) -> None:
    """What is no number of minutes or steps is refused with its flag, the rule and the text."""
    with pytest.raises(ConfigError) as caught:
        TrainConfig(checkpoint_every=text)
    assert str(caught.value) == (
        f"--checkpoint-every must be minutes or steps above 0, as in 10min or 500steps; found {text!r}"
    )


def _parsed(*words: str) -> EvaluateConfig:
    """Return the settings that a command line stands for."""
    _, bound, _ = app.parse_args(list(words), exit_on_error=False, print_error=False)
    config: EvaluateConfig = bound.arguments["config"]
    return config


def test_what_flags_say_about_images() -> None:
    """Flags that are given say something about a network's images; what is drawn in training does not."""
    assert EvaluateConfig().data_values() == {"mean": None, "std": None, "interpolation": None, "crop_ratio": None}
    zeros = (0.0, 0.0, 0.0)
    given = EvaluateConfig(mean=zeros, crop_ratio="0.9", interpolation="bicubic").data_values()
    assert (given["mean"], given["crop_ratio"], given["interpolation"]) == (zeros, 0.9, "bicubic")
    assert EvaluateConfig(crop_ratio="0.9,1").data_values()["crop_ratio"] is None
    trained = TrainConfig(train_res="96@0,128@8", interpolation="random").data_values()
    assert (trained["train_res"], trained["test_res"], trained["interpolation"]) == (128, None, None)
    assert TrainConfig().data_values()["train_res"] is None
    assert TrainConfig(train_res="96").default_values() == {"train_res": 96, "test_res": 96}
    assert TrainConfig(test_res=160).default_values() == {"train_res": 128, "test_res": 160}
    tuned = FinetuneConfig(test_res=160, train_res=96, interpolation="bilinear").data_values()
    assert (tuned["train_res"], tuned["interpolation"]) == (96, "bilinear")
    assert "test_res" not in tuned


@pytest.mark.parametrize("words", [["0.5,0.25,0.125"], ["0.5", "0.25", "0.125"], ["0.5, 0.25, 0.125"]])
def test_three_numbers_with_or_without_commas(words: list[str]) -> None:
    """--mean and --std take their numbers with commas between or as words, and flags go on behind them."""
    parsed = _parsed("evaluate", "--mean", *words, "--std", *words, "--seed", "3")
    assert (parsed.mean, parsed.std, parsed.seed) == ((0.5, 0.25, 0.125), (0.5, 0.25, 0.125), 3)


@pytest.mark.parametrize("words", [["0.5"], ["0.5,0.5"], ["0.5", "0.5", "0.5", "0.5"], ["grey"], ["0.5;0.5;0.5"]])
def test_not_three_numbers(words: list[str]) -> None:
    """Other than three numbers are refused with the flag and an example."""
    with pytest.raises(ConfigError, match=r"^--mean: three numbers are expected, as in 0.5,0.5,0.5; found "):
        _parsed("evaluate", "--mean", *words)


def test_sections_group_keys(tmp_path: Path) -> None:
    """Keys may stand in sections of any name; none may be set twice."""
    path = tmp_path / "mine.toml"
    path.write_text('lr = 0.1\n[data]\nbatch-size = 8\n[run]\ntrain_res = "96"\n', encoding="utf-8")
    assert read_toml(path, {"train_res", "batch_size", "lr"}) == {"lr": 0.1, "batch_size": 8, "train_res": "96"}
    path.write_text("lr = 0.1\n[run]\nlr = 0.2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.toml sets lr twice"):
        read_toml(path, {"lr"})
    path.write_text("[train]\nlearning_rate = 0.1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"has an unknown key 'learning_rate'"):
        read_toml(path, {"lr"})
