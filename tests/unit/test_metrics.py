import json
import math
from dataclasses import replace

import pytest
import torch

from dali_fixres.evaluation.metrics import Accuracy, best_of, count_correct, recommended_of, wilson_interval
from pipelines.resolution import Resolution


def test_top1_and_top5_literals() -> None:
    """Of four images one is right at once, two more among five answers, one not at all."""
    logits = torch.tensor(
        [
            [9.0, 1, 2, 3, 4, 5, 6],  # class 0 is first
            [1.0, 2, 3, 4, 5, 6, 7],  # class 2 is fifth
            [1.0, 2, 3, 4, 5, 6, 7],  # class 5 is second
            [1.0, 2, 3, 4, 5, 6, 7],  # class 1 is sixth
        ]
    )
    counts = count_correct(logits, torch.tensor([0, 2, 5, 1]))
    assert counts.tolist() == [1, 3]
    assert counts.dtype == torch.int64


@pytest.mark.parametrize("num_classes", [1, 2, 3, 4, 5])
def test_few_classes(num_classes: int) -> None:
    """With five classes or fewer every image is right among five answers."""
    logits = torch.arange(num_classes, dtype=torch.float32).repeat(num_classes, 1)
    assert count_correct(logits, torch.arange(num_classes)).tolist() == [1, num_classes]


def test_low_precision_logits() -> None:
    """Answers in half precision are counted as well."""
    logits = torch.tensor([[0.0, 1, 2, 3, 4, 5], [5.0, 4, 3, 2, 1, 0]], dtype=torch.bfloat16)
    assert count_correct(logits, torch.tensor([5, 5])).tolist() == [1, 1]


def _accuracy() -> Accuracy:
    return Accuracy(Resolution(160, 0.9), num_top1=1, num_top5=2, num_images=3, num_unreadable=2, seconds=1.5)


def test_percentages() -> None:
    """Counts become percent."""
    assert (_accuracy().top1, _accuracy().top5) == pytest.approx((33.333333, 66.666667))


def test_json_literals() -> None:
    """The row of `evaluate --json`, rounded where rounding hides nothing."""
    assert _accuracy().as_json() == {
        "test_res": 160,
        "crop_ratio": 0.9,
        "views": "single",
        "num_views": 1,
        "top1": 33.3333,
        "top1_low": 6.1492,
        "top1_high": 79.2340,
        "num_top1": 1,
        "top5": 66.6667,
        "top5_low": 20.7660,
        "top5_high": 93.8508,
        "num_top5": 2,
        "num_images": 3,
        "num_unreadable": 2,
        "seconds": 1.5,
        "images_per_s": 2.0,
        "gmacs": None,
    }


def test_json_with_real_labels() -> None:
    """ReaL's figures are over the images that have any of its labels."""
    accuracy = replace(_accuracy(), num_real_top1=1, num_real_images=2, views="flip", gmacs=3.5)
    row = accuracy.as_json()
    assert (row["real_top1"], row["num_real_top1"], row["num_real_images"]) == (50.0, 1, 2)
    assert (row["views"], row["num_views"], row["gmacs"]) == ("flip", 2, 3.5)
    assert Accuracy.from_json(json.loads(json.dumps(row))) == accuracy


@pytest.mark.parametrize(("num_right", "num_images"), [(1, 3), (5, 20), (81, 263), (38_271, 50_000)])
def test_intervals_solve_wilsons_equation(num_right: int, num_images: int) -> None:
    """At either end p of the interval the observed share is 1.96 standard errors of p away."""
    share = num_right / num_images
    for end in wilson_interval(num_right, num_images):
        p = end / 100
        assert abs(share - p) / math.sqrt(p * (1 - p) / num_images) == pytest.approx(1.959964, rel=1e-6)


def test_intervals_at_the_ends() -> None:
    """None of ten right: from 0 to z² / (n + z²); all of ten, the mirror image."""
    assert wilson_interval(0, 10) == pytest.approx((0.0, 27.7533), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((72.2467, 100.0), abs=1e-4)


def _result(side: int, num_top1: int, gmacs: float, ratio: float = 0.875, seconds: float = 1.0) -> Accuracy:
    return Accuracy(Resolution(side, ratio), num_top1, num_top1, 1000, 0, seconds, gmacs=gmacs)


def test_recommendation() -> None:
    """The cheapest within the best one's interval (775 to 824 of 1000 for 800): of equals the more accurate."""
    small, middle, large = _result(96, 770, 1.0), _result(128, 780, 2.0), _result(224, 800, 6.0)
    assert best_of([small, middle, large]) is large
    assert recommended_of([small, middle, large]) is middle
    other_crop = _result(128, 785, 2.0, ratio=1.0)
    assert recommended_of([small, middle, other_crop, large]) is other_crop
    assert recommended_of([small, large]) is large
    as_good = _result(160, 800, 3.0)
    assert best_of([large, as_good]) is as_good
    faster = _result(160, 800, 3.0, ratio=1.0, seconds=0.5)
    assert best_of([as_good, faster]) is as_good, "speed hangs on what else the machine does"
    assert recommended_of([as_good, faster]) is as_good


@pytest.mark.parametrize(
    ("num_top1", "num_top5", "num_images"),
    [(0, 0, 1), (1, 2, 3), (38_271, 46_480, 50_000), (33_333, 49_999, 50_000), (7, 7, 7), (123_456, 499_999, 500_000)],
)
def test_json_round_trip(num_top1: int, num_top5: int, num_images: int) -> None:
    """Counts are kept as they are, through text, up to half a million images."""
    accuracy = Accuracy(Resolution(224), num_top1, num_top5, num_images, num_unreadable=5, seconds=num_images / 64)
    assert Accuracy.from_json(json.loads(json.dumps(accuracy.as_json()))) == accuracy
