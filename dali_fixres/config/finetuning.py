"""Settings of `finetune`: what all methods share, and one class of settings per method.

The flags are flat: `FinetuneConfig` has the settings of all methods, and `FinetuneConfig.settings` gives the object of
the chosen method, which holds what that method uses and nothing else.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from cyclopts import Parameter

from dali_fixres.config.images import DataValues
from dali_fixres.config.network import plain
from dali_fixres.config.rules import (
    Count,
    NonNegative,
    Pixels,
    Positive,
    Rule,
    Settings,
    Share,
    Whole,
    field_names,
    given_flags,
    help_group,
)
from dali_fixres.config.training import DryRunConfig, OptimizerSettings
from dali_fixres.errors import ConfigError
from pipelines.resolution import Resolution

__all__ = [
    "CachedFeaturesSettings",
    "FinetuneConfig",
    "FrechetSettings",
    "Method",
    "SgdSettings",
    "TrainableParts",
    "TrainableSettings",
]

Method: TypeAlias = Literal["cached-features", "sgd", "frechet"]
"""How to fine-tune: train the classifier on features computed once; train with the network run in every epoch; or train
nothing, and map the features to their distribution in training."""

TrainableParts: TypeAlias = Literal["classifier", "classifier+norm", "last-blocks", "all"]
"""Which parameters train: the classifier's; the last norm's too, as in the paper; the last blocks' too, as the authors
do for PNASNet; all."""

FINE_TUNING = help_group("Fine-tuning", 3)
FEATURES = help_group("Features", 6)

ImageCount: TypeAlias = Annotated[Whole, Rule("at least 2", lambda value: value >= 2)]
"""A variance needs two images."""


@FINE_TUNING
@dataclass(frozen=True, kw_only=True)
class TrainableSettings(Settings):
    """What fine-tuning trains, and on which images; `fixres` takes these too."""

    trainable: TrainableParts | None = None
    """Which parameters fine-tuning trains: the classifier's (classifier), those of the last norm before the pooling too
    (classifier+norm, as in the paper), those of the last blocks too (last-blocks), or all. Left out: classifier, or
    classifier+norm with --method sgd."""

    norm_stats: Annotated[bool, Parameter(negative="--no-norm-stats")] = True
    """Re-estimate the running statistics of the last norm at the test resolution."""

    augmentation: Literal["v1", "v2", "train"] = "v2"
    """Images to fine-tune on: test crops (v1); test crops mirrored, shifted and slightly jittered (v2); or training
    crops (train)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.norm_stats and self.trainable in {"last-blocks", "all"}:
            raise ConfigError(
                f"--no-norm-stats goes with --trainable classifier or classifier+norm; found --trainable "
                f"{self.trainable}"
            )


@FINE_TUNING
@dataclass(frozen=True, kw_only=True)
class BlocksSettings(Settings):
    """How much ``--trainable last-blocks`` trains."""

    num_blocks: Count = 1
    """Blocks before the classifier that --trainable last-blocks trains; the authors train 3 for PNASNet."""


@FINE_TUNING
@dataclass(frozen=True, kw_only=True)
class TuningSettings(TrainableSettings, OptimizerSettings):
    """Settings that the methods which train share."""

    epochs: Count = 8
    """Passes over the training images, or over their features."""

    base_lr: Positive | None = None
    """Peak learning rate for a global batch of 256 images; if left out 0.2, or 0.02 with --trainable last-blocks or
    all, whose layers have been trained before."""

    @property
    def rate(self) -> float:
        """Peak learning rate for a global batch of 256 images."""
        return self.base_lr or (0.02 if self.trainable in {"last-blocks", "all"} else 0.2)


@FEATURES
@dataclass(frozen=True, kw_only=True)
class StatisticsSettings(Settings):
    """Settings of the methods that measure activations."""

    statistics_images: ImageCount = 4096
    """Images (about) on which cached-features estimates the last norm's statistics, and frechet fits activations."""


@FEATURES
@dataclass(frozen=True, kw_only=True)
class FeatureSettings(StatisticsSettings):
    """Settings about features that are computed once."""

    augmented_views: Count = 1
    """Augmented views of each image whose features cached-features keeps; epochs take them in turn."""

    feature_dropout: Share = 0.2
    """Share of an image's features that cached-features drops in each step, at random; it stands in for the variety
    that sgd has from new augmented views."""

    feature_memory: NonNegative = 8.0
    """GiB on the device that cached-features may use for features; larger ones go to a file in TMPDIR."""


