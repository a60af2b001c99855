"""What the user can say, command by command: each field is a flag, a key of --config files, and a line of help.

Precedence is defaults < recipe or resumed run < ``--config FILE.toml`` < flags. The resolved values are written
into the run folder, in the form that ``--config`` reads.
"""

import json
import math
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from dali_fixres.colour import Normalisation
from dali_fixres.errors import ConfigError, did_you_mean
from dali_fixres.resolution import DEFAULT_CROP_RATIO, Resolution, Schedule, parse_resolutions

__all__ = [
    "Config",
    "Copies",
    "Device",
    "EvaluateConfig",
    "FinetuneConfig",
    "IndexConfig",
    "NetworkConfig",
    "Policy",
    "PrepareConfig",
    "PreviewConfig",
    "StageConfig",
    "TrainConfig",
    "VerifyConfig",
    "to_toml",
]

Device: TypeAlias = Literal["auto", "cpu", "cuda"]

Policy: TypeAlias = Literal["classifier", "classifier+norm-stats", "classifier+norm"]
"""What fine-tuning tunes: the head alone; with the last norm's running statistics, as the authors' code; with
its weights too, as the paper."""

Copies: TypeAlias = Literal["exact", "fast", "original"]
"""Which pre-scaled copies are read: with a pixel for each pixel of the crop, with 0.7 along each side, or none."""

