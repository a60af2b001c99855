"""Settings that all commands share, those of commands that run a network, and those of `evaluate` and `analyze`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from dali_fixres.config.images import DataValues, Mean, Std, TestInterpolation, tested_with
from dali_fixres.config.rules import (
    Count,
    CropRatios,
    Fraction,
    Pixels,
    PixelsList,
    Seed,
    Settings,
    Views,
    given_flags,
    help_group,
)
from dali_fixres.errors import ConfigError
from pipelines.dali.choose_decoder import Decode
from pipelines.plan.copies import Copies
from pipelines.resolution import DEFAULT_CROP_RATIO, parse_ratios

__all__ = [
    "AnalyzeConfig",
    "AutoPrecision",
    "Config",
    "Copies",
    "Device",
    "EvaluateConfig",
    "NetworkConfig",
    "OneCropConfig",
    "Precision",
    "PrecisionSettings",
    "plain",
]

Device: TypeAlias = Literal["auto", "cpu", "cuda"]

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
"""What a network's operators compute in: float32, or bfloat16 or float16 where torch's autocast allows it."""

AutoPrecision: TypeAlias = Literal["auto", Precision]

OF_A_NETWORK = (
    "model", "weights", "pretrained", "model_arg", "checkpoint", "test_res", "crop_ratio", "interpolation", "views",
    "save_outputs", "eval_precision",
)  # fmt: skip
"""Flags of `evaluate` that need a network to run."""

NETWORK_AND_MACHINE = help_group("Network and machine", 2)

NOT_STORED = ("config", "json", "resume", "accept_changed_data", "out", "dry_run")
"""Fields about one call of the command, which say nothing about the run."""


@help_group("Data", 1)
@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Settings of every command that reads a data set.

    Each field has its docstring, which is the command line's help.
    """

    data: Path | None = None
    """Folder with train/ and val/ (or test/) class folders, one tree of class folders, a .csv or .jsonl table (path,
    label and perhaps split), a folder with Hugging Face's metadata.csv or .jsonl, WebDataset tar shards, Parquet files,
    or a folder that `prepare` has written. Left out: a synthetic demo data set."""

    val_fraction: Fraction | None = None
    """Share of each class to test on, for data without a split of its own."""

    config: Path | None = None
    """TOML file of flags without their dashes, as in train_res = "128", or a recipe's name (`dali-fixres recipes` lists
    them); flags on the command line win."""

    def stored(self) -> dict[str, Any]:
        """Return what describes the run, in plain types and without what is unset."""
        return plain({name: value for name, value in asdict(self).items() if name not in NOT_STORED})


@NETWORK_AND_MACHINE
@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Config):
    """Settings of every command that runs a network."""

    model: str | None = None
    """A torchvision network (resnet50), or timm/NAME for one of timm's; recognised from --weights if left out."""

    pretrained: bool = False
    """Start from the library's pretrained weights."""

    weights: Path | None = None
    """Start from this file's weights (.pth or .safetensors), averaged ones first."""

    model_arg: tuple[str, ...] = ()
    """KEY=VALUE for the network's constructor, as in pad_type=same; may be repeated."""

    mean: Mean | None = None
    """Mean per channel of images in 0-1, for normalisation, as in 0.5,0.5,0.5. Left out: the checkpoint's, that of the
    weights' own configuration, timm's for the network, or ImageNet's."""

    std: Std | None = None
    """Standard deviation per channel, likewise."""

    batch_size: Count = 64
    """Images per process and step."""

    device: Device = "auto"
    """Where to compute; auto takes a GPU if there is one."""

    workers: Count | None = None
    """DALI's CPU threads; one more than usable cores if left out."""

    decode: Decode = "auto"
    """What decodes images when a GPU computes: the GPU, CPU threads, or the faster of both, timed once per data set
    (auto)."""

    eval_precision: Precision = "fp32"
    """Number format of tests, and of what analyze runs: float32 (fp32); or bfloat16 (bf16) or float16 (fp16, GPUs
    only), which may be faster, and in which close answers tie."""

    seed: Seed = 0
    """Seed of everything random."""

    copies: Copies = "exact"
    """Which resized copies of prepared data to read: the smallest that need no upsampling (exact); the smallest
    with 0.7 of the crop's pixels along each side (fast); or none, but the full images (original)."""

    strict: bool = False
    """Stop at the first image that cannot be read, instead of skipping it."""

    json: Path | None = None
    """Also write the results here, as JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained and self.weights is not None:
            raise ConfigError("--pretrained and --weights are two ways to start; give one of them")
        if self.decode == "gpu" and self.device == "cpu":
            raise ConfigError("--decode gpu needs a GPU, but --device is cpu; take --decode auto")

    def data_values(self) -> DataValues:
        """Return what the flags say about the network's images."""
        return {"mean": self.mean, "std": self.std}

    def default_values(self) -> DataValues:
        """Return what holds of the network's images where the flags do not say it, whatever its weights say."""
        return {}


