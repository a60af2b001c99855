from typing import Any

import pytest

from dali_fixres.report.ledger import Cost, Gain, evaluation_cost, gain, learning_cost, total_cost


def epoch(number: int, side: int, num_images: int | None, seconds: float) -> dict[str, Any]:
    """Return the record of an epoch; without its number of images as older runs have it."""
    counted = {} if num_images is None else {"num_images": num_images}
    return {"event": "epoch", "epoch": number, "train_res": side, "seconds": seconds, "images_per_s": 9.0, **counted}


def row(side: int, top1: float, num_images: int = 100, seconds: float = 2.0) -> dict[str, Any]:
    """Return an accuracy row."""
    return {"test_res": side, "top1": top1, "num_images": num_images, "seconds": seconds}


def test_epochs_cost_their_images_at_their_resolutions() -> None:
    """Two epochs at two sizes add up; tests among the records are not training's."""
    records = [epoch(1, 64, 1000, 20.0), {"event": "evaluation", **row(64, 50.0)}, epoch(2, 128, 500, 25.5)]
    cost = learning_cost(records)
    assert cost == Cost(seconds=45.5, num_images=1500, area_px=1000 * 64 * 64 + 500 * 128 * 128)
    assert cost.images_at(128) == 250 + 500
    assert cost.images_at(64) == 1000 + 2000


def test_one_pass_forwards_its_images_once() -> None:
    """Epochs on features take time, and put no image through the network."""
    collected = {"event": "pass", "test_res": 192, "num_images": 1200, "seconds": 30.0}
    cost = learning_cost([collected, epoch(1, 192, 1000, 0.5), epoch(2, 192, 1000, 0.25)])
    assert cost == Cost(30.75, 1200, 1200 * 192 * 192)


def test_what_is_not_recorded_is_not_made_up() -> None:
    """No epochs cost nothing known; an epoch without its number of images leaves the sum unknown, not its time."""
    assert learning_cost([]) is None
    assert learning_cost([{"event": "evaluation", **row(64, 50.0)}]) is None
    cost = learning_cost([epoch(1, 64, 1000, 20.0), epoch(2, 64, None, 20.0)])
    assert cost == Cost(40.0, None, None)
    assert cost.images_at(64) is None
    assert total_cost([Cost(1.0, 10, 100), Cost(2.0, None, None)]) == Cost(3.0, None, None)
    assert total_cost([Cost(1.0, 10, 100), Cost(2.5, 5, 50)]) == Cost(3.5, 15, 150)


def test_tests_cost_their_seconds() -> None:
    """100 images in 2 seconds, and 100 in 5."""
    assert evaluation_cost([row(64, 1.0), row(128, 1.0, seconds=5.0)]) == Cost(
        7.0, 200, 100 * 64 * 64 + 100 * 128 * 128
    )


def test_a_gain_has_the_error_of_two_proportions() -> None:
    """80 % and 90 % of 100: the variances 16 and 9 square points add up to 5 points."""
    found = gain(row(64, 80.0), row(64, 90.0))
    assert (found.points, found.standard_error) == (10.0, 5.0)
    assert found.is_clear
    assert not gain(row(64, 80.0), row(64, 89.0)).is_clear
    assert gain(row(64, 90.0), row(64, 80.0)) == Gain(-10.0, 5.0)


def test_equal_networks_have_no_clear_gain() -> None:
    """Also where every answer is right, or none is, and the standard error is 0."""
    for top1 in (0.0, 50.0, 100.0):
        assert not gain(row(64, top1), row(64, top1)).is_clear


def test_points_per_minute() -> None:
    """3 points in 90 seconds are 2 a minute; in no time there is no rate."""
    assert Gain(3.0, 1.0).per_minute(90.0) == pytest.approx(2.0)
    assert Gain(3.0, 1.0).per_minute(0.0) is None
