"""Settings of commands that read data and run no network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from dali_fixres.config.network import Config
from dali_fixres.config.rules import Count, Fraction, Parsed, Pixels, PixelsList, Seed, Settings, Whole, between
from dali_fixres.errors import ConfigError
from pipelines.resolution import MIN_RESOLUTION_PX

__all__ = ["IndexConfig", "PrepareConfig", "PreviewConfig", "VerifyConfig"]


def _sides(text: str) -> tuple[int, ...]:
    """Read ``160,256`` into shorter sides of copies, pixels."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise ConfigError(f"--sizes must be whole numbers, as in 160,256,384; found {text!r}")
    sides = tuple(map(int, words))
    if sides[0] < MIN_RESOLUTION_PX or list(sides) != sorted(set(sides)):
        raise ConfigError(f"--sizes must be ascending, from {MIN_RESOLUTION_PX} px on; found {text!r}")
    return sides


@dataclass(frozen=True, kw_only=True)
class IndexConfig(Config):
    """Settings of `dali-fixres index`."""

    json: Path | None = None
    """Also write the results here, as JSON."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(Settings):
    """Settings of `dali-fixres verify`."""

    workers: Count | None = None
    """Images decoded at once; one per usable core if left out."""

    out: Path = Path("unreadable.txt")
    """List of the unreadable files to write."""

    json: Path | None = None
    """Also write the results here, as JSON."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(Settings):
    """Settings of `dali-fixres prepare`."""

    sizes: Annotated[str, Parsed(_sides)] = "160,256,384"
    """Shorter sides of the resized copies in pixels, ascending, with commas between; no image is enlarged."""

    max_side: Count = 500
    """Longest side of the full copy in pixels; longer images are scaled down to it."""

    full: Annotated[bool, Parameter(negative="--no-full")] = True
    """Also write a full copy of each image. Without (--no-full), the images stay where they are and are read there
    when no resized copy is large enough."""

    quality: Annotated[Whole, between(1, 95)] = 90
    """JPEG quality of all copies."""

    layout: Literal["shards", "folder"] = "shards"
    """WebDataset tar shards, or one file per copy in class folders."""

    shard_size: Count = 1000
    """Images per shard."""

    val_fraction: Fraction | None = None
    """Share of each class to test on, for data without a split of its own."""

    workers: Count | None = None
    """Processes; one per usable core if left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.full and self.max_side <= self.sides[-1]:
            raise ConfigError(
                f"--max-side must be above the largest of --sizes, {self.sides[-1]}; found {self.max_side}"
            )
        if not self.full and self.layout == "folder":
            raise ConfigError("--no-full needs --layout shards; class folders hold the full copies too")

    @property
    def sides(self) -> tuple[int, ...]:
        """Shorter sides of the resized copies, pixels."""
        return _sides(self.sizes)


@dataclass(frozen=True, kw_only=True)
class PreviewConfig(Config):
    """Settings of `dali-fixres preview`."""

    train_res: Pixels = 128
    """Pixels of the training crops."""

    test_res: PixelsList = "128,224"
    """Pixels of the test crops, with commas between."""

    num_images: Annotated[Whole, between(1, 64)] = 6
    """Images to show, one a row."""

    out: Path = Path("preview.png")
    """The PNG to write."""

    seed: Seed = 0
    """Seed of the images and training crops that are drawn."""
