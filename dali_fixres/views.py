"""How often a test picture is looked at, and where: once, mirrored as well, or in ten crops."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from dali_fixres.errors import ConfigError, did_you_mean
from dali_fixres.resolution import Resolution
from dali_fixres.windows import WindowFunction, centre_window, corner_window

__all__ = ["LOOKS", "Look", "Setting", "Views", "parse_views"]

Views: TypeAlias = Literal["single", "flip", "ten-crop"]
"""The looks at a picture whose answers are averaged: the test crop; it and its mirror image; the four corners and the
centre of the resized picture, and their mirror images (Krizhevsky et al., NeurIPS 2012)."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a picture."""

    window: WindowFunction
    mirrored: bool = False


def _mirrored_too(windows: tuple[WindowFunction, ...]) -> tuple[Look, ...]:
    return tuple(Look(window, mirrored) for mirrored in (False, True) for window in windows)


_CORNERS = tuple(
    partial(corner_window, bottom=bottom, right=right) for bottom in (False, True) for right in (False, True)
)

LOOKS: Mapping[Views, tuple[Look, ...]] = MappingProxyType(
    {
        "single": (Look(centre_window),),
        "flip": _mirrored_too((centre_window,)),
        "ten-crop": _mirrored_too((*_CORNERS, centre_window)),
    }
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What an accuracy is measured at: size of the pictures, and looks at each."""

    resolution: Resolution
    views: Views = "single"

    @property
    def num_looks(self) -> int:
        """Times that the network runs for one picture."""
        return len(LOOKS[self.views])

    @property
    def order(self) -> tuple[Resolution, int]:
        """What settings are sorted by."""
        return self.resolution, self.num_looks

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.resolution.crop_px}px_{self.resolution.crop_ratio}_{self.views}"


def parse_views(text: str) -> tuple[Views, ...]:
    """Read ``"single"`` or ``"single,flip,ten-crop"``, in that order and without repeats.

    Raises:
        ConfigError: If one of them is none of these.
    """
    words = [word.strip() for word in text.split(",")]
    known: tuple[Views, ...] = get_args(Views)
    for word in words:
        if word not in known:
            raise ConfigError(
                f"--views takes {', '.join(known)}, with commas between; found {word!r}{did_you_mean(word, known)}"
            )
    return tuple(views for views in known if views in words)
