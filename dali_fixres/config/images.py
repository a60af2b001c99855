"""Flags about a network's images, and what any source may say about them: flags, a checkpoint, weights."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

from cyclopts import Parameter, Token

from dali_fixres.config.rules import Parsed, Rule
from dali_fixres.errors import ConfigError
from pipelines.plan.interpolation import Interpolation

__all__ = [
    "Channels",
    "CropMode",
    "DataValues",
    "InterpolationFlag",
    "Mean",
    "Std",
    "TestInterpolation",
    "tested_with",
]

Channels: TypeAlias = tuple[float, float, float]

CropMode: TypeAlias = Literal["center", "squash"]
"""timm's words: resize the shorter side and take the centre; or resize both sides to the same length first."""

TestInterpolation: TypeAlias = Literal["auto", "bilinear", "bicubic"]

InterpolationFlag: TypeAlias = Literal["auto", "bilinear", "bicubic", "random"]
"""Of ``--interpolation`` in training."""


class DataValues(TypedDict, total=False):
    """What one source says about a network's images. What is missing or None is left to other sources."""

    mean: Channels | None
    std: Channels | None
    interpolation: Interpolation | None
    crop_ratio: float | None
    crop_mode: CropMode | None
    train_res: int | None
    test_res: int | None


def tested_with(interpolation: InterpolationFlag) -> Interpolation | None:
    """Return the filter for tests that ``--interpolation`` names; None where it leaves it to other sources."""
    match interpolation:
        case "bilinear" | "bicubic":
            return interpolation
        case "auto" | "random":
            return None


def _read_channels(_: object, tokens: Sequence[Token]) -> tuple[float, ...] | str:
    """Read ``0.5,0.5,0.5`` or ``0.5 0.5 0.5``; leave other text to the check."""
    text = " ".join(token.value for token in tokens)
    try:
        return tuple(map(float, text.replace(",", " ").split()))
    except ValueError:
        return text


def _three(value: Any) -> None:
    if not isinstance(value, tuple) or len(value) != 3:
        raise ConfigError(f"three numbers are expected, as in 0.5,0.5,0.5; found {value!r}")


_CHANNELS = Parameter(converter=_read_channels, n_tokens=-1, consume_multiple=True)

Mean: TypeAlias = Annotated[Channels, _CHANNELS, Parsed(_three), Rule("finite", math.isfinite)]
Std: TypeAlias = Annotated[Channels, _CHANNELS, Parsed(_three), Rule("above 0", lambda value: 0 < value < math.inf)]