@NETWORK_AND_MACHINE
@dataclass(frozen=True, kw_only=True)
class PrecisionSettings(Settings):
    """The number format of what makes a network."""

    precision: AutoPrecision = "auto"
    """Number format of training, and of passes for features and statistics: float32 (fp32), or torch's autocast to
    bfloat16 (bf16) or float16 with gradient scaling (fp16, GPUs only). auto takes bf16 on a GPU that has it, fp16 on
    other GPUs, fp32 on a CPU."""


@dataclass(frozen=True, kw_only=True)
class OneCropConfig(NetworkConfig):
    """Settings of commands that use one test crop."""

    crop_ratio: Fraction | None = None
    """Side of the test crop over the length that the shorter side is resized to. Left out: the checkpoint's, that of
    the weights' own configuration, or 0.875."""

    @property
    def ratio(self) -> float:
        """The crop ratio asked for, or the usual one."""
        return DEFAULT_CROP_RATIO if self.crop_ratio is None else self.crop_ratio

    def data_values(self) -> DataValues:
        """Return what the flags say about the network's images."""
        return {**super().data_values(), "crop_ratio": self.crop_ratio}


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(NetworkConfig):
    """Settings of `dali-fixres evaluate`."""

    test_res: PixelsList | None = None
    """Pixels to test at, with commas between: 96,128,160. Left out: what the checkpoint was tested at, the test size of
    the weights' own configuration, or 224."""

    crop_ratio: CropRatios | None = None
    """Side of the test crop over the length that the shorter side is resized to, with commas between several: 0.875,1.
    Left out: the checkpoint's, that of the weights' own configuration, or 0.875."""

    interpolation: TestInterpolation = "auto"
    """Filter that resizes images. auto: the checkpoint's, that of the weights' own configuration, or bilinear."""

    views: Views | None = None
    """Views of each image whose predictions are averaged, with commas between several: the test crop (single, if left
    out); it and its mirror image (flip); the four corners, the centre and their mirror images (ten-crop)."""

    checkpoint: Path | None = None
    """Run folder or checkpoint file; the newest run under runs/ if left out. Or give --model, with --weights,
    --pretrained, or neither to time a network with random weights."""

    class_map: Path | None = None
    """File with the names of the network's outputs, one a line. A class folder belongs to the output of its name, or to
    the output of its number (from 0) if it has a number for a name."""

    only_mapped: bool = False
    """Predict only classes that the data has, as is usual with ImageNet-A and -R."""

    real: Path | None = None
    """ImageNet-ReaL's labels (real.json): the right classes for each number in a validation file's name."""

    save_outputs: Path | None = None
    """Folder to make, for logits, features and labels."""

    from_outputs: Path | None = None
    """Folder that --save-outputs has made: evaluate it, without running a network."""

    before: Path | None = None
    """Results of an earlier evaluate (its --json), to draw in the plot too."""

    plot: Path | None = None
    """Write the plot of accuracy against resolution and images/s here; beside the checkpoint if left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.from_outputs is not None:
            given = given_flags(self, OF_A_NETWORK)
            if given:
                raise ConfigError(
                    f"--from-outputs runs no network, so it has no use for {', '.join(given)}; leave that out"
                )

    def data_values(self) -> DataValues:
        """Return what the flags say about the network's images; of several crop ratios nothing."""
        ratios = parse_ratios(self.crop_ratio) if self.crop_ratio is not None else ()
        return {
            **super().data_values(),
            "interpolation": tested_with(self.interpolation),
            "crop_ratio": ratios[0] if len(ratios) == 1 else None,
        }


@dataclass(frozen=True, kw_only=True)
class AnalyzeConfig(OneCropConfig):
    """Settings of `dali-fixres analyze`."""

    train_res: Pixels | None = None
    """Pixels of the training crops. Left out: what the checkpoint or the weights were trained at, as far as that is
    known, or 224; 128 without a network."""

    test_res: PixelsList = "128,160,192,224"
    """Pixels of the test crops, with commas between."""

    interpolation: TestInterpolation = "auto"
    """Filter that resizes images. auto: the checkpoint's, that of the weights' own configuration, or bilinear."""

    checkpoint: Path | None = None
    """Run folder or checkpoint file whose activations are analysed; the newest run under runs/ if left out. Or give
    --model, with --weights or --pretrained. Without any of these, only sizes are analysed."""

    statistics_images: Count = 4096
    """Images (about) whose activations are analysed."""

    out: Path = Path("analysis")
    """Folder for analysis.json, sizes.png and activations.png."""

    def data_values(self) -> DataValues:
        """Return what the flags say about the network's images."""
        interpolation = tested_with(self.interpolation)
        return {**super().data_values(), "interpolation": interpolation, "train_res": self.train_res}


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings in the types of TOML, without those that are unset."""
    return {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    return list(value) if isinstance(value, tuple) else value
