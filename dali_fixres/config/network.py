"""What commands that run a network can be told, and what all of them share."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from dali_fixres.config.checks import check, flag_context
from dali_fixres.errors import ConfigError
from pipelines.dali.decoding import Decode
from pipelines.plan.colour import Normalisation
from pipelines.plan.copies import Copies
from pipelines.plan.views import parse_views
from pipelines.resolution import DEFAULT_CROP_RATIO, Resolution, parse_ratios, parse_resolutions

__all__ = ["AnalyzeConfig", "Config", "Copies", "Device", "EvaluateConfig", "NetworkConfig", "OneCropConfig"]

Device: TypeAlias = Literal["auto", "cpu", "cuda"]

OF_A_NETWORK = (
    "model", "weights", "pretrained", "model_arg", "checkpoint", "test_res", "crop_ratio", "views", "save_outputs",
)  # fmt: skip
"""Flags of `evaluate` that need a network to run."""

NOT_KEPT = ("config", "json", "resume", "accept_changed_data", "out", "dry_run")
"""Fields about one call of the command, which say nothing about the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What every command knows.

    Attributes are documented one by one: the docstrings are the command line's help.
    """

    data: Path | None = None
    """Folder with train/ and val/ (or test/) class folders, one tree of class folders, a .csv or .jsonl table (path,
    label and perhaps split), a folder with Hugging Face's metadata.csv or .jsonl, WebDataset tar shards, Parquet files,
    or what `prepare` has written. Left out: a synthetic demo data set, made on the spot."""

    val_fraction: float | None = None
    """Share of each class to test on, where the data has no split of its own."""

    config: Path | None = None
    """TOML file of flags without their dashes, as in train_res = "128", or a recipe's name (`dali-fixres recipes` lists
    them); flags on the command line win."""

    def __post_init__(self) -> None:
        if self.val_fraction is not None:
            check(0 < self.val_fraction <= 1, "--val-fraction", "above 0 and at most 1", self.val_fraction)

    def stored(self) -> dict[str, Any]:
        """Return what describes the run, in plain types and without what is unset."""
        values = asdict(self).items()
        return {name: _plain(value) for name, value in values if name not in NOT_KEPT and value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig(Config):
    """What every command that runs a network knows."""

    model: str | None = None
    """A torchvision network (resnet50), or timm/NAME for one of timm's; recognised from --weights if left out."""

    pretrained: bool = False
    """Start from the library's pretrained weights."""

    weights: Path | None = None
    """Start from this file's weights (.pth or .safetensors), averaged ones first."""

    model_arg: tuple[str, ...] = ()
    """KEY=VALUE for the network's constructor, as in pad_type=same; may be repeated."""

    mean: tuple[float, float, float] | None = None
    """Mean per channel taken off images in 0-1; else the network's own, or ImageNet's."""

    std: tuple[float, float, float] | None = None
    """Standard deviation per channel, likewise."""

    batch_size: int = 64
    """Images per process and step."""

    device: Device = "auto"
    """Where to compute; auto takes a GPU if there is one."""

    workers: int | None = None
    """DALI's CPU threads; one more than usable cores if left out."""

    decode: Decode = "auto"
    """What decodes images when a GPU computes: the GPU, CPU threads, or the faster of both, timed once per data set
    (auto)."""

    seed: int = 0
    """Decides everything random."""

    copies: Copies = "exact"
    """Which copies of prepared data to read: the smallest with a pixel for each pixel of the crop (exact), or with
    0.7 of one (fast), or the images themselves (original)."""

    strict: bool = False
    """Stop at the first image that cannot be read, instead of going on without it."""

    json: Path | None = None
    """Also write the figures here, as JSON."""

    def __post_init__(self) -> None:
        super(NetworkConfig, self).__post_init__()
        check(self.batch_size >= 1, "--batch-size", "at least 1", self.batch_size)
        check(self.workers is None or self.workers >= 1, "--workers", "at least 1", self.workers)
        check(self.seed >= 0, "--seed", "at least 0", self.seed)
        if self.pretrained and self.weights is not None:
            raise ConfigError("--pretrained and --weights are two ways to start; give one of them")
        if self.decode == "gpu" and self.device == "cpu":
            raise ConfigError("--decode gpu needs a GPU, but --device is cpu; take --decode auto")
        if self.std is not None:
            check(all(0 < value < math.inf for value in self.std), "--std", "above 0", self.std)
        if self.mean is not None:
            check(all(map(math.isfinite, self.mean)), "--mean", "finite", self.mean)

    def normalisation(self, default: Normalisation) -> Normalisation:
        """Return the normalisation asked for, or else `default`'s parts."""
        return Normalisation(self.mean or default.mean, self.std or default.std)


