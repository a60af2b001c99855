"""Settings of `train`, and what it shares with `finetune` and `fixres`."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from dali_fixres.config.images import DataValues, InterpolationFlag, tested_with
from dali_fixres.config.network import OneCropConfig, PrecisionSettings
from dali_fixres.config.rules import (
    Count,
    NonNegative,
    Parsed,
    Pixels,
    Positive,
    Settings,
    Share,
    Strength,
    given_flags,
    help_group,
)
from dali_fixres.errors import ConfigError
from pipelines.resolution import Resolution, Schedule

__all__ = ["DryRunConfig", "OptimizerSettings", "RunConfig", "TrainConfig", "TrainingConfig"]

AUGMENTATION = "Augmentation"
RUN = help_group("Run", 7)


def _interval(text: str) -> tuple[float, Literal["min", "steps"]]:
    """Read ``10min`` or ``500steps`` into a number and its unit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?=\s*min)|\d+)\s*(min|steps?)", text.strip())
    number = float(match[1]) if match else 0
    if match is None or not 0 < number < math.inf:
        raise ConfigError(
            f"--checkpoint-every must be minutes or steps above 0, as in 10min or 500steps; found {text!r}"
        )
    return number, "min" if match[2] == "min" else "steps"


@help_group("Optimisation", 5)
@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Settings):
    """What every training by gradient descent needs to know."""

    epochs: Count = 30
    """Passes over the training images."""

    lr: Positive | None = None
    """Peak learning rate, not scaled. Left out: --base-lr scaled by global batch / 256."""

    base_lr: Positive | None = None
    """Peak learning rate for a global batch of 256 images; 0.1 if left out."""

    lr_decay: Literal["cosine", "step"] = "cosine"
    """How the learning rate falls: to 0 along a cosine, or in steps to a tenth."""

    decay_epochs: Count | None = None
    """Epochs between the steps of --lr-decay step; a third of all if left out."""

    warmup_ratio: Share = 0.0
    """Share of all steps over which the learning rate first rises."""

    momentum: Share = 0.9
    """Nesterov momentum of SGD."""

    weight_decay: NonNegative = 1e-4
    """Weight decay; norms and biases have none."""

    label_smoothing: Share = 0.0
    """Share of each label spread over all classes."""

    clip_grad: Positive | None = None
    """Largest norm of the gradient; no limit if left out."""

    sync_bn: bool = False
    """Synchronise batch norm over all processes (GPUs only)."""

    checkpoint_every: Annotated[str, Parsed(_interval)] = "10min"
    """How often to write last.pt within an epoch, in minutes (10min) or steps (500steps)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay_epochs is not None and self.lr_decay != "step":
            raise ConfigError(f"--decay-epochs goes with --lr-decay step; found --lr-decay {self.lr_decay}")

    @property
    def rate(self) -> float:
        """Peak learning rate for a global batch of 256 images."""
        return self.base_lr or 0.1

    @property
    def checkpoint_interval(self) -> tuple[float, Literal["min", "steps"]]:
        """How often to write a checkpoint within an epoch: a number, and its unit."""
        return _interval(self.checkpoint_every)


@help_group(AUGMENTATION, 4)
@dataclass(frozen=True, kw_only=True)
class AugmentationSettings(Settings):
    """What every training may change of its augmentation."""

    color_jitter: Strength | None = None
    """Strength of the colour jitter; the augmentation's own if left out."""

    interpolation: InterpolationFlag = "auto"
    """Filter that resizes images, in training and in tests. random draws bilinear or bicubic for each training image,
    and tests as auto does: with the checkpoint's, that of the weights' own configuration, or bilinear."""


@RUN
@dataclass(frozen=True, kw_only=True)
class RunConfig(OneCropConfig, PrecisionSettings, AugmentationSettings):
    """Settings of commands that make a run folder."""

    out: Path | None = None
    """Run folder to make; runs/TIME-COMMAND if left out."""

    resume: bool = False
    """Resume the run in --out; train and finetune take the newest one if that is left out."""

    accept_changed_data: bool = False
    """Resume a run although images have been added, removed or changed since."""

    def data_values(self) -> DataValues:
        """Return what the flags say about the network's images; what is drawn in training says nothing about tests."""
        return {**super().data_values(), "interpolation": tested_with(self.interpolation)}


@RUN
@dataclass(frozen=True, kw_only=True)
class DryRunConfig(RunConfig):
    """Settings of commands that can be described instead of run."""

    dry_run: bool = False
    """Show what would be done (network, trained parameters, steps, learning rates, work), and stop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dry_run and self.resume:
            raise ConfigError("--dry-run shows what a new run would do; leave --resume out")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(RunConfig, OptimizerSettings):
    """Settings that `train` and `fixres` share."""

    train_res: Annotated[str, Parsed(Schedule.parse)] = "128"
    """Side of the training crop in pixels. Or phases: 96@0,128@8 is 96 px from epoch 0 and 128 px from epoch 8. Or
    progressive resizing: 96-192@0-16 goes up in steps of 32 px over the epochs 0 to 16. Each phase may have its own
    batch size and peak learning rate: 96@0:batch=128:lr=0.2."""

    aug_repeats: Annotated[Count, Parameter(group=AUGMENTATION)] = 1
    """How often each image is in a global batch, each time with its own crop (repeated augmentation)."""

    compile: bool = False
    """Train with torch.compile; all resolutions of --train-res are compiled before training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule.phases[-1].first_epoch >= self.epochs:
            raise ConfigError(
                f"--train-res must be phases that begin before epoch {self.epochs}; found {self.train_res}"
            )

    @property
    def schedule(self) -> Schedule:
        """The training resolution of each epoch."""
        return Schedule.parse(self.train_res, self.ratio)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainingConfig, DryRunConfig):
    """Settings of `dali-fixres train`."""

    test_res: Pixels | None = None
    """Pixels to test at after each epoch; the last training resolution if left out."""

    @property
    def test_resolution(self) -> Resolution:
        """The resolution of the evaluation after each epoch."""
        return self.schedule.last if self.test_res is None else Resolution(self.test_res, self.ratio)

    def data_values(self) -> DataValues:
        """Return what the flags say about the network's images."""
        train_res = self.schedule.last.crop_px if given_flags(self, {"train_res"}) else None
        return {**super().data_values(), "train_res": train_res, "test_res": self.test_res}

    def default_values(self) -> DataValues:
        """Return the sizes: it is trained and tested here, and no longer for those of its weights."""
        return {"train_res": self.schedule.last.crop_px, "test_res": self.test_resolution.crop_px}
