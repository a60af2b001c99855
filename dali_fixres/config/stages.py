"""What `train` and `finetune` can be told."""

import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeAlias

from dali_fixres.config.checks import check, flag_context
from dali_fixres.config.network import OneCropConfig
from dali_fixres.errors import ConfigError
from pipelines.resolution import Resolution, Schedule

__all__ = ["FinetuneConfig", "Method", "Policy", "StageConfig", "TrainConfig", "TrainingConfig"]

Policy: TypeAlias = Literal["classifier", "classifier+norm-stats", "classifier+norm", "last-block", "all"]
"""What fine-tuning tunes: the head alone; with the last norm's running statistics, as the authors' code; with
its weights too, as the paper; with the last blocks, as the authors do for PNASNet; the whole network."""


Method: TypeAlias = Literal["sgd", "one-pass", "frechet"]
"""How fine-tuning learns: by running the network in every epoch, or once, to learn from the features it gives; or not
at all, but by mapping the features to where they lie in training."""

KEEPING_FEATURES: tuple[Policy, ...] = ("classifier", "classifier+norm-stats")
"""Policies under which features stay what they are while the classifier learns."""

UNUSED_BY_FRECHET = (
    "epochs", "lr", "base_lr", "lr_decay", "warmup_ratio", "momentum", "weight_decay", "label_smoothing", "clip_grad",
    "sync_bn", "checkpoint_every", "policy", "blocks", "augmentation", "views", "feature_dropout", "feature_memory",
)  # fmt: skip
"""Settings of something that learns."""

