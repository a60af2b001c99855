"""Accuracy: correct predictions are counted as integers; percentages are computed at the very end."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from dali_fixres.runtime.json_files import AccuracyRow
from pipelines.plan.views import Setting, Views, parse_views
from pipelines.resolution import Resolution

__all__ = ["Accuracy", "Interval", "best_of", "count_correct", "recommended_of", "wilson_interval"]

Interval = tuple[float, float]
"""Lower and upper end, in percent."""

Z = 1.959964
"""Quantile of the normal distribution that leaves 2.5 % above it."""


def wilson_interval(num_right: int, num_images: int) -> Interval:
    """Return the 95 % interval of an accuracy, in percent: Wilson's score interval.

    Unlike "accuracy ± 2 standard errors" it holds for few images too, and near 0 and 100 %, and never leaves that
    range (E. B. Wilson, JASA 22, 1927; recommended by Brown, Cai and DasGupta, Statistical Science 16, 2001).
    """
    share, spread = num_right / num_images, Z**2 / num_images
    centre = share + spread / 2
    half = Z * math.sqrt(share * (1 - share) / num_images + spread / (4 * num_images))
    low, high = ((centre + sign * half) / (1 + spread) for sign in (-1, 1))
    return 100 * max(low, 0.0), 100 * min(high, 1.0)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The result of one evaluation.

    Attributes:
        resolution: Tested at.
        num_top1, num_top5: Images whose label was the first, or among the first five, predictions.
        num_images: Images tested.
        num_unreadable: Images that could not be read, and are not counted among those.
        seconds: Wall time, loading included.
        views: Views of each image whose predictions were averaged.
        gmacs: Billions of multiply-accumulates for one image, all its views together; None if not counted.
        num_real_top1, num_real_images: As `num_top1` and `num_images` by ImageNet-ReaL's labels, if these were given.
    """

    resolution: Resolution
    num_top1: int
    num_top5: int
    num_images: int
    num_unreadable: int
    seconds: float
    views: Views = "single"
    gmacs: float | None = None
    num_real_top1: int = 0
    num_real_images: int = 0

    def __str__(self) -> str:
        """Return top-1, and of how many images where some could not be read."""
        of = f" of {self.num_images} images ({self.num_unreadable} unreadable)" if self.num_unreadable else ""
        return f"top-1 {self.top1:.2f} % at {self.resolution.crop_px} px{of}"

    @property
    def setting(self) -> Setting:
        """What it was measured at."""
        return Setting(self.resolution, self.views)

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * self.num_top1 / self.num_images

    @property
    def top5(self) -> float:
        """Top-5 accuracy in percent."""
        return 100 * self.num_top5 / self.num_images

    @property
    def top1_interval(self) -> Interval:
        """95 % interval of the top-1 accuracy."""
        return wilson_interval(self.num_top1, self.num_images)

    @property
    def top5_interval(self) -> Interval:
        """95 % interval of the top-5 accuracy."""
        return wilson_interval(self.num_top5, self.num_images)

    @property
    def real_top1(self) -> float | None:
        """Top-1 accuracy in percent by ImageNet-ReaL's labels; None without them."""
        return 100 * self.num_real_top1 / self.num_real_images if self.num_real_images else None

    @property
    def images_per_s(self) -> float:
        """Images per second; an image with ten views counts once."""
        return self.num_images / self.seconds

    def as_json(self) -> AccuracyRow:
        """Return the row of results files."""
        seconds = max(round(self.seconds, 6), 1e-6)  # so that what is read back gives the same row again
        (top1_low, top1_high), (top5_low, top5_high) = self.top1_interval, self.top5_interval
        row: AccuracyRow = {
            "test_res": self.resolution.crop_px,
            "crop_ratio": self.resolution.crop_ratio,
            "views": self.views,
            "num_views": self.setting.num_views,
            "top1": round(self.top1, 4),
            "top1_low": round(top1_low, 4),
            "top1_high": round(top1_high, 4),
            "num_top1": self.num_top1,
            "top5": round(self.top5, 4),
            "top5_low": round(top5_low, 4),
            "top5_high": round(top5_high, 4),
            "num_top5": self.num_top5,
            "num_images": self.num_images,
            "num_unreadable": self.num_unreadable,
            "seconds": seconds,
            "images_per_s": round(self.num_images / seconds, 2),
            "gmacs": self.gmacs,
        }
        if self.real_top1 is not None:
            low, high = wilson_interval(self.num_real_top1, self.num_real_images)
            row["real_top1"] = round(self.real_top1, 4)
            row["real_top1_low"], row["real_top1_high"] = round(low, 4), round(high, 4)
            row["num_real_top1"], row["num_real_images"] = self.num_real_top1, self.num_real_images
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `as_json` wrote.

        Raises:
            KeyError: If it lacks a part; TypeError, AttributeError or ConfigError if one is of another kind.
        """
        return cls(
            resolution=Resolution(row["test_res"], row["crop_ratio"]),
            num_top1=row["num_top1"],
            num_top5=row["num_top5"],
            num_images=row["num_images"],
            num_unreadable=row["num_unreadable"],
            seconds=row["seconds"],
            views=parse_views(row["views"])[0],
            gmacs=row["gmacs"],
            num_real_top1=row.get("num_real_top1", 0),
            num_real_images=row.get("num_real_images", 0),
        )


def best_of(results: Sequence[Accuracy]) -> Accuracy:
    """Return the result with the highest top-1 accuracy; of equals the cheapest, of these the first."""
    return max(results, key=lambda result: (result.top1, -(result.gmacs or 0)))


def recommended_of(results: Sequence[Accuracy]) -> Accuracy:
    """Return the cheapest result whose top-1 accuracy lies within the best one's 95 % interval.

    Cost is counted in multiply-accumulates, which other work on the machine does not change. A crop ratio costs none,
    so of equally cheap ones it is the most accurate.
    """
    low, _ = best_of(results).top1_interval
    near = [result for result in results if result.top1 >= low]
    return min(near, key=lambda result: (result.gmacs or 0, -result.top1))


def count_correct(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Count correct predictions on the device.

    Args:
        logits: (n, classes).
        labels: (n,) int64.

    Returns:
        Numbers right in the first and in the first five (or fewer, if there are fewer classes), (2,) int64.
    """
    answers = logits.topk(min(5, logits.shape[1]), dim=1).indices
    right = answers == labels[:, None]
    return torch.stack([right[:, 0].sum(), right.any(dim=1).sum()])