@dataclass(frozen=True, kw_only=True, slots=True)
class OneCropConfig(NetworkConfig):
    """What commands know that look at test images in one way."""

    crop_ratio: float | None = None
    """Test crop over the length the shorter side is resized to; the checkpoint's if left out, or 0.875."""

    def __post_init__(self) -> None:
        super(OneCropConfig, self).__post_init__()
        Resolution(224, self.ratio)

    @property
    def ratio(self) -> float:
        """The crop ratio asked for, or the usual one."""
        return DEFAULT_CROP_RATIO if self.crop_ratio is None else self.crop_ratio


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig(NetworkConfig):
    """Flags of `dali-fixres evaluate`."""

    test_res: str | None = None
    """Pixels to test at, with commas between: 96,128,160; what the checkpoint was tested at if left out."""

    crop_ratio: str | None = None
    """Test crop over the length the shorter side is resized to, with commas between several: 0.875,1; the
    checkpoint's if left out, or 0.875."""

    views: str | None = None
    """Looks at each image whose answers are averaged, with commas between: the test crop (single, if left out); it
    and its mirror image (flip); the four corners and the centre, and their mirror images (ten-crop)."""

    checkpoint: Path | None = None
    """Run folder or checkpoint file; the newest run under runs/ if left out. Or give --model, with --weights,
    --pretrained, or neither for a timing run on random weights."""

    class_map: Path | None = None
    """File with the names of the network's outputs, one a line: each class folder of the data is the output of its
    name, or where it has none but is named by a number, of that number (from 0)."""

    only_mapped: bool = False
    """Answer with outputs that the data has a class for, and no others, as is usual with ImageNet-A and -R."""

    real: Path | None = None
    """ImageNet-ReaL's labels (real.json): for each number in a validation file's name the classes that are right."""

    save_outputs: Path | None = None
    """Folder to make, for logits, features and labels."""

    from_outputs: Path | None = None
    """Folder that --save-outputs has made: the figures of it, without running a network."""

    before: Path | None = None
    """What evaluate has written with --json before: also drawn in the plot."""

    plot: Path | None = None
    """Write the plot of accuracy against resolution and images/s here; beside the checkpoint if left out."""

    def __post_init__(self) -> None:
        super(EvaluateConfig, self).__post_init__()
        if self.test_res is not None:
            with flag_context("--test-res"):
                parse_resolutions(self.test_res)
        if self.crop_ratio is not None:
            parse_ratios(self.crop_ratio)
        if self.views is not None:
            parse_views(self.views)
        if self.from_outputs is not None:
            for name in OF_A_NETWORK:
                if getattr(self, name):
                    flag = f"--{name.replace('_', '-')}"
                    raise ConfigError(f"--from-outputs runs no network and takes all that is saved; leave {flag} out")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnalyzeConfig(OneCropConfig):
    """Flags of `dali-fixres analyze`."""

    train_res: int | None = None
    """Pixels of the training crops; what the checkpoint was trained at if left out, or 128."""

    test_res: str = "128,160,192,224"
    """Pixels of the test crops, with commas between."""

    checkpoint: Path | None = None
    """Run folder or checkpoint file whose activations are looked at; the newest run under runs/ if left out. Or give
    --model, with --weights or --pretrained. Where there is none of all these, only sizes are analysed."""

    statistics_images: int = 4096
    """Images (about) whose activations are looked at."""

    out: Path = Path("analysis")
    """Folder for analysis.json, sizes.png and activations.png."""

    def __post_init__(self) -> None:
        super(AnalyzeConfig, self).__post_init__()
        with flag_context("--test-res"):
            parse_resolutions(self.test_res, self.ratio)
        if self.train_res is not None:
            with flag_context("--train-res"):
                Resolution(self.train_res, self.ratio)
        check(self.statistics_images >= 1, "--statistics-images", "at least 1", self.statistics_images)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    return list(value) if isinstance(value, tuple) else value
