"""Counts that are exact: right answers as integers, percentages only at the very end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch

from dali_fixres.resolution import Resolution

__all__ = ["Accuracy", "Tally", "count_correct"]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The result of one evaluation.

    Attributes:
        resolution: Tested at.
        num_top1, num_top5: Pictures whose label was the first, or among the first five, answers.
        num_images: Pictures tested.
        num_unreadable: Pictures that could not be read, and are not counted among those.
        seconds: Wall time, loading included.
    """

    resolution: Resolution
    num_top1: int
    num_top5: int
    num_images: int
    num_unreadable: int
    seconds: float

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * self.num_top1 / self.num_images

    @property
    def top5(self) -> float:
        """Top-5 accuracy in percent."""
        return 100 * self.num_top5 / self.num_images

    def as_json(self) -> dict[str, float | int]:
        """Return the documented row of ``evaluate --json``."""
        return {
            "test_res": self.resolution.crop_px,
            "crop_ratio": self.resolution.crop_ratio,
            "top1": round(self.top1, 4),
            "top5": round(self.top5, 4),
            "num_images": self.num_images,
            "num_unreadable": self.num_unreadable,
            "images_per_s": round(self.num_images / self.seconds, 2),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `as_json` wrote."""
        num_images = row["num_images"]
        return cls(
            resolution=Resolution(row["test_res"], row["crop_ratio"]),
            num_top1=round(row["top1"] * num_images / 100),
            num_top5=round(row["top5"] * num_images / 100),
            num_images=num_images,
            num_unreadable=row["num_unreadable"],
            seconds=num_images / row["images_per_s"],
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """What an epoch has come to so far.

    Attributes:
        loss_sum: Over its pictures.
        num_images: Pictures trained on.
        seconds: Wall time.
        waited_s: Part of it spent waiting for batches.
    """

    loss_sum: float = 0.0
    num_images: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0


def count_correct(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Count right answers on the device.

    Args:
        logits: (n, classes).
        labels: (n,) int64.

    Returns:
        Numbers right in the first and in the first five (or fewer, if there are fewer classes), (2,) int64.
    """
    answers = logits.topk(min(5, logits.shape[1]), dim=1).indices
    right = answers == labels[:, None]
    return torch.stack([right[:, 0].sum(), right.any(dim=1).sum()])
