from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pictureless import pictureless_index

from dali_fixres.index import BASE, Index, Rung
from dali_fixres.index.table import with_rungs
from dali_fixres.plan import AUGMENTATIONS, EvaluationPlan, TrainPlan
from dali_fixres.plan.copies import choose_copies
from dali_fixres.resolution import Resolution, Schedule


def rung(index: Index, side_px: int) -> Rung:
    """Return copies of all pictures whose shorter side is longer."""
    shorter = np.minimum(index.heights, index.widths)
    there = (side_px < shorter).astype(np.int64)
    zeros = np.zeros(len(index), np.int64)
    heights, widths = (
        np.round(column * side_px / shorter).astype(np.int64) for column in (index.heights, index.widths)
    )
    return Rung(side_px, Path("/rung"), heights * there, widths * there, zeros, (), zeros, zeros)


def laddered(*sides: int) -> Index:
    """Return an index of 200 pictures of 300 to 499 px with copies."""
    index = pictureless_index(190, 10)
    return with_rungs(index, [rung(index, side) for side in sides])


def test_the_smallest_copy_with_enough_pixels() -> None:
    """A window of half of a picture of 400 x 400 px has 200 px itself, 128 in the copy of 256, 80 in that of 160."""
    index = replace(pictureless_index(5, 1), heights=np.full(6, 400), widths=np.full(6, 400))
    index = with_rungs(index, [rung(index, 160), rung(index, 256)])
    windows = np.tile([100.0, 100.0, 300.0, 300.0], (5, 1))
    ids = np.arange(5)
    for crop_px, expected in ((64, 0), (80, 0), (81, 1), (128, 1), (129, BASE), (320, BASE)):
        assert choose_copies(index, ids, windows, Resolution(crop_px), "exact").tolist() == [expected] * 5
    assert choose_copies(index, ids, windows, Resolution(114), "fast").tolist() == [0] * 5
    assert choose_copies(index, ids, windows, Resolution(64), "original").tolist() == [BASE] * 5


def test_a_picture_without_a_copy_is_read_itself() -> None:
    """No copy is made of a picture that is not larger; a larger copy, or the picture, is read in its place."""
    index = replace(pictureless_index(2, 1), heights=np.array([150, 400, 400]), widths=np.array([150, 400, 400]))
    index = with_rungs(index, [rung(index, 160), rung(index, 256)])
    windows = np.array([[0.0, 0.0, 150.0, 150.0], [0.0, 0.0, 400.0, 400.0]])
    assert choose_copies(index, np.array([0, 1]), windows, Resolution(96), "exact").tolist() == [BASE, 0]


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    sides=st.sets(st.integers(64, 290), min_size=1, max_size=4), side_px=st.integers(32, 400), epoch=st.integers(0, 5)
)
def test_exact_never_enlarges_what_need_not_be(sides: set[int], side_px: int, epoch: int) -> None:
    """With any rungs, a copy that is read has a pixel for each pixel of the crop, and no smaller copy has."""
    index = laddered(*sorted(sides))
    plan = TrainPlan(index, AUGMENTATIONS["train"], Schedule.parse(str(side_px)), 64).at(epoch, 1)
    for row, window, chosen in zip(plan.ids.tolist(), plan.windows, plan.rungs.tolist(), strict=True):
        pixels = [
            min(
                (window[2] - window[0]) * rung.heights[row] / index.heights[row],
                (window[3] - window[1]) * rung.widths[row] / index.widths[row],
            )
            for rung in index.rungs
        ]
        enough = [number for number, found in enumerate(pixels) if found >= side_px * 0.999]
        assert chosen == (enough[0] if enough else BASE)


def test_the_order_does_not_depend_on_copies() -> None:
    """Pictures, windows, flips and jitter are those of the same data without copies."""
    with_copies, without = laddered(96, 160), pictureless_index(190, 10)
    one, other = (
        TrainPlan(index, AUGMENTATIONS["train"], Schedule.parse("96"), 32).at(2, 3) for index in (with_copies, without)
    )
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_array_equal(one.windows, other.windows)
    assert set(one.rungs.tolist()) > {BASE}
    assert set(other.rungs.tolist()) == {BASE}


def test_tests_read_copies_too() -> None:
    """A test crop of 96 px of pictures of 300 px and more is read from the copy of 110 px."""
    index = laddered(110, 200)
    (plan,) = EvaluationPlan(index, batch_size=16).batches(Resolution(96))
    assert set(plan.rungs.tolist()) == {0}


def test_copies_are_a_part_of_the_fingerprint() -> None:
    """Data with other copies are other data: a run on them sees other pixels."""
    fingerprints = {
        index.fingerprint for index in (laddered(96), laddered(96, 160), laddered(100), pictureless_index(190, 10))
    }
    assert len(fingerprints) == 4
