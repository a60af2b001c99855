"""Resolutions: what they mean for resize and crop, and how they change over the epochs."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from pipelines.errors import ConfigError

__all__ = [
    "DEFAULT_CROP_RATIO",
    "MIN_RESOLUTION_PX",
    "STRIDE_PX",
    "Phase",
    "Resolution",
    "Schedule",
    "parse_ratios",
    "parse_resolutions",
]

DEFAULT_CROP_RATIO = 224 / 256
"""Crop side over resize side of the usual test preprocessing (FixRes, section 2)."""

STRIDE_PX = 32
"""Most networks halve the image five times, so multiples of this leave no remainder."""

MIN_RESOLUTION_PX = STRIDE_PX
"""Below, the last feature map would be empty."""

MAX_RESOLUTION_PX = 4096


@dataclass(frozen=True, slots=True, order=True)
class Resolution:
    """The size of a network's input, and of the test crop in the image.

    Attributes:
        crop_px: Side of the network's square input.
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
            raise ConfigError(f"a crop ratio is above 0 and at most 1; found {self.crop_ratio}")

    @property
    def resize_px(self) -> int:
        """Length of the shorter side before the centre crop: ``int(crop_px / crop_ratio)``, 256 for 224."""
        return int(self.crop_px / self.crop_ratio + 1e-6)


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a training: from its first epoch to the next phase's.

    Attributes:
        first_epoch: Counted from 0.
        crop_px: Side of the training crop.
        batch_size: Images per process and step; None for the stage's.
        lr: Peak learning rate, not scaled by the batch; None for the stage's.
    """

    first_epoch: int
    crop_px: int
    batch_size: int | None = None
    lr: float | None = None

    def __post_init__(self) -> None:
        Resolution(self.crop_px)
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"the batch of a phase must be at least 1; found {self.batch_size}")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ConfigError(f"the lr of a phase must be above 0; found {self.lr}")


@dataclass(frozen=True, slots=True)
class Schedule:
    """The training resolution of each epoch, in phases.

    Attributes:
        phases: The first starts at epoch 0, epochs increase.
        crop_ratio: Of every resolution; used where training crops are test crops (fine-tuning).
    """

    phases: tuple[Phase, ...]
    crop_ratio: float = DEFAULT_CROP_RATIO

    def __post_init__(self) -> None:
        firsts = [phase.first_epoch for phase in self.phases]
        if not firsts or firsts[0] != 0 or any(later <= earlier for earlier, later in pairwise(firsts)):
            found = ", ".join(f"{phase.crop_px}@{phase.first_epoch}" for phase in self.phases) or "none"
            raise ConfigError(f"the phases of a schedule start at epoch 0 and go up, as in 96@0,128@8; found {found}")

    @classmethod
    def parse(cls, text: str, crop_ratio: float = DEFAULT_CROP_RATIO) -> "Schedule":
        """Parse a resolution, phases, or progressive resizing.

        ``"128"``: constant. ``"96@0,128@8"``: 96 px from epoch 0, 128 px from epoch 8.
        ``"96-192@0-16"``: from 96 px to 192 px in steps of 32, even over the epochs 0 to 16; 192 px from epoch 16 on.
        Each may end with ``:batch=N`` and ``:lr=X``, the phase's batch per process and peak learning rate.
        """
        parts = text.split(",")
        matches = [_PHASE.fullmatch(part.strip()) for part in parts]
        # Only a constant resolution may leave its first epoch out.
        if not all(match and (match["first"] or match["start"] or len(parts) == 1) for match in matches):
            raise ConfigError(
                f"a schedule is a number of pixels (128), phases (96@0,128@8 for 96 px from epoch 0 and 128 px from "
                f"epoch 8) or progressive resizing (96-192@0-16), each with :batch=N and :lr=X "
                f"if need be; found {text!r}"
            )
        return cls(tuple(phase for match in matches if match for phase in _phases(match)), crop_ratio)

    def phase(self, epoch: int) -> Phase:
        """Return the phase of an epoch, counted from 0."""
        return next(phase for phase in reversed(self.phases) if phase.first_epoch <= epoch)

    def at(self, epoch: int) -> Resolution:
        """Return the training resolution of an epoch, counted from 0."""
        return Resolution(self.phase(epoch).crop_px, self.crop_ratio)

    @property
    def last(self) -> Resolution:
        """The last training resolution."""
        return Resolution(self.phases[-1].crop_px, self.crop_ratio)


_PHASE = re.compile(
    r"(?:(?P<px>\d{1,9})(?:@(?P<first>\d{1,9}))?"
    r"|(?P<start_px>\d{1,9})-(?P<end_px>\d{1,9})@(?P<start>\d{1,9})-(?P<end>\d{1,9}))"
    r"(?P<options>(?::batch=\d{1,9}|:lr=[^:,]+){0,2})"
)
"""A phase or progressive resizing, and its options."""


def _phases(match: re.Match[str]) -> Iterator[Phase]:
    """Yield the phase that one part of a schedule's text names, or of progressive resizing one per resolution."""
    pairs = re.findall(r":(\w+)=([^:]+)", match["options"])
    options: dict[str, str] = dict(pairs)
    if len(options) < len(pairs):
        raise ConfigError(f"a phase has one batch and one lr; found {match.group()!r}")
    batch_size = int(options["batch"]) if "batch" in options else None
    try:
        lr = float(options["lr"]) if "lr" in options else None
    except ValueError as error:
        raise ConfigError(f"the lr of a phase must be a number; found {options['lr']!r}") from error
    points = [(int(match["first"] or 0), int(match["px"]))] if match["px"] else _progressive(match)
    for first_epoch, crop_px in points:
        yield Phase(first_epoch, crop_px, batch_size, lr)


def _progressive(match: re.Match[str]) -> Iterator[tuple[int, int]]:
    """Yield first epoch and pixels of each resolution of progressive resizing."""
    start_px, end_px, first, last = (int(match[name]) for name in ("start_px", "end_px", "start", "end"))
    num_steps, rest = divmod(end_px - start_px, STRIDE_PX)
    if rest or not 0 < num_steps <= last - first:
        raise ConfigError(
            f"progressive resizing goes up in steps of {STRIDE_PX} px, each of an epoch at least, as in 96-192@0-16; "
            f"found {match.group()!r}"
        )
    for step in range(num_steps + 1):
        yield first + math.ceil(step * (last - first) / num_steps), start_px + step * STRIDE_PX


def parse_ratios(text: str) -> tuple[float, ...]:
    """Parse ``"0.875"`` or ``"0.875,1"`` into crop ratios, ascending and without repeats."""
    try:
        ratios = {float(ratio) for ratio in text.split(",")}
    except ValueError as error:
        raise ConfigError(f"crop ratios are numbers with commas between, as in 0.875,1; found {text!r}") from error
    return tuple(sorted(Resolution(MIN_RESOLUTION_PX, ratio).crop_ratio for ratio in ratios))


def parse_resolutions(text: str, crop_ratio: float = DEFAULT_CROP_RATIO) -> tuple[Resolution, ...]:
    """Parse ``"128"`` or ``"96,128,160"`` into resolutions, ascending and without repeats."""
    sides = text.split(",")
    if not all(re.fullmatch(r"\s*\d+\s*", side) for side in sides):
        raise ConfigError(f"resolutions are whole numbers of pixels with commas between, as in 128,160; found {text!r}")
    return tuple(sorted({Resolution(int(side), crop_ratio) for side in sides}))
