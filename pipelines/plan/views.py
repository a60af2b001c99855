"""Test-time augmentation: the views of a test image, one, two with its mirror image, or ten crops."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from pipelines.errors import ConfigError, did_you_mean
from pipelines.plan.crops import CropFunction, centre_crop, corner_crop
from pipelines.resolution import Resolution

__all__ = ["VIEWS", "Setting", "View", "Views", "parse_views"]

Views: TypeAlias = Literal["single", "flip", "ten-crop"]
"""The views of an image whose predictions are averaged: the test crop; it and its mirror image; the four corners and
the centre of the resized image, and their mirror images (Krizhevsky et al., NeurIPS 2012)."""


@dataclass(frozen=True, slots=True)
class View:
    """One view of an image: its crop box, and whether it is mirrored."""

    crop: CropFunction
    mirrored: bool = False


def _mirrored_too(crop_boxes: tuple[CropFunction, ...]) -> tuple[View, ...]:
    return tuple(View(crop, mirrored) for mirrored in (False, True) for crop in crop_boxes)


_CORNERS = tuple(
    partial(corner_crop, bottom=bottom, right=right) for bottom in (False, True) for right in (False, True)
)

VIEWS: Mapping[Views, tuple[View, ...]] = MappingProxyType(
    {
        "single": (View(centre_crop),),
        "flip": _mirrored_too((centre_crop,)),
        "ten-crop": _mirrored_too((*_CORNERS, centre_crop)),
    }
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What an accuracy is measured at: the resolution, and the views of each image."""

    resolution: Resolution
    views: Views = "single"

    @property
    def num_views(self) -> int:
        """Forward passes per image."""
        return len(VIEWS[self.views])

    @property
    def order(self) -> tuple[Resolution, int]:
        """Sort key."""
        return self.resolution, self.num_views

    @property
    def name(self) -> str:
        """Name for files."""
        return f"{self.resolution.crop_px}px_{self.resolution.crop_ratio}_{self.views}"


def parse_views(text: str) -> tuple[Views, ...]:
    """Parse ``"single"`` or ``"single,flip,ten-crop"``, in that order and without repeats.

    Raises:
        ConfigError: If a word is none of these.
    """
    words = [word.strip() for word in text.split(",")]
    known: tuple[Views, ...] = get_args(Views)
    for word in words:
        if word not in known:
            raise ConfigError(
                f"views are {', '.join(known)}, with commas between; found {word!r}{did_you_mean(word, known)}"
            )
    return tuple(views for views in known if views in words)