UNUSED_BY_SGD = ("views", "feature_dropout", "statistics_images", "feature_memory")
"""Settings of looks that are taken once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig(OneCropConfig):
    """What `train` and `finetune` share."""

    epochs: int = 30
    """Passes over the training images."""

    lr: float | None = None
    """Learning rate at its peak, as it is. Left out: --base-lr scaled by global batch / 256."""

    base_lr: float | None = None
    """Learning rate for a global batch of 256 images; the command's own if left out."""

    lr_decay: Literal["cosine", "step"] = "cosine"
    """How the learning rate falls: to 0 along a cosine, or in steps to a tenth."""

    decay_epochs: int | None = None
    """Epochs between the falls of --lr-decay step; a third of all if left out."""

    warmup_ratio: float = 0.0
    """Share of all steps over which the learning rate first rises."""

    momentum: float = 0.9
    """Nesterov momentum of SGD."""

    weight_decay: float = 1e-4
    """Not applied to norms and biases."""

    label_smoothing: float = 0.0
    """Share of each label spread over all classes."""

    clip_grad: float | None = None
    """Largest norm of the gradient; no limit if left out."""

    jitter: float | None = None
    """Strength of the colour jitter; the augmentation's own if left out."""

    out: Path | None = None
    """Run folder to make; runs/TIME-COMMAND if left out."""

    sync_bn: bool = False
    """Batch norm over the images of all processes (GPUs only)."""

    checkpoint_every: str = "10min"
    """How often to write last.pt within an epoch, in minutes (10min) or steps (500steps)."""

    resume: bool = False
    """Go on with the run in --out, or with the newest one."""

    accept_changed_data: bool = False
    """Go on with a run although images have been added, removed or changed since."""

    dry_run: bool = False
    """Say what train or finetune would do (network, what learns, steps, learning rates, work), and do none of it."""

    def __post_init__(self) -> None:
        super(StageConfig, self).__post_init__()
        _ = self.checkpoint_interval
        check(self.epochs >= 1, "--epochs", "at least 1", self.epochs)
        check(self.decay_epochs is None or self.decay_epochs >= 1, "--decay-epochs", "at least 1", self.decay_epochs)
        if self.decay_epochs is not None and self.lr_decay != "step":
            raise ConfigError(f"--decay-epochs goes with --lr-decay step; found --lr-decay {self.lr_decay}")
        if self.dry_run and self.resume:
            raise ConfigError("--dry-run says what a new run would do; leave --resume out")
        check(0 <= self.warmup_ratio < 1, "--warmup-ratio", "from 0 to below 1", self.warmup_ratio)
        check(0 <= self.momentum < 1, "--momentum", "from 0 to below 1", self.momentum)
        check(0 <= self.label_smoothing < 1, "--label-smoothing", "from 0 to below 1", self.label_smoothing)
        check(self.jitter is None or 0 <= self.jitter <= 1, "--jitter", "from 0 to 1", self.jitter)
        for flag, value in (("--lr", self.lr), ("--base-lr", self.base_lr), ("--clip-grad", self.clip_grad)):
            check(value is None or (value > 0 and math.isfinite(value)), flag, "above 0", value)
        check(0 <= self.weight_decay < math.inf, "--weight-decay", "at least 0", self.weight_decay)

    @property
    def unused(self) -> frozenset[str]:
        """Settings that nothing depends on."""
        return frozenset()

    @property
    def checkpoint_interval(self) -> tuple[float, Literal["min", "steps"]]:
        """How often to write a checkpoint within an epoch: a number, and its unit."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?(?=\s*min)|\d+)\s*(min|steps?)", self.checkpoint_every.strip())
        number = float(match[1]) if match else 0
        rule = "minutes or steps above 0, as in 10min or 500steps"
        check(number > 0 and number < math.inf, "--checkpoint-every", rule, repr(self.checkpoint_every))
        return number, "min" if match and match[2] == "min" else "steps"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig(StageConfig):
    """What every command that trains a network knows."""

    train_res: str = "128"
    """Pixels of the training crop. Or phases: 96@0,128@8 is 96 px from epoch 0 and 128 px from epoch 8. Or a rise:
    96-192@0-16 goes up in steps of 32 px over the epochs 0 to 16. Each phase may have its own batch size and peak
    learning rate: 96@0:batch=128:lr=0.2."""

    repeats: int = 1
    """Copies of each image in a batch over all processes, each cropped on its own (repeated augmentation)."""

    compile: bool = False
    """Train a network that torch.compile has made faster, for all of --train-res before training begins."""

    def __post_init__(self) -> None:
        super(TrainingConfig, self).__post_init__()
        with flag_context("--train-res"):
            _ = self.schedule
        last_phase = self.schedule.phases[-1]
        check(self.repeats >= 1, "--repeats", "at least 1", self.repeats)
        rule = f"phases that begin before epoch {self.epochs}"
        check(last_phase.first_epoch < self.epochs, "--train-res", rule, self.train_res)

    @property
    def rate(self) -> float:
        """Learning rate for a global batch of 256 images."""
        return self.base_lr or 0.1

    @property
    def schedule(self) -> Schedule:
        """The training resolution of each epoch."""
        return Schedule.parse(self.train_res, self.ratio)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(TrainingConfig):
    """Flags of `dali-fixres train`."""

    test_res: int | None = None
    """Pixels to test at after each epoch; the last training resolution if left out."""

    def __post_init__(self) -> None:
        super(TrainConfig, self).__post_init__()
        with flag_context("--test-res"):
            _ = self.test_resolution

    @property
    def test_resolution(self) -> Resolution:
        """The resolution of the evaluation after each epoch."""
        return self.schedule.last if self.test_res is None else Resolution(self.test_res, self.ratio)


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig(StageConfig):
    """Flags of `dali-fixres finetune`."""

    test_res: int
    """Pixels to fix the network for."""

    checkpoint: Path | None = None
    """Run folder or checkpoint file to start from; the newest `train` run under runs/ if left out. Or give
    --model with --pretrained or --weights."""

    train_res: int | None = None
    """Pixels the network was trained at, where it is tested too, and where frechet looks at training crops; the
    checkpoint's if left out, or 224 for a network by name."""

    method: Method | None = None
    """How it learns: the network runs over the images once, and the classifier learns from the features it gives
    (one-pass), or it runs in every epoch (sgd). Or nothing learns, and features are mapped to where they lie in
    training (frechet). Left out: one-pass, or sgd with a --policy that changes what comes before the classifier by
    learning."""

    policy: Policy | None = None
    """What learns: the classifier, and of the last norm before the pooling nothing, its running statistics
    (as the authors' code), or its weights too (as the paper); or the last blocks; or all. Left out:
    classifier+norm-stats, or classifier+norm with sgd."""

    blocks: int = 1
    """Blocks before the classifier that --policy last-block tunes; the authors tune 3 for PNASNet."""

    augmentation: Literal["v1", "v2", "train"] = "v2"
    """What it learns from: test crops; test crops mirrored, shifted and slightly jittered; or training crops."""

    views: int = 1
    """Looks at each image whose features one-pass keeps; epochs take them in turn."""

    feature_dropout: float = 0.2
    """Share of an image's features that one-pass leaves out in each step, others each time: it stands in for the
    variety that sgd has from new looks."""

    statistics_images: int = 4096
    """Images (about) from which one-pass measures the last norm's statistics, and frechet fits activations."""

    feature_memory: float = 8.0
    """GiB that one-pass may take on the device for features; larger ones go to a file in TMPDIR."""

    epochs: int = 8
    """Passes over the training images, or over their features."""

    base_lr: float | None = None
    """Learning rate for a global batch of 256 images; if left out 0.2, or with last-block and all, whose layers
    have been trained before, 0.02."""

    def __post_init__(self) -> None:
        super(FinetuneConfig, self).__post_init__()
        with flag_context("--test-res"):
            _ = self.test_resolution
        self._check_frechet()
        check(self.blocks >= 1, "--blocks", "at least 1", self.blocks)
        if self.blocks > 1 and self.policy != "last-block":
            raise ConfigError(f"--blocks goes with --policy last-block; found --policy {self.tuned}")
        check(self.views >= 1, "--views", "at least 1", self.views)
        check(0 <= self.feature_dropout < 1, "--feature-dropout", "from 0 to below 1", self.feature_dropout)
        check(self.statistics_images >= 2, "--statistics-images", "at least 2", self.statistics_images)
        check(self.feature_memory >= 0, "--feature-memory", "at least 0", self.feature_memory)
        if self.chosen == "one-pass" and self.tuned not in KEEPING_FEATURES:
            raise ConfigError(
                f"--method one-pass keeps everything before the classifier as it is, and --policy {self.tuned} does "
                "not; use --policy classifier+norm-stats, or --method sgd"
            )
        said = self._said(UNUSED_BY_SGD)
        if self.chosen == "sgd" and said:
            raise ConfigError(f"--method sgd looks at its images anew in every epoch, and has no use for {said}")
        if self.train_res is not None:
            with flag_context("--train-res"):
                Resolution(self.train_res)

    def _check_frechet(self) -> None:
        """Raise ConfigError if the method learns nothing and is told how to learn."""
        said = self._said(UNUSED_BY_FRECHET)
        if self.method == "frechet" and said:
            raise ConfigError(f"--method frechet learns nothing, so it has no use for {said}; leave that out")

    def _said(self, names: tuple[str, ...]) -> str:
        """Return the flags, of some, that have been given other values than their own."""
        default = {field.name: field.default for field in fields(self)}
        return ", ".join(f"--{name.replace('_', '-')}" for name in names if getattr(self, name) != default[name])

    @property
    def rate(self) -> float:
        """Learning rate for a global batch of 256 images."""
        return self.base_lr or (0.02 if self.tuned in {"last-block", "all"} else 0.2)

    @property
    def unused(self) -> frozenset[str]:
        """Settings that the method has no use for."""
        unused: dict[Method, tuple[str, ...]] = {"sgd": UNUSED_BY_SGD, "one-pass": (), "frechet": UNUSED_BY_FRECHET}
        return frozenset(unused[self.chosen])

    @property
    def chosen(self) -> Method:
        """How it learns, where that is left out, too."""
        return self.method or ("one-pass" if self.policy in {None, *KEEPING_FEATURES} else "sgd")

    @property
    def tuned(self) -> Policy:
        """What learns; with frechet nothing does."""
        defaults: dict[Method, Policy] = {
            "sgd": "classifier+norm",
            "one-pass": "classifier+norm-stats",
            "frechet": "classifier",
        }
        return self.policy or defaults[self.chosen]

    @property
    def test_resolution(self) -> Resolution:
        """The resolution to fix the network for."""
        return Resolution(self.test_res, self.ratio)