@dataclass(frozen=True, kw_only=True)
class SgdSettings(BlocksSettings, TuningSettings):
    """What ``--method sgd`` uses: the network runs in every epoch."""

    trainable: TrainableParts = "classifier+norm"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_blocks > 1 and self.trainable != "last-blocks":
            raise ConfigError(f"--num-blocks goes with --trainable last-blocks; found --trainable {self.trainable}")


@dataclass(frozen=True, kw_only=True)
class CachedFeaturesSettings(TuningSettings, FeatureSettings):
    """What ``--method cached-features`` uses: the network runs over the images once."""

    trainable: TrainableParts = "classifier"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trainable != "classifier":
            raise ConfigError(
                f"--method cached-features trains the classifier alone, and not --trainable {self.trainable}; use "
                "--trainable classifier, or --method sgd"
            )


@dataclass(frozen=True, kw_only=True)
class FrechetSettings(StatisticsSettings):
    """What ``--method frechet`` uses: nothing trains."""


MethodSettings: TypeAlias = SgdSettings | CachedFeaturesSettings | FrechetSettings

SETTINGS: dict[Method, type[MethodSettings]] = {
    "sgd": SgdSettings,
    "cached-features": CachedFeaturesSettings,
    "frechet": FrechetSettings,
}

WHY_UNUSED: dict[Method, str] = {
    "sgd": "runs the network in every epoch",
    "cached-features": "trains the classifier alone",
    "frechet": "trains nothing",
}


OF_METHODS = set[str]().union(*map(field_names, SETTINGS.values()))
"""Fields of `FinetuneConfig` that not every method uses."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(DryRunConfig, BlocksSettings, TuningSettings, FeatureSettings):
    """Settings of `dali-fixres finetune`."""

    test_res: Pixels
    """Pixels to fix the network for."""

    checkpoint: Path | None = None
    """Run folder or checkpoint file to start from; the newest `train` run under runs/ if left out. Or give
    --model with --pretrained or --weights."""

    train_res: Pixels | None = None
    """Pixels the network was trained at; frechet takes training crops there. Left out: what the checkpoint or the
    weights were trained at, as far as that is known (176 for torchvision's resnet50), or 224. The network is also
    tested at its own test size: the checkpoint's, the weights', or if that is not known this."""

    method: Method | None = None
    """Run the network over the images once, and train the classifier on the features (cached-features); run it in every
    epoch (sgd); or train nothing, and map features to their distribution in training (frechet). Left out:
    cached-features, or sgd where --trainable is not classifier."""

    def __post_init__(self) -> None:
        method = self.chosen_method
        unused = OF_METHODS - field_names(SETTINGS[method])
        given = given_flags(self, unused)
        if given:
            raise ConfigError(
                f"--method {method} {WHY_UNUSED[method]}, so it has no use for {', '.join(given)}; leave that out"
            )
        _ = self.settings  # checks them
        super().__post_init__()

    @property
    def chosen_method(self) -> Method:
        """The method, also where it is left out."""
        return self.method or ("cached-features" if self.trainable in {None, "classifier"} else "sgd")

    @property
    def settings(self) -> MethodSettings:
        """The settings of the chosen method, with its own defaults where they are left out."""
        settings = SETTINGS[self.chosen_method]
        values = {name: getattr(self, name) for name in field_names(settings)}
        return settings(**{name: value for name, value in values.items() if value is not None})

    @property
    def test_resolution(self) -> Resolution:
        """The resolution to fix the network for."""
        return Resolution(self.test_res, self.ratio)

    def data_values(self) -> DataValues:
        """Return what the flags say about the images of the network that is to be fixed."""
        return {**super().data_values(), "train_res": self.train_res}

    def stored(self) -> dict[str, Any]:
        """Return what describes the run: what all methods share, and what the chosen one uses."""
        shared = {name: value for name, value in super().stored().items() if name not in OF_METHODS}
        settings = self.settings
        rate = {"base_lr": settings.rate} if isinstance(settings, TuningSettings) else {}
        return shared | {"method": self.chosen_method} | plain(asdict(settings)) | rate
