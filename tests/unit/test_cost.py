from typing import Any

import pytest

from dali_fixres.report.cost import (
    evaluation_cost,
    gain,
    images_at,
    is_clear,
    per_minute,
    total_cost,
    training_cost,
)
from dali_fixres.report.json_files import Cost, Gain


def cost_of(seconds: float, num_images: int | None, area_px: int | None) -> Cost:
    """Return a cost."""
    return {"seconds": seconds, "num_images": num_images, "area_px": area_px}


def epoch(number: int, side: int, num_images: int | None, seconds: float) -> dict[str, Any]:
    """Return the record of an epoch; without its number of images as older runs have it."""
    counted = {} if num_images is None else {"num_images": num_images}
    return {"event": "epoch", "epoch": number, "train_res": side, "seconds": seconds, "images_per_s": 9.0, **counted}


def row(side: int, top1: float, num_images: int = 100, seconds: float = 2.0) -> Any:
    """Return an accuracy row."""
    return {"test_res": side, "top1": top1, "num_images": num_images, "seconds": seconds}


def test_cost_of_epochs() -> None:
    """Two epochs at two sizes add up; tests among the records are not training's."""
    records = [epoch(1, 64, 1000, 20.0), {"event": "evaluation", **row(64, 50.0)}, epoch(2, 128, 500, 25.5)]
    cost = training_cost(records)
    assert cost == cost_of(45.5, 1500, 1000 * 64 * 64 + 500 * 128 * 128)
    assert images_at(cost, 128) == 250 + 500
    assert images_at(cost, 64) == 1000 + 2000


def test_cached_features_forward_their_images_once() -> None:
    """Epochs on features take time, and put no image through the network."""
    collected = {"event": "pass", "test_res": 192, "num_images": 1200, "seconds": 30.0}
    cost = training_cost([collected, epoch(1, 192, 1000, 0.5), epoch(2, 192, 1000, 0.25)])
    assert cost == cost_of(30.75, 1200, 1200 * 192 * 192)


def test_unrecorded_costs_are_unknown() -> None:
    """No epochs cost nothing known; an epoch without its number of images leaves the sum unknown, not its time."""
    assert training_cost([]) is None
    assert training_cost([{"event": "evaluation", **row(64, 50.0)}]) is None
    cost = training_cost([epoch(1, 64, 1000, 20.0), epoch(2, 64, None, 20.0)])
    assert cost == cost_of(40.0, None, None)
    assert images_at(cost, 64) is None
    assert total_cost([cost_of(1.0, 10, 100), cost_of(2.0, None, None)]) == cost_of(3.0, None, None)
    assert total_cost([cost_of(1.0, 10, 100), cost_of(2.5, 5, 50)]) == cost_of(3.5, 15, 150)


def test_cost_of_evaluations() -> None:
    """100 images in 2 seconds, and 100 in 5."""
    assert evaluation_cost([row(64, 1.0), row(128, 1.0, seconds=5.0)]) == cost_of(
        7.0, 200, 100 * 64 * 64 + 100 * 128 * 128
    )


def test_gain_and_its_standard_error() -> None:
    """80 % and 90 % of 100: the variances 16 and 9 square points add up to 5 points."""
    found = gain(row(64, 80.0), row(64, 90.0))
    assert found == {"points": 10.0, "standard_error": 5.0}
    assert is_clear(found)
    assert not is_clear(gain(row(64, 80.0), row(64, 89.0)))
    assert gain(row(64, 90.0), row(64, 80.0)) == {"points": -10.0, "standard_error": 5.0}


def test_equal_accuracies_are_no_clear_gain() -> None:
    """Also where every answer is right, or none is, and the standard error is 0."""
    for top1 in (0.0, 50.0, 100.0):
        assert not is_clear(gain(row(64, top1), row(64, top1)))


def test_points_per_minute() -> None:
    """3 points in 90 seconds are 2 a minute; in no or unknown time there is no rate."""
    found = Gain(points=3.0, standard_error=1.0)
    assert per_minute(found, 90.0) == pytest.approx(2.0)
    assert per_minute(found, 0.0) is None
    assert per_minute(found, None) is None
