from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from imageless import imageless_dataset

from pipelines.dataset import ORIGINAL, Dataset, ResizedCopies
from pipelines.dataset.table import with_copies
from pipelines.plan import AUGMENTATIONS, EvalPlan, TrainPlan
from pipelines.plan.copies import choose_copies
from pipelines.resolution import Resolution, Schedule


def copy(dataset: Dataset, side_px: int) -> ResizedCopies:
    """Return copies of all images whose shorter side is longer."""
    shorter = np.minimum(dataset.heights, dataset.widths)
    there = (side_px < shorter).astype(np.int64)
    zeros = np.zeros(len(dataset), np.int64)
    heights, widths = (
        np.round(column * side_px / shorter).astype(np.int64) for column in (dataset.heights, dataset.widths)
    )
    return ResizedCopies(side_px, Path("/copies"), heights * there, widths * there, zeros, (), zeros, zeros)


def with_sizes(*sides: int) -> Dataset:
    """Return 200 images of 300 to 499 px with copies."""
    dataset = imageless_dataset(190, 10)
    return with_copies(dataset, [copy(dataset, side) for side in sides])


def test_the_smallest_copy_with_enough_pixels() -> None:
    """A crop box of half of an image of 400 x 400 px has 200 px itself, 128 in the copy of 256, 80 in that of 160."""
    dataset = replace(imageless_dataset(5, 1), heights=np.full(6, 400), widths=np.full(6, 400))
    dataset = with_copies(dataset, [copy(dataset, 160), copy(dataset, 256)])
    crop_boxes = np.tile([100.0, 100.0, 300.0, 300.0], (5, 1))
    ids = np.arange(5)
    for crop_px, expected in ((64, 0), (80, 0), (81, 1), (128, 1), (129, ORIGINAL), (320, ORIGINAL)):
        assert choose_copies(dataset, ids, crop_boxes, Resolution(crop_px), "exact").tolist() == [expected] * 5
    assert choose_copies(dataset, ids, crop_boxes, Resolution(114), "fast").tolist() == [0] * 5
    assert choose_copies(dataset, ids, crop_boxes, Resolution(64), "original").tolist() == [ORIGINAL] * 5


def test_an_image_without_a_copy_is_read_itself() -> None:
    """No copy is made of an image that is not larger; a larger copy, or the image, is read in its place."""
    dataset = replace(imageless_dataset(2, 1), heights=np.array([150, 400, 400]), widths=np.array([150, 400, 400]))
    dataset = with_copies(dataset, [copy(dataset, 160), copy(dataset, 256)])
    crop_boxes = np.array([[0.0, 0.0, 150.0, 150.0], [0.0, 0.0, 400.0, 400.0]])
    assert choose_copies(dataset, np.array([0, 1]), crop_boxes, Resolution(96), "exact").tolist() == [ORIGINAL, 0]


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    sides=st.sets(st.integers(64, 290), min_size=1, max_size=4), side_px=st.integers(32, 400), epoch=st.integers(0, 5)
)
def test_exact_never_enlarges_what_need_not_be(sides: set[int], side_px: int, epoch: int) -> None:
    """With any copy sizes, a copy that is read has a pixel for each pixel of the crop, and no smaller copy has."""
    dataset = with_sizes(*sorted(sides))
    plan = TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse(str(side_px)), 64).at(epoch, 1)
    for row, crop, chosen in zip(plan.ids.tolist(), plan.crop_boxes, plan.copy_ids.tolist(), strict=True):
        pixels = [
            min(
                (crop[2] - crop[0]) * copy.heights[row] / dataset.heights[row],
                (crop[3] - crop[1]) * copy.widths[row] / dataset.widths[row],
            )
            for copy in dataset.copies
        ]
        enough = [number for number, found in enumerate(pixels) if found >= side_px * 0.999]
        assert chosen == (enough[0] if enough else ORIGINAL)


def test_the_order_does_not_depend_on_copies() -> None:
    """Images, crop boxes, flips and jitter are those of the same data without copies."""
    with_copies, without = with_sizes(96, 160), imageless_dataset(190, 10)
    one, other = (
        TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse("96"), 32).at(2, 3)
        for dataset in (with_copies, without)
    )
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_array_equal(one.crop_boxes, other.crop_boxes)
    assert set(one.copy_ids.tolist()) > {ORIGINAL}
    assert set(other.copy_ids.tolist()) == {ORIGINAL}


def test_tests_read_copies_too() -> None:
    """A test crop of 96 px of images of 300 px and more is read from the copy of 110 px."""
    dataset = with_sizes(110, 200)
    (plan,) = EvalPlan(dataset, batch_size=16).batches(Resolution(96))
    assert set(plan.copy_ids.tolist()) == {0}


def test_copies_are_a_part_of_the_fingerprint() -> None:
    """Data with other copies are other data: a run on them gets other pixels."""
    fingerprints = {
        dataset.fingerprint
        for dataset in (with_sizes(96), with_sizes(96, 160), with_sizes(100), imageless_dataset(190, 10))
    }
    assert len(fingerprints) == 4
