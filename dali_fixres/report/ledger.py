"""What training, tuning and testing cost and brought, from records and accuracy rows alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Cost", "Gain", "Row", "evaluation_cost", "gain", "learning_cost", "total_cost"]

Row: TypeAlias = Mapping[str, Any]
"""An accuracy row or a record, as docs/architecture.md has them."""

CLEAR = 1.96
"""Standard errors beyond which a difference is called one: 95 % of a normal distribution lie within."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a part of the story cost.

    Attributes:
        seconds: Wall time of its steps and tests, reading images included, starting up not.
        num_images: Times an image was put through the network; None where records do not say.
        area_px: Pixels that went through it in all; None likewise.
    """

    seconds: float
    num_images: int | None
    area_px: int | None

    def images_at(self, side_px: int) -> float | None:
        """Return how many images of `side_px` have as many pixels: a convolution's work grows with them."""
        return None if self.area_px is None else self.area_px / side_px**2


def learning_cost(records: Sequence[Row]) -> Cost | None:
    """Return the cost of a run's passes and epochs, without its tests; None if it has recorded none.

    Where features were collected in one pass, the epochs after it put no image through the network.
    """
    passes = [record for record in records if record["event"] == "pass"]
    epochs = [record for record in records if record["event"] == "epoch"]
    if not (passes or epochs):
        return None
    seconds = sum(record["seconds"] for record in (*passes, *epochs))
    if passes:
        views = [(record["num_images"], record["test_res"]) for record in passes]
    else:
        views = [(record.get("num_images"), record["train_res"]) for record in epochs]
    return Cost(round(seconds, 3), *_images(views))


def evaluation_cost(rows: Iterable[Row]) -> Cost:
    """Return the cost of evaluations, given their records or accuracy rows."""
    rows = list(rows)
    seconds = sum(row["seconds"] for row in rows)
    return Cost(round(seconds, 3), *_images([(row["num_images"], row["test_res"]) for row in rows]))


def total_cost(costs: Iterable[Cost]) -> Cost:
    """Return the sum; what one of the parts does not say is not known of the whole."""
    costs = list(costs)
    return Cost(
        round(sum(cost.seconds for cost in costs), 3),
        _sum([cost.num_images for cost in costs]),
        _sum([cost.area_px for cost in costs]),
    )


def _images(views: Sequence[tuple[int | None, int]]) -> tuple[int | None, int | None]:
    """Return number of images and of pixels, for numbers of images and their sides."""
    return (
        _sum([number for number, _ in views]),
        _sum([None if number is None else number * side**2 for number, side in views]),
    )


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


@dataclass(frozen=True, slots=True)
class Gain:
    """A difference of two accuracies.

    Attributes:
        points: Of top-1, in percentage points; negative for a loss.
        standard_error: In points, as if the two had been measured on different images. They are measured on the same
            ones, which makes the true one smaller in general.
    """

    points: float
    standard_error: float

    @property
    def is_clear(self) -> bool:
        """Whether it is more than chance makes of two equal networks."""
        return abs(self.points) > CLEAR * self.standard_error

    def per_minute(self, seconds: float) -> float | None:
        """Return points per minute; None if it took no time."""
        return 60 * self.points / seconds if seconds > 0 else None


def gain(old: Row, new: Row) -> Gain:
    """Return by how much the top-1 of one accuracy row is above that of another."""
    variances = [row["top1"] * (100 - row["top1"]) / row["num_images"] for row in (old, new)]
    return Gain(new["top1"] - old["top1"], math.sqrt(sum(variances)))
