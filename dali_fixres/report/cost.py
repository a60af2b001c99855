"""What training, fine-tuning and evaluation cost, and what they gained, from records and accuracy rows. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dali_fixres.report.json_files import Cost, Gain
from dali_fixres.runtime.json_files import AccuracyRow

__all__ = [
    "best_row", "evaluation_cost", "gain", "images_at", "is_clear", "per_minute", "row_at", "total_cost",
    "training_and_tuning", "training_cost",
]  # fmt: skip

CLEAR = 1.96
"""Standard errors beyond which a difference is called one: 95 % of a normal distribution lie within."""


def training_cost(records: Sequence[Mapping[str, Any]]) -> Cost | None:
    """Return the cost of a run's feature passes and epochs, without evaluations; None if it has no such records.

    After a feature pass the epochs train on cached features, so no image goes through the network in them.
    """
    passes = [record for record in records if record["event"] == "pass"]
    epochs = [record for record in records if record["event"] == "epoch"]
    if not (passes or epochs):
        return None
    seconds = sum(record["seconds"] for record in (*passes, *epochs))
    side = "test_res" if passes else "train_res"
    return _cost(seconds, [(record.get("num_images"), record[side]) for record in passes or epochs])


def evaluation_cost(rows: Iterable[Mapping[str, Any]]) -> Cost | None:
    """Return the cost of evaluations, from their records or accuracy rows; None if there are none."""
    rows = list(rows)
    if not rows:
        return None
    return _cost(sum(row["seconds"] for row in rows), [(row["num_images"], row["test_res"]) for row in rows])


def total_cost(costs: Iterable[Cost]) -> Cost:
    """Return the sum; what is unknown of a part is unknown of the sum."""
    costs = list(costs)
    return Cost(
        seconds=round(sum(cost["seconds"] for cost in costs), 3),
        num_images=_sum([cost["num_images"] for cost in costs]),
        area_px=_sum([cost["area_px"] for cost in costs]),
    )


def training_and_tuning(costs: Mapping[str, Cost | None]) -> Cost | None:
    """Return the cost of both, given those of all stages; None if one is not recorded."""
    training, tuning = costs["training"], costs["tuning"]
    return total_cost([training, tuning]) if training and tuning else None


def images_at(cost: Cost, side_px: int) -> float | None:
    """Return the number of images of `side_px` with as many pixels: a convolution's work grows with pixels."""
    return None if cost["area_px"] is None else cost["area_px"] / side_px**2


def _cost(seconds: float, forwarded: Sequence[tuple[int | None, int]]) -> Cost:
    """Return the cost of numbers of images and their side, px."""
    areas = [None if number is None else number * side**2 for number, side in forwarded]
    return Cost(seconds=round(seconds, 3), num_images=_sum([number for number, _ in forwarded]), area_px=_sum(areas))


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def gain(old: AccuracyRow, new: AccuracyRow) -> Gain:
    """Return by how much the second top-1 accuracy is above the first.

    The standard error is that of independent sets of images. Both are measured on the same images, so the true error is
    usually smaller.
    """
    variances = [row["top1"] * (100 - row["top1"]) / row["num_images"] for row in (old, new)]
    return Gain(points=round(new["top1"] - old["top1"], 4), standard_error=round(math.sqrt(sum(variances)), 4))


def is_clear(found: Gain) -> bool:
    """Return whether a gain is more than chance explains."""
    return abs(found["points"]) > CLEAR * found["standard_error"]


def per_minute(found: Gain, seconds: float | None) -> float | None:
    """Return points per minute; None if the time is unknown or zero."""
    return 60 * found["points"] / seconds if seconds else None


def best_row(rows: Sequence[AccuracyRow]) -> AccuracyRow:
    """Return the row with the best top-1; of equals the first."""
    return max(rows, key=lambda row: row["top1"])


def row_at(rows: Sequence[AccuracyRow], side_px: int) -> AccuracyRow:
    """Return the row of a resolution."""
    return next(row for row in rows if row["test_res"] == side_px)
