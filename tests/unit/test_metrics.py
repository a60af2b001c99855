import json

import pytest
import torch

from dali_fixres.metrics import Accuracy, count_correct
from dali_fixres.resolution import Resolution


def test_top1_and_top5_literals() -> None:
    """Of four pictures one is right at once, two more among five answers, one not at all."""
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
    """With five classes or fewer every picture is right among five answers."""
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
        "top1": 33.3333,
        "top5": 66.6667,
        "num_images": 3,
        "num_unreadable": 2,
        "images_per_s": 2.0,
    }


@pytest.mark.parametrize(
    ("num_top1", "num_top5", "num_images"),
    [(0, 0, 1), (1, 2, 3), (38_271, 46_480, 50_000), (33_333, 49_999, 50_000), (7, 7, 7), (123_456, 499_999, 500_000)],
)
def test_json_round_trip(num_top1: int, num_top5: int, num_images: int) -> None:
    """Counts survive the rounded percentages, through text, up to half a million pictures."""
    accuracy = Accuracy(Resolution(224), num_top1, num_top5, num_images, num_unreadable=5, seconds=num_images / 64)
    assert Accuracy.from_json(json.loads(json.dumps(accuracy.as_json()))) == accuracy
