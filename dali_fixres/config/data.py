"""What commands on data alone can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dali_fixres.config.checks import check, flag_context
from dali_fixres.config.network import Config
from dali_fixres.errors import ConfigError
from pipelines.resolution import Resolution, parse_resolutions

__all__ = ["IndexConfig", "PrepareConfig", "PreviewConfig", "VerifyConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig(Config):
    """Flags of `dali-fixres index`."""

    json: Path | None = None
    """Also write the figures here, as JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyConfig:
    """Flags of `dali-fixres verify`."""

    workers: int | None = None
    """Images decoded at once; one per usable core if left out."""

    out: Path = Path("unreadable.txt")
    """Where the unreadable files are listed."""

    json: Path | None = None
    """Also write the figures here, as JSON."""

    def __post_init__(self) -> None:
        check(self.workers is None or self.workers >= 1, "--workers", "at least 1", self.workers)


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """Flags of `dali-fixres prepare`."""

    sizes: str = "160,256,384"
    """Shorter sides of the copies in pixels, ascending, with commas between; no image is enlarged."""

    max_side: int = 500
    """Longest side of the full copy in pixels; longer images are scaled down to it."""

    full: bool = True
    """Also write a full copy of each image. Without (--no-full), the images stay where they are and are read there
    when no resized copy is large enough."""

    quality: int = 90
    """JPEG quality of all copies."""

    layout: Literal["shards", "folder"] = "shards"
    """WebDataset tar shards, or a file per copy in class folders."""

    shard_size: int = 1000
    """Images per shard."""

    val_fraction: float | None = None
    """Share of each class to test on, where the data has no split of its own."""

    workers: int | None = None
    """Processes; one per usable core if left out."""

    def __post_init__(self) -> None:
        sides = self.sides
        check(
            sides[0] >= 32 and list(sides) == sorted(set(sides)),
            "--sizes",
            "ascending, from 32 px on",
            self.sizes,
        )
        if self.full:
            check(self.max_side > sides[-1], "--max-side", f"above the largest of --sizes, {sides[-1]}", self.max_side)
        elif self.layout == "folder":
            raise ConfigError("--no-full needs --layout shards; class folders hold the full copies too")
        check(1 <= self.quality <= 95, "--quality", "from 1 to 95", self.quality)
        check(self.shard_size >= 1, "--shard-size", "at least 1", self.shard_size)
        check(self.workers is None or self.workers >= 1, "--workers", "at least 1", self.workers)

    @property
    def sides(self) -> tuple[int, ...]:
        """Shorter sides of the copies, as given."""
        words = self.sizes.split(",")
        check(
            all(word.strip().isdecimal() for word in words),
            "--sizes",
            "whole numbers, as in 160,256,384",
            self.sizes,
        )
        return tuple(map(int, words))


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviewConfig(Config):
    """Flags of `dali-fixres preview`."""

    train_res: int = 128
    """Pixels of the training crops."""

    test_res: str = "128,224"
    """Pixels of the test crops, with commas between."""

    num_images: int = 6
    """Images to show, one a row."""

    out: Path = Path("preview.png")
    """The PNG to write."""

    seed: int = 0
    """Decides which images, and which training crops."""

    def __post_init__(self) -> None:
        super(PreviewConfig, self).__post_init__()
        with flag_context("--train-res"):
            Resolution(self.train_res)
        with flag_context("--test-res"):
            parse_resolutions(self.test_res)
        check(self.seed >= 0, "--seed", "at least 0", self.seed)
        check(1 <= self.num_images <= 64, "--num-images", "from 1 to 64", self.num_images)
