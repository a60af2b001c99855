import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imageless import imageless_dataset
from numpy.typing import NDArray

from pipelines.dataset import TRAIN, VAL, Dataset
from pipelines.errors import ConfigError, DataError
from pipelines.plan import AUGMENTATIONS, EvalPlan, TrainPlan, step_seed
from pipelines.plan.batch_plan import BatchPlan
from pipelines.plan.random import uniforms_of
from pipelines.resolution import Resolution, Schedule

CONSTANT = Schedule.parse("128")


def num_batches(plan: EvalPlan) -> int:
    """Return how many batches a rank has, a short last one included."""
    return -(-len(plan.rows) // plan.batch_size)


def _plan(
    dataset: Dataset,
    batch_size: int = 8,
    *,
    augmentation: str = "train",
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> TrainPlan:
    return TrainPlan(dataset, AUGMENTATIONS[augmentation], CONSTANT, batch_size, seed, rank, world_size)


def _columns(plans: list[BatchPlan]) -> dict[str, NDArray[np.float64]]:
    """Join the arrays of batches."""
    jitter = [plan.jitter for plan in plans if plan.jitter is not None]
    return {
        "ids": np.concatenate([plan.ids for plan in plans]).astype(np.float64),
        "crop_boxes": np.concatenate([plan.crop_boxes for plan in plans]),
        "flip": np.concatenate([plan.flip for plan in plans]).astype(np.float64),
        "jitter": np.concatenate(jitter) if jitter else np.empty((0, 3)),
    }


def _assert_same(one: list[BatchPlan], other: list[BatchPlan]) -> None:
    """Compare batches bit for bit, joined together."""
    ours, theirs = _columns(one), _columns(other)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert {plan.resolution for plan in one} == {plan.resolution for plan in other}


def test_an_epoch_is_a_permutation() -> None:
    """If batches divide the training images, each comes exactly once per epoch, in another order every epoch."""
    dataset = imageless_dataset(num_train=96, num_val=10)
    plan = _plan(dataset, 8)
    epochs = [np.concatenate([batch.ids for batch in plan.epoch(epoch)]) for epoch in range(3)]
    for ids in epochs:
        assert sorted(ids.tolist()) == list(range(96))
        assert ids.tolist() != list(range(96))
    assert len({tuple(ids.tolist()) for ids in epochs}) == 3


def test_shapes_of_a_stage_are_those_of_its_phases() -> None:
    """Each pair of batch size and resolution once, in order; a phase without a batch size has the stage's."""
    schedule = Schedule.parse("96@0:batch=16,128@2,96@4:batch=16,128@5:batch=4")
    plan = TrainPlan(imageless_dataset(num_train=96, num_val=10), AUGMENTATIONS["train"], schedule, 8)
    assert plan.shapes == ((16, 96), (8, 128), (4, 128))


def test_an_epoch_has_no_image_twice_and_no_test_image() -> None:
    """If batches do not divide the training images, the rest is left out, another rest each epoch."""
    dataset = imageless_dataset(num_train=100, num_val=30)
    plan = _plan(dataset, 16)
    assert plan.num_steps(0) == 6
    left_out = []
    for epoch in range(4):
        ids = np.concatenate([batch.ids for batch in plan.epoch(epoch)]).tolist()
        assert len(ids) == len(set(ids)) == 96
        assert set(ids) <= set(dataset.rows(TRAIN).tolist())
        left_out.append(frozenset(range(100)) - frozenset(ids))
    assert len(set(left_out)) == 4


def test_every_image_is_as_likely_at_every_place() -> None:
    """Over 2000 epochs each image comes first equally often (within five standard deviations)."""
    plan = _plan(imageless_dataset(num_train=10, num_val=1), 5)
    firsts = np.bincount([plan.at(epoch, 0).ids[0] for epoch in range(2000)], minlength=10)
    assert np.abs(firsts - 200).max() < 5 * 200**0.5


@pytest.mark.parametrize("augmentation", ["train", "v1", "v2"])
@pytest.mark.parametrize("world_size", [2, 4])
def test_the_global_sequence_does_not_depend_on_the_world_size(augmentation: str, world_size: int) -> None:
    """One, two or four processes see the same global batches in the same order, to the bit."""
    dataset = imageless_dataset(num_train=70, num_val=3)
    alone = list(_plan(dataset, 16, augmentation=augmentation).epoch(1))
    size = 16 // world_size
    ranks = [
        _plan(dataset, size, augmentation=augmentation, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    assert {plan.num_steps(0) for plan in ranks} == {len(alone)} == {4}
    for step, batch in enumerate(alone):
        parts = [plan.at(1, step) for plan in ranks]
        assert [len(part) for part in parts] == [size] * world_size
        _assert_same([batch], parts)


def test_a_batch_is_a_function_of_epoch_and_step() -> None:
    """Planned twice, backwards or by another plan object, a step's batch is the same to the bit."""
    dataset = imageless_dataset(num_train=50, num_val=3)
    plan = _plan(dataset, 8)
    forwards = [plan.at(epoch, step) for epoch in (0, 1, 2) for step in range(6)]
    backwards = [_plan(dataset, 8).at(epoch, step) for epoch in (2, 1, 0) for step in reversed(range(6))]
    for one, other in zip(forwards, reversed(backwards), strict=True):
        _assert_same([one], [other])
    _assert_same(forwards[6:12], list(plan.epoch(1)))
    _assert_same(forwards[8:12], list(plan.epoch(1, num_done=16)))


def test_steps_epochs_and_seeds_differ() -> None:
    """No two of several steps, epochs and seeds share their crop boxes."""
    dataset = imageless_dataset(num_train=64, num_val=3)
    plans = [_plan(dataset, 8, seed=seed).at(epoch, step) for seed in (0, 1) for epoch in (0, 1) for step in (0, 1)]
    jitters = [tuple(plan.jitter.ravel()) for plan in plans if plan.jitter is not None]
    assert len(set(jitters)) == len(plans) == 8


GOLDEN: dict[str, object] = {
    "ids": [668, 954, 612, 827],
    "crop_boxes": [[7, 40, 369, 345], [190, 127, 324, 284], [47, 24, 366, 420], [6, 27, 222, 295]],
    "flip": [False, True, False, True],
    "jitter": [[1.05309, 1.068681, 1.246769], [1.149577, 0.869, 1.028049], [0.815562, 0.794287, 0.973464],
               [1.000389, 1.018579, 1.242947]],
}  # fmt: skip


def _golden_batch() -> dict[str, object]:
    """Return seed 0, epoch 3, step 17 in plain types, jitter rounded to six places."""
    batch = _plan(imageless_dataset(num_train=1000, num_val=10), 4).at(3, 17)
    assert batch.jitter is not None
    return {
        "ids": batch.ids.tolist(),
        "crop_boxes": batch.crop_boxes.tolist(),
        "flip": batch.flip.tolist(),
        "jitter": batch.jitter.round(6).tolist(),
    }


def test_golden_batch() -> None:
    """Seed 0, epoch 3, step 17 is this batch on every machine: runs on different machines can be compared."""
    assert _golden_batch() == GOLDEN


def test_another_process_plans_the_same() -> None:
    """A fresh process gets the golden batch too: nothing depends on hash seeds or on what ran before."""
    code = "import sys; sys.path.append('..'); import json, test_plan; print(json.dumps(test_plan._golden_batch()))"
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == GOLDEN


def test_resolution_changes_exactly_at_its_epoch() -> None:
    """All batches of an epoch have its phase's resolution; the order and the flips do not depend on it."""
    dataset = imageless_dataset(num_train=20, num_val=3)
    phases = TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse("96@0,128@2,160@3"), 8)
    sides = [[batch.resolution.crop_px for batch in phases.epoch(epoch)] for epoch in range(5)]
    assert sides == [[96, 96], [96, 96], [128, 128], [160, 160], [160, 160]]
    np.testing.assert_array_equal(phases.at(3, 1).ids, _plan(dataset, 8).at(3, 1).ids)
    np.testing.assert_array_equal(phases.at(3, 1).crop_boxes, _plan(dataset, 8).at(3, 1).crop_boxes)


def test_a_phase_has_its_own_batch_size() -> None:
    """A phase's batch size is its own or else the stage's, and the steps of the stage add up over both."""
    plan = TrainPlan(
        imageless_dataset(50, 3), AUGMENTATIONS["train"], Schedule.parse("96@0:batch=16,128@2"), 8, world_size=2
    )
    assert [plan.global_batch(epoch) for epoch in range(4)] == [32, 32, 16, 16]
    assert [plan.num_steps(epoch) for epoch in range(4)] == [1, 1, 3, 3]
    assert [plan.steps_before(epoch) for epoch in range(5)] == [0, 1, 2, 5, 8]
    assert plan.steps_before(2, num_done=32) == 4
    assert (len(plan.at(0, 0)), len(plan.at(2, 2))) == (16, 8)
    assert plan.max_batch_size == 16


def test_a_batch_larger_than_the_data_in_a_later_phase() -> None:
    """A batch that the training images cannot fill is refused in any phase before anything is trained."""
    with pytest.raises(ConfigError, match=r"^a batch of 64 images is larger than the 50 "):
        TrainPlan(imageless_dataset(50, 3), AUGMENTATIONS["train"], Schedule.parse("96@0,128@2:batch=64"), 8)


def test_repeats_literals() -> None:
    """With two repeats a global batch of four is two images and the same two again, on the other rank."""
    dataset, view = imageless_dataset(num_train=10, num_val=3), AUGMENTATIONS["train"]
    ranks = [TrainPlan(dataset, view, CONSTANT, 2, rank=rank, world_size=2, repeats=2) for rank in (0, 1)]
    once = _plan(dataset, 2)
    for step in range(2):
        assert ranks[0].at(0, step).ids.tolist() == once.at(0, step).ids.tolist()
        assert ranks[1].at(0, step).ids.tolist() == once.at(0, step).ids.tolist()
        assert ranks[0].at(0, step).crop_boxes.tolist() != ranks[1].at(0, step).crop_boxes.tolist()


def test_repeats_divide_the_global_batch() -> None:
    """Repeats that do not divide a phase's global batch are refused with all numbers and the way out."""
    dataset = imageless_dataset(num_train=64, num_val=3)
    schedule = Schedule.parse("96@0:batch=6,128@2:batch=4")
    assert TrainPlan(dataset, AUGMENTATIONS["train"], schedule, 1, world_size=3, repeats=6).num_steps(0) == 3
    expected = (
        r"^the global batch of 12 images \(4 on each of 3 process\(es\)\) is not a multiple of `repeats=9`; "
        r"`batch_size=6` is$"
    )
    with pytest.raises(ConfigError, match=expected):
        TrainPlan(dataset, AUGMENTATIONS["train"], schedule, 1, world_size=3, repeats=9)


def test_unreadable_images_literals() -> None:
    """Ten images in batches of four: the others move up, the two spare ones follow, then the first come again."""
    dataset, view = imageless_dataset(num_train=10, num_val=3), AUGMENTATIONS["train"]
    order = [int(row) for batch in _plan(dataset, 1).epoch(0) for row in batch.ids]

    def shown(*places: int) -> list[int]:
        plan = TrainPlan(dataset, view, CONSTANT, 4, unreadable=frozenset(order[place] for place in places))
        return [order.index(row) for batch in plan.epoch(0) for row in batch.ids]

    assert shown() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert shown(9) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert shown(5) == [0, 1, 2, 3, 4, 6, 7, 8]
    assert shown(0, 5, 9) == [1, 2, 3, 4, 6, 7, 8, 1]
    assert shown(0, 1, 2, 3, 4, 5, 6, 7) == [8, 9, 8, 9, 8, 9, 8, 9]


def test_no_readable_image_on_a_rank() -> None:
    """A rank that can read none of its images is an error that names it."""
    dataset = imageless_dataset(num_train=10, num_val=3)
    plan = TrainPlan(dataset, AUGMENTATIONS["train"], CONSTANT, 4, unreadable=frozenset(range(10)))
    with pytest.raises(DataError, match=r"^none of the 10 training images of rank 0 can be read$"):
        plan.at(0, 0)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 500), min_size=1, max_size=30), st.integers(1, 13))
