"""Apparent sizes: what a resolution means for resize and crop, and how it changes over the epochs."""

import re
from dataclasses import dataclass
from itertools import pairwise

from dali_fixres.errors import ConfigError

__all__ = ["DEFAULT_CROP_RATIO", "MIN_RESOLUTION_PX", "Resolution", "Schedule", "parse_resolutions"]

DEFAULT_CROP_RATIO = 224 / 256
"""Crop side over resize side of the usual test preprocessing (FixRes, section 2)."""

MIN_RESOLUTION_PX = 32
"""Networks of the field halve the picture five times; below 32 px nothing is left of it."""

MAX_RESOLUTION_PX = 4096


@dataclass(frozen=True, slots=True, order=True)
class Resolution:
    """One apparent size at which a network sees pictures.

    Attributes:
        crop_px: Side of the square the network gets.
        crop_ratio: ``crop_px`` over the length to which test preprocessing resizes the shorter side.
    """

    crop_px: int
    crop_ratio: float = DEFAULT_CROP_RATIO

    def __post_init__(self) -> None:
        if not MIN_RESOLUTION_PX <= self.crop_px <= MAX_RESOLUTION_PX:
            raise ConfigError(
                f"a resolution is a whole number of pixels from {MIN_RESOLUTION_PX} to {MAX_RESOLUTION_PX}; "
                f"found {self.crop_px}"
            )
        if not 0 < self.crop_ratio <= 1:
            raise ConfigError(f"--crop-ratio must be above 0 and at most 1; found {self.crop_ratio}")

    @property
    def resize_px(self) -> int:
        """Length of the shorter side before the centre crop: ``int(crop_px / crop_ratio)``, 256 for 224."""
        return int(self.crop_px / self.crop_ratio + 1e-6)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The training resolution of each epoch: phases, each from its first epoch on.

    Attributes:
        phases: Pairs (first epoch, side in pixels); the first starts at epoch 0, epochs increase.
        crop_ratio: Of every resolution; matters where training looks at test crops.
    """

    phases: tuple[tuple[int, int], ...]
    crop_ratio: float = DEFAULT_CROP_RATIO

    def __post_init__(self) -> None:
        for _, side_px in self.phases:
            Resolution(side_px)
        firsts = [first for first, _ in self.phases]
        if not firsts or firsts[0] != 0 or any(later <= earlier for earlier, later in pairwise(firsts)):
            raise ConfigError(
                f"the phases of --train-res must start at epoch 0 and go up, as in 96@0,128@8; found {self}"
            )

    @classmethod
    def parse(cls, text: str, crop_ratio: float = DEFAULT_CROP_RATIO) -> "Schedule":
        """Read ``"128"`` (constant) or ``"96@0,128@8"`` (96 px from epoch 0, 128 px from epoch 8)."""
        phases = []
        for number, phase in enumerate(text.split(",")):
            match = re.fullmatch(r"\s*(\d+)(?:@(\d+))?\s*", phase)
            if not match or (match[2] is None and number > 0):
                raise ConfigError(
                    f"--train-res takes a number of pixels (128) or phases (96@0,128@8 for 96 px from epoch 0 "
                    f"and 128 px from epoch 8); found {text!r}"
                )
            phases.append((int(match[2] or 0), int(match[1])))
        return cls(tuple(phases), crop_ratio)

    def at(self, epoch: int) -> Resolution:
        """Return the training resolution of an epoch (counted from 0)."""
        side_px = next(side_px for first, side_px in reversed(self.phases) if first <= epoch)
        return Resolution(side_px, self.crop_ratio)

    @property
    def last(self) -> Resolution:
        """The resolution training ends with."""
        return Resolution(self.phases[-1][1], self.crop_ratio)

    def __str__(self) -> str:
        """Write what `parse` reads."""
        if len(self.phases) == 1 and self.phases[0][0] == 0:
            return str(self.phases[0][1])
        return ",".join(f"{side_px}@{first}" for first, side_px in self.phases)


def parse_resolutions(text: str, crop_ratio: float = DEFAULT_CROP_RATIO) -> tuple[Resolution, ...]:
    """Read ``"128"`` or ``"96,128,160"`` into resolutions, ascending and without repeats."""
    sides = text.split(",")
    if not all(re.fullmatch(r"\s*\d+\s*", side) for side in sides):
        raise ConfigError(
            f"--test-res takes whole numbers of pixels with commas between, as in 128,160; found {text!r}"
        )
    return tuple(sorted({Resolution(int(side), crop_ratio) for side in sides}))