NOT_KEPT = ("config", "json", "resume", "accept_changed_data", "out")
"""Fields about one call of the command, which say nothing about the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What every command knows.

    Attributes are documented one by one: the docstrings are the command line's help.
    """

    data: Path | None = None
    """Folder with train/ and val/ (or test/) class folders, one tree of class folders, or a CSV manifest
    (path,label[,split]). Left out: a synthetic demo data set, made on the spot."""

    val_fraction: float | None = None
    """Share of each class to test on, where the data has no split of its own."""

    config: Path | None = None
    """TOML file of flags without their dashes, as in train_res = "128"; flags on the command line win."""

    def __post_init__(self) -> None:
        if self.val_fraction is not None:
            _check(0 < self.val_fraction <= 1, "--val-fraction", "above 0 and at most 1", self.val_fraction)

    def stored(self) -> dict[str, Any]:
        """Return what describes the run, in plain types and without what is unset."""
        values = asdict(self).items()
        return {name: _plain(value) for name, value in values if name not in NOT_KEPT and value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig(Config):
    """What every command that runs a network knows."""

    model: str | None = None
    """A torchvision network (resnet50), or timm/NAME for one of timm's."""

    pretrained: bool = False
    """Start from the library's pretrained weights."""

    weights: Path | None = None
    """Start from this file's weights (.pth or .safetensors)."""

    model_arg: tuple[str, ...] = ()
    """KEY=VALUE for the network's constructor, as in pad_type=same; may be repeated."""

    mean: tuple[float, float, float] | None = None
    """Mean per channel taken off pictures in 0-1; else the network's own, or ImageNet's."""

    std: tuple[float, float, float] | None = None
    """Standard deviation per channel, likewise."""

    batch_size: int = 64
    """Pictures per process and step."""

    crop_ratio: float | None = None
    """Test crop over the length the shorter side is resized to; the checkpoint's if left out, or 0.875."""

    device: Device = "auto"
    """Where to compute; auto takes a GPU if there is one."""

    workers: int | None = None
    """DALI's CPU threads; all usable cores if left out."""

    seed: int = 0
    """Decides everything random."""

    copies: Copies = "exact"
    """Which copies of prepared data to read: the smallest with a pixel for each pixel of the crop (exact), or with
    0.7 of one (fast), or the pictures themselves (original)."""

    strict: bool = False
    """Stop at the first picture that cannot be read, instead of going on without it."""

    json: Path | None = None
    """Also write the figures here, as JSON."""

    def __post_init__(self) -> None:
        super(NetworkConfig, self).__post_init__()
        _check(self.batch_size >= 1, "--batch-size", "at least 1", self.batch_size)
        _check(self.workers is None or self.workers >= 1, "--workers", "at least 1", self.workers)
        _check(self.seed >= 0, "--seed", "at least 0", self.seed)
        if self.pretrained and self.weights is not None:
            raise ConfigError("--pretrained and --weights are two ways to start; give one of them")
        if self.std is not None:
            _check(all(0 < value < math.inf for value in self.std), "--std", "above 0", self.std)
        if self.mean is not None:
            _check(all(map(math.isfinite, self.mean)), "--mean", "finite", self.mean)
        Resolution(224, self.ratio)

    @property
    def ratio(self) -> float:
        """The crop ratio asked for, or the usual one."""
        return DEFAULT_CROP_RATIO if self.crop_ratio is None else self.crop_ratio

    def normalisation(self, default: Normalisation) -> Normalisation:
        """Return the normalisation asked for, or else `default`'s parts."""
        return Normalisation(self.mean or default.mean, self.std or default.std)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig(NetworkConfig):
    """What `train` and `finetune` share."""

    epochs: int = 30
    """Passes over the training pictures."""

    lr: float | None = None
    """Learning rate at its peak, as it is. Left out: --base-lr scaled by global batch / 256."""

    base_lr: float = 0.1
    """Learning rate for a global batch of 256 pictures."""

    lr_decay: Literal["cosine", "step"] = "cosine"
    """How the learning rate falls: to 0 along a cosine, or to a tenth every third of the epochs."""

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
    """Batch norm over the pictures of all processes (GPUs only)."""

    checkpoint_every: str = "10min"
    """How often to write last.pt within an epoch, in minutes (10min) or steps (500steps)."""

    resume: bool = False
    """Go on with the run in --out, or with the newest one."""

    accept_changed_data: bool = False
    """Go on with a run although pictures have been added, removed or changed since."""

    def __post_init__(self) -> None:
        super(StageConfig, self).__post_init__()
        _ = self.checkpoint_interval
        _check(self.epochs >= 1, "--epochs", "at least 1", self.epochs)
        _check(0 <= self.warmup_ratio < 1, "--warmup-ratio", "from 0 to below 1", self.warmup_ratio)
        _check(0 <= self.momentum < 1, "--momentum", "from 0 to below 1", self.momentum)
        _check(0 <= self.label_smoothing < 1, "--label-smoothing", "from 0 to below 1", self.label_smoothing)
        _check(self.jitter is None or 0 <= self.jitter <= 1, "--jitter", "from 0 to 1", self.jitter)
        for flag, value in (("--lr", self.lr), ("--base-lr", self.base_lr), ("--clip-grad", self.clip_grad)):
            _check(value is None or (value > 0 and math.isfinite(value)), flag, "above 0", value)
        _check(0 <= self.weight_decay < math.inf, "--weight-decay", "at least 0", self.weight_decay)

    @property
    def checkpoint_interval(self) -> tuple[float, Literal["min", "steps"]]:
        """How often to write a checkpoint within an epoch: a number, and its unit."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?(?=\s*min)|\d+)\s*(min|steps?)", self.checkpoint_every.strip())
        number = float(match[1]) if match else 0
        rule = "minutes or steps above 0, as in 10min or 500steps"
        _check(number > 0 and number < math.inf, "--checkpoint-every", rule, repr(self.checkpoint_every))
        return number, "min" if match and match[2] == "min" else "steps"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(StageConfig):
    """Flags of `dali-fixres train`."""

    train_res: str = "128"
    """Pixels of the training crop. Or phases: 96@0,128@8 is 96 px from epoch 0 and 128 px from epoch 8. Or a rise:
    96-192@0-16 goes up in steps of 32 px over the epochs 0 to 16. Each phase may have its own batch size and peak
    learning rate: 96@0:batch=128:lr=0.2."""

    test_res: int | None = None
    """Pixels to test at after each epoch; the last training resolution if left out."""

    repeats: int = 1
    """Copies of each picture in a batch over all processes, each cropped on its own (repeated augmentation)."""

    def __post_init__(self) -> None:
        super(TrainConfig, self).__post_init__()
        with _said_by("--train-res"):
            _ = self.schedule
        with _said_by("--test-res"):
            _ = self.test_resolution
        last_phase = self.schedule.phases[-1]
        _check(self.repeats >= 1, "--repeats", "at least 1", self.repeats)
        rule = f"phases that begin before epoch {self.epochs}"
        _check(last_phase.first_epoch < self.epochs, "--train-res", rule, self.train_res)

    @property
    def schedule(self) -> Schedule:
        """The training resolution of each epoch."""
        return Schedule.parse(self.train_res, self.ratio)

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
    """Pixels the network was trained at, for the table; known from the checkpoint."""

    policy: Policy = "classifier+norm"
    """What learns: the classifier, and of the last norm before the pooling nothing, its running statistics
    (as the authors' code), or its weights too (as the paper)."""

    augmentation: Literal["v1", "v2", "train"] = "v2"
    """What it learns from: test crops; test crops mirrored, shifted and slightly jittered; or training crops."""

    epochs: int = 3
    """Passes over the training pictures."""

    base_lr: float = 0.2
    """Learning rate for a global batch of 256 pictures."""

    def __post_init__(self) -> None:
        super(FinetuneConfig, self).__post_init__()
        with _said_by("--test-res"):
            _ = self.test_resolution
        if self.train_res is not None:
            with _said_by("--train-res"):
                Resolution(self.train_res)

    @property
    def test_resolution(self) -> Resolution:
        """The resolution to fix the network for."""
        return Resolution(self.test_res, self.ratio)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig(NetworkConfig):
    """Flags of `dali-fixres evaluate`."""

    test_res: str | None = None
    """Pixels to test at, with commas between: 96,128,160; what the checkpoint was tested at if left out."""

    checkpoint: Path | None = None
    """Run folder or checkpoint file; the newest run under runs/ if left out. Or give --model, with --weights,
    --pretrained, or neither for a timing run on random weights."""

    plot: Path | None = None
    """Write the plot of accuracy against resolution here; beside the checkpoint if left out."""

    def __post_init__(self) -> None:
        super(EvaluateConfig, self).__post_init__()
        if self.test_res is not None:
            with _said_by("--test-res"):
                parse_resolutions(self.test_res, self.ratio)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig(Config):
    """Flags of `dali-fixres index`."""

    json: Path | None = None
    """Also write the figures here, as JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyConfig:
    """Flags of `dali-fixres verify`."""

    workers: int | None = None
    """Pictures decoded at once; one per usable core if left out."""

    out: Path = Path("unreadable.txt")
    """Where the unreadable files are listed."""

    json: Path | None = None
    """Also write the figures here, as JSON."""

    def __post_init__(self) -> None:
        _check(self.workers is None or self.workers >= 1, "--workers", "at least 1", self.workers)


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """Flags of `dali-fixres prepare`."""

    rungs: str = "160,256,384"
    """Shorter sides of the copies in pixels, ascending, with commas between; no picture is enlarged."""

    max_side: int = 500
    """Longest side of the full copy in pixels; longer pictures are scaled down to it."""

    full: bool = True
    """Also write a full copy of each picture. Without (--no-full), the pictures stay where they are and are read there
    when no rung is large enough."""

    quality: int = 90
    """JPEG quality of all copies."""

    layout: Literal["shards", "folder"] = "shards"
    """WebDataset tar shards, or a file per copy in class folders."""

    shard_size: int = 1000
    """Pictures per shard."""

    val_fraction: float | None = None
    """Share of each class to test on, where the data has no split of its own."""

    workers: int | None = None
    """Processes; one per usable core if left out."""

    def __post_init__(self) -> None:
        sides = self.sides
        _check(sides[0] >= 32 and list(sides) == sorted(set(sides)), "--rungs", "ascending, from 32 px on", self.rungs)
        if self.full:
            _check(self.max_side > sides[-1], "--max-side", f"above the largest rung, {sides[-1]}", self.max_side)
        elif self.layout == "folder":
            raise ConfigError("--no-full needs --layout shards; class folders hold the full copies too")
        _check(1 <= self.quality <= 95, "--quality", "from 1 to 95", self.quality)
        _check(self.shard_size >= 1, "--shard-size", "at least 1", self.shard_size)
        _check(self.workers is None or self.workers >= 1, "--workers", "at least 1", self.workers)

    @property
    def sides(self) -> tuple[int, ...]:
        """Shorter sides of the rungs, as given."""
        words = self.rungs.split(",")
        _check(all(word.strip().isdigit() for word in words), "--rungs", "whole numbers, as in 160,256,384", self.rungs)
        return tuple(map(int, words))


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviewConfig(Config):
    """Flags of `dali-fixres preview`."""

    train_res: int = 128
    """Pixels of the training crops."""

    test_res: str = "128,224"
    """Pixels of the test crops, with commas between."""

    num_images: int = 6
    """Pictures to show, one a row."""

    out: Path = Path("preview.png")
    """The PNG to write."""

    seed: int = 0
    """Decides which pictures, and which training crops."""

    def __post_init__(self) -> None:
        super(PreviewConfig, self).__post_init__()
        with _said_by("--train-res"):
            Resolution(self.train_res)
        with _said_by("--test-res"):
            parse_resolutions(self.test_res)
        _check(self.seed >= 0, "--seed", "at least 0", self.seed)
        _check(1 <= self.num_images <= 64, "--num-images", "from 1 to 64", self.num_images)


def to_toml(values: dict[str, Any]) -> str:
    """Write flat values as TOML; strings, numbers, truth values and lists are written alike in JSON and TOML."""
    lines = (f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())
    return "".join(lines).replace("\x7f", "\\u007f")  # the one character that JSON takes as it is and TOML does not


def read_toml(path: Path, known: set[str]) -> dict[str, Any]:
    """Read a config file and check its keys.

    Raises:
        ConfigError: If it cannot be read, is no TOML, or has a key that is no flag.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read --config {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--config {path} is not valid TOML: {error}") from error
    keys = {key.replace("-", "_"): key for key in values}
    for name, key in keys.items():
        if name not in known:
            raise ConfigError(f"--config {path} has an unknown key {key!r}{did_you_mean(name, known)}")
    return {name: values[key] for name, key in keys.items()}


def _check(holds: bool, flag: str, rule: str, found: object) -> None:
    if not holds:
        raise ConfigError(f"{flag} must be {rule}; found {found}")


@contextmanager
def _said_by(flag: str) -> Iterator[None]:
    """Name the flag in the error of what it was made into."""
    try:
        yield
    except ConfigError as error:
        raise error if flag in str(error) else ConfigError(f"{flag}: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    return list(value) if isinstance(value, tuple) else value