def test_uniforms_belong_to_their_positions(positions: list[int], width: int) -> None:
    """Positions in any order, and twice, get their rows of the one sequence that NumPy draws from its beginning."""
    philox = np.random.Philox(np.random.SeedSequence([5, 1, 2]))
    whole = np.random.Generator(philox).random((501, -(-width // 4) * 4))[:, :width]
    np.testing.assert_array_equal(uniforms_of(5, 2, np.array(positions), width), whole[positions])


def test_step_seeds() -> None:
    """The seed of a step is a number of 64 bits, the same on every machine, and another for each rank and step."""
    assert [step_seed(0, 0, 0), step_seed(7, 1, 93)] == [17195319236771816063, 6927224060059786132]
    seeds = {step_seed(seed, rank, step) for seed in range(3) for rank in range(4) for step in range(40)}
    assert len(seeds) == 3 * 4 * 40
    assert all(0 <= seed < 2**64 for seed in seeds)


@pytest.mark.parametrize(("augmentation", "strength"), [("train", 0.3), ("v2", 0.05)])
def test_jitter_is_uniform_around_one(augmentation: str, strength: float) -> None:
    """Brightness, contrast and saturation are scaled by independent factors, uniform within 1 ± the strength."""
    plan = _plan(imageless_dataset(num_train=4000, num_val=3), 4000, augmentation=augmentation)
    jitter = plan.at(0, 0).jitter
    assert jitter is not None
    assert jitter.shape == (4000, 3)
    assert jitter.min() >= 1 - strength
    assert jitter.max() < 1 + strength
    quantiles = np.quantile((jitter - 1) / strength, [0, 0.25, 0.5, 0.75, 1], axis=0)
    # A quartile of 4000 uniforms in ±1 has a standard deviation of 0.014.
    np.testing.assert_allclose(quantiles, np.tile([[-1], [-0.5], [0], [0.5], [1]], (1, 3)), atol=0.07)
    correlations = np.asarray(np.corrcoef(jitter.T))
    assert np.abs(correlations[np.triu_indices(3, 1)]).max() < 0.08


def test_no_jitter_is_none() -> None:
    """An augmentation without jitter leaves colours alone altogether."""
    batch = _plan(imageless_dataset(num_train=20, num_val=3), augmentation="v1").at(0, 0)
    assert batch.jitter is None


@pytest.mark.parametrize(("augmentation", "share"), [("train", 0.5), ("v1", 0.0), ("v2", 0.5)])
def test_share_of_flips(augmentation: str, share: float) -> None:
    """Half of the images are mirrored, or none, whatever their crop box and jitter are."""
    batch = _plan(imageless_dataset(num_train=4000, num_val=3), 4000, augmentation=augmentation).at(0, 0)
    assert batch.flip.dtype == np.bool_
    # Five standard deviations of a share of 4000 coins are 0.04.
    assert batch.flip.mean() == pytest.approx(share, abs=0.04 if share else 0)
    if share and batch.jitter is not None:
        together = np.stack([batch.flip, batch.jitter[:, 0], batch.crop_boxes[:, 1]])
        assert np.abs(np.asarray(np.corrcoef(together))[0, 1:]).max() < 0.08


def test_crop_boxes_belong_to_their_images() -> None:
    """Crop boxes lie in the image of the same row, and those of v1 are the test crops."""
    dataset = imageless_dataset(num_train=60, num_val=3)
    for augmentation in ("train", "v1", "v2"):
        batch = _plan(dataset, 60, augmentation=augmentation).at(0, 0)
        assert sorted(batch.ids.tolist()) == list(range(60))
        y0, x0, y1, x1 = batch.crop_boxes.T
        assert (y0 >= 0).all()
        assert (x0 >= 0).all()
        assert (y1 <= dataset.heights[batch.ids] + 1e-9).all()
        assert (x1 <= dataset.widths[batch.ids] + 1e-9).all()
        assert len({tuple(crop) for crop in batch.crop_boxes.tolist()}) > 30
    test_batch = _plan(dataset, 60, augmentation="v1").at(0, 0)
    (row,) = np.flatnonzero(test_batch.ids == 5)
    # Image 5 is 335 by 355 pixels; resized to 146 by 154, the crop begins at (9, 13).
    expected = [9 * 335 / 146, 13 * 355 / 154, 137 * 335 / 146, 141 * 355 / 154]
    np.testing.assert_allclose(test_batch.crop_boxes[row], expected, rtol=1e-12)


def test_batch_larger_than_the_data() -> None:
    """A global batch that the training images cannot fill is refused with both numbers and the way out."""
    dataset = imageless_dataset(num_train=31, num_val=3)
    assert _plan(dataset, 31).num_steps(0) == 1
    expected = (
        r"batch of 16 images on each of 2 processes is larger than the 31 training images of /data; lower `batch_size`"
    )
    with pytest.raises(ConfigError, match=expected):
        _plan(dataset, 16, world_size=2)


def test_training_needs_training_images() -> None:
    """A data set without training images is refused with the folder expected."""
    with pytest.raises(DataError, match=r"^/data has no training images; expected /data/train/<class>"):
        _plan(imageless_dataset(num_train=0, num_val=3), 1)


@pytest.mark.parametrize("batch_size", [0, -4])
def test_batch_size_is_at_least_one(batch_size: int) -> None:
    """A batch of nothing is refused, for training and for evaluation."""
    dataset = imageless_dataset(num_train=10, num_val=3)
    with pytest.raises(ConfigError, match=rf"`batch_size` must be at least 1; found {batch_size}"):
        _plan(dataset, batch_size)
    with pytest.raises(ConfigError, match=rf"`batch_size` must be at least 1; found {batch_size}"):
        EvalPlan(dataset, batch_size)


@pytest.mark.parametrize("step", [-1, 6])
def test_steps_out_of_the_epoch(step: int) -> None:
    """A step that the epoch does not have is an IndexError, not a wrong batch."""
    with pytest.raises(IndexError, match=rf"^step {step} of 6$"):
        _plan(imageless_dataset(num_train=50, num_val=3), 8).at(0, step)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 9))
def test_evaluation_covers_every_test_image_once(num_val: int, batch_size: int, world_size: int) -> None:
    """Over all ranks each test image comes exactly once, for any number of images, batch and world size."""
    dataset = imageless_dataset(num_train=5, num_val=num_val)
    plans = [EvalPlan(dataset, batch_size, rank, world_size) for rank in range(world_size)]
    batches = [list(plan.batches(Resolution(160))) for plan in plans]
    assert [len(some) for some in batches] == [num_batches(plan) for plan in plans]
    sizes = [len(batch) for some in batches for batch in some]
    assert all(1 <= size <= batch_size for size in sizes)
    ids = [int(row) for some in batches for batch in some for row in batch.ids]
    assert sorted(ids) == dataset.rows(VAL).tolist()
    counts = [sum(len(batch) for batch in some) for some in batches]
    assert max(counts) - min(counts) <= 1


def test_evaluation_batches_are_plain_test_crops() -> None:
    """An evaluation has centre crops in the order of rows, not mirrored and with unchanged colours."""
    dataset = imageless_dataset(num_train=5, num_val=11)
    batches = list(EvalPlan(dataset, 4).batches(Resolution(128)))
    assert [batch.ids.tolist() for batch in batches] == [[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15]]
    for batch in batches:
        assert not batch.flip.any()
        assert batch.jitter is None
        assert batch.resolution == Resolution(128)
    expected = [9 * 335 / 146, 13 * 355 / 154, 137 * 335 / 146, 141 * 355 / 154]
    np.testing.assert_allclose(batches[0].crop_boxes[0], expected, rtol=1e-12)


def test_evaluation_needs_test_images() -> None:
    """A data set without test images is refused with its folder."""
    with pytest.raises(DataError, match=r"^/data has no images to test on"):
        EvalPlan(imageless_dataset(num_train=5, num_val=0), 4)
