"""What holds for any number of images, batch size, number of processes, repeats, phases and unreadable images."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, cycle, islice
from math import gcd

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imageless import imageless_dataset

from pipelines.errors import DataError
from pipelines.plan import AUGMENTATIONS, EvalPlan, TrainPlan
from pipelines.plan.batch_plan import BatchPlan
from pipelines.resolution import Phase, Resolution, Schedule

Sample = tuple[int, tuple[float, ...], bool, tuple[float, ...]]
"""The network's view of an image: row, crop box, flip, jitter."""

any_case = settings(derandomize=True, deadline=None, max_examples=80)


_dataset = lru_cache(maxsize=64)(imageless_dataset)


def num_batches(plan: EvalPlan) -> int:
    """Return how many batches a rank has, a short last one included."""
    return -(-len(plan.rows) // plan.batch_size)


@dataclass(frozen=True, slots=True)
class Case:
    """One epoch of a stage with two phases, the second from epoch 2 on."""

    num_train: int
    batch_sizes: tuple[int, int]
    world_size: int
    repeats: int
    epoch: int
    seed: int

    @property
    def global_batch(self) -> int:
        """Images per step over all processes."""
        return self.batch_sizes[self.epoch >= 2] * self.world_size

    @property
    def num_steps(self) -> int:
        """Full global batches of the epoch."""
        return self.num_train // self.global_batch

    @property
    def permutation(self) -> list[int]:
        """The order of the epoch's images, from NumPy alone."""
        philox = np.random.Philox(np.random.SeedSequence([self.seed, 0, self.epoch]))
        return [int(row) for row in np.random.Generator(philox).permutation(self.num_train)]

    def plan(self, rank: int = 0, unreadable: frozenset[int] = frozenset()) -> TrainPlan:
        """Return the plan of a rank."""
        first, second = self.batch_sizes
        return TrainPlan(
            _dataset(self.num_train),
            AUGMENTATIONS["train"],
            Schedule((Phase(0, 96, batch_size=first), Phase(2, 128, batch_size=second))),
            batch_size=1,
            seed=self.seed,
            rank=rank,
            world_size=self.world_size,
            repeats=self.repeats,
            unreadable=unreadable,
        )

    def step(self, step: int, num_done: int = 0) -> list[Sample]:
        """Return a global batch, by rank."""
        ranks = range(self.world_size)
        return [sample for rank in ranks for sample in _samples(self.plan(rank).at(self.epoch, step, num_done))]


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


@st.composite
def cases(draw: st.DrawFn, max_repeats: int = 99) -> Case:
    """Draw a case whose global batches the data can fill and the repeats divide."""
    world_size = draw(st.integers(1, 5))
    first, second = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    divisors = _divisors(gcd(first * world_size, second * world_size))
    return Case(
        num_train=max(first, second) * world_size + draw(st.integers(0, 60)),
        batch_sizes=(first, second),
        world_size=world_size,
        repeats=draw(st.sampled_from([divisor for divisor in divisors if divisor <= max_repeats])),
        epoch=draw(st.integers(0, 3)),
        seed=draw(st.integers(0, 3)),
    )


def _samples(batch: BatchPlan) -> list[Sample]:
    assert batch.jitter is not None
    columns = (batch.ids.tolist(), batch.crop_boxes.tolist(), batch.flip.tolist(), batch.jitter.tolist())
    return [(row, tuple(crop), flip, tuple(jitter)) for row, crop, flip, jitter in zip(*columns, strict=True)]


def _rows(batch: BatchPlan) -> list[int]:
    return [int(row) for row in batch.ids]


# Whole epochs


@any_case
@given(cases())
def test_an_epoch_covers_its_images(case: Case) -> None:
    """Over ranks and steps the first images of the permutation come exactly `repeats` times, the others never."""
    assert case.plan().num_steps(case.epoch) == case.num_steps
    assert case.plan().global_batch(case.epoch) == case.global_batch
    ranks = [list(case.plan(rank).epoch(case.epoch)) for rank in range(case.world_size)]
    assert {len(batches) for batches in ranks} == {case.num_steps}
    seen = Counter(row for batches in ranks for batch in batches for row in _rows(batch))
    shown = case.permutation[: case.num_steps * case.global_batch // case.repeats]
    assert seen == dict.fromkeys(shown, case.repeats)


@any_case
@given(cases())
def test_a_global_batch_has_the_next_images_varied_each_on_its_own(case: Case) -> None:
    """Each step takes the next images of the permutation, and no two copies of one are varied alike."""
    share = case.global_batch // case.repeats
    for step in range(case.num_steps):
        samples = case.step(step)
        expected = case.permutation[step * share : (step + 1) * share]
        assert Counter(sample[0] for sample in samples) == dict.fromkeys(expected, case.repeats)
        assert len(set(samples)) == len(samples)


@any_case
@given(cases())
def test_copies_of_an_image_lie_on_different_ranks(case: Case) -> None:
    """A rank has two copies of an image in a batch only where there are more copies than ranks."""
    for rank in range(case.world_size):
        for batch in case.plan(rank).epoch(case.epoch):
            copies = Counter(_rows(batch))
            assert max(copies.values()) <= -(-case.repeats // case.world_size)


@any_case
@given(cases(), st.data())
def test_the_global_sequence_does_not_depend_on_the_number_of_processes(case: Case, data: st.DataObject) -> None:
    """For every world size with the same global batch, each global batch has the same samples, to the bit."""
    totals = tuple(size * case.world_size for size in case.batch_sizes)
    world_size = data.draw(st.sampled_from(_divisors(gcd(*totals))))
    other = replace(case, world_size=world_size, batch_sizes=(totals[0] // world_size, totals[1] // world_size))
    for step in range(case.num_steps):
        assert case.step(step) == other.step(step)


@any_case
@given(cases())
def test_steps_before_count_all_epochs(case: Case) -> None:
    """Steps before a position are those of all epochs before, each with its own batch, and of the epoch so far."""
    first, second = (case.num_train // (size * case.world_size) for size in case.batch_sizes)
    before = [0, first, 2 * first, 2 * first + second, 2 * first + 2 * second]
    plan = case.plan()
    assert [plan.steps_before(epoch) for epoch in range(5)] == before
    for step in range(case.num_steps + 1):
        assert plan.steps_before(case.epoch, step * case.global_batch) == before[case.epoch] + step
    assert plan.max_batch_size == max(case.batch_sizes)


# Resuming within an epoch


@any_case
@given(cases(), st.data())
def test_the_same_batch_resumes_to_the_bit(case: Case, data: st.DataObject) -> None:
    """From any step on, an epoch is the tail of the whole epoch, on every rank."""
    done = data.draw(st.integers(0, case.num_steps))
    num_done = done * case.global_batch
    for rank in range(case.world_size):
        plan = case.plan(rank)
        assert plan.num_steps(case.epoch, num_done) == case.num_steps - done
        whole = [_samples(batch) for batch in plan.epoch(case.epoch)]
        assert [_samples(batch) for batch in plan.epoch(case.epoch, num_done)] == whole[done:]


@any_case
@given(cases(), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(0, 3)), max_size=3))
def test_another_global_batch_resumes_where_the_last_one_ended(case: Case, changes: list[tuple[int, int, int]]) -> None:
    """However often the global batch changes, images follow on in the permutation up to the last full batch."""
    # Batches that are multiples of the repeats, as they must be; each lasts some steps, the last one to the end.
    parts = [(case.world_size, case.batch_sizes[0], 2), *((w, size * case.repeats, n) for w, size, n in changes)]
    parts = [part for part in parts if part[0] * part[1] <= case.num_train]
    num_done = 0
    for number, (world_size, size, wanted) in enumerate(parts, start=1):
        total = world_size * size
        part = replace(case, world_size=world_size, batch_sizes=(size, size))
        num_steps = part.plan().num_steps(case.epoch, num_done)
        assert num_steps == (case.num_train - num_done) // total
        num_steps = num_steps if number == len(parts) else min(wanted, num_steps)
        for step in range(num_steps):
            first = (num_done + step * total) // case.repeats
            expected = case.permutation[first : first + total // case.repeats]
            rows = Counter(sample[0] for sample in part.step(step, num_done))
            assert rows == dict.fromkeys(expected, case.repeats)
        num_done += num_steps * total


@any_case
@given(cases(max_repeats=1), st.data())
def test_another_global_batch_changes_no_sample(case: Case, data: st.DataObject) -> None:
    """An image's augmentation belongs to its position in the epoch, whichever batch it falls into after a change."""
    alone = replace(case, world_size=1, batch_sizes=(1, 1))
    whole = [sample for step in range(case.num_train) for sample in alone.step(step)]
    num_done = data.draw(st.integers(0, case.num_steps)) * case.global_batch
    world_size = data.draw(st.integers(1, 4))
    size = data.draw(st.integers(1, max(1, case.num_train // world_size)))
    if world_size * size > case.num_train:
        world_size, size = 1, 1
    other = replace(case, world_size=world_size, batch_sizes=(size, size))
    num_steps = other.plan().num_steps(case.epoch, num_done)
    rest = [sample for step in range(num_steps) for sample in other.step(step, num_done)]
    assert rest == whole[num_done : num_done + num_steps * world_size * size]


# Unreadable images


@st.composite
def broken_cases(draw: st.DrawFn, max_repeats: int = 99) -> tuple[Case, int, frozenset[int]]:
    """Draw a case, a rank, and rows that are unreadable: few, many, or all."""
    case = draw(cases(max_repeats))
    rows = st.integers(0, case.num_train - 1)
    few = st.frozensets(rows, max_size=5)
    many = st.frozensets(rows, max_size=3).map(lambda kept: frozenset(range(case.num_train)) - kept)
    return case, draw(st.integers(0, case.world_size - 1)), draw(few | st.frozensets(rows) | many)


def _places(case: Case, rank: int) -> tuple[list[int], list[int]]:
    """Return the rows of a rank's batches, and its part of those that fill no batch."""
    own = [row for batch in case.plan(rank).epoch(case.epoch) for row in _rows(batch)]
    spare = case.permutation[case.num_steps * case.global_batch // case.repeats :]
    return own, spare[rank :: case.world_size]


@any_case
@given(broken_cases())
def test_the_next_images_of_the_rank_take_the_place_of_unreadable_ones(
    broken: tuple[Case, int, frozenset[int]],
) -> None:
    """Every batch is full and readable: images move up, then come spare ones, then the rank's first ones again."""
    case, rank, unreadable = broken
    own, spare = _places(case, rank)
    readable = [row for row in chain(own, spare) if row not in unreadable]
    plan = case.plan(rank, unreadable)
    if not readable:
        with pytest.raises(DataError, match=rf"^none of the {len(own) + len(spare)} training images of rank {rank}"):
            plan.at(case.epoch, 0)
        return
    batches = [_rows(batch) for batch in plan.epoch(case.epoch)]
    size = case.global_batch // case.world_size
    assert [len(batch) for batch in batches] == [size] * case.num_steps
    assert list(chain(*batches)) == list(islice(cycle(readable), case.num_steps * size))


@any_case
@given(broken_cases())
def test_batches_before_the_first_unreadable_image_do_not_change(broken: tuple[Case, int, frozenset[int]]) -> None:
    """Up to the first unreadable image of the rank its batches are those of the whole data set, to the bit."""
    case, rank, unreadable = broken
    own, spare = _places(case, rank)
    if unreadable.issuperset(own + spare):
        return
    whole = [_samples(batch) for batch in case.plan(rank).epoch(case.epoch)]
    batches = [_samples(batch) for batch in case.plan(rank, unreadable).epoch(case.epoch)]
    size = case.global_batch // case.world_size
    first = next((place for place, row in enumerate(own) if row in unreadable), len(own))
    assert batches[: first // size] == whole[: first // size]


@any_case
@given(broken_cases(), st.data())
def test_found_one_by_one_is_as_known_from_the_start(
    broken: tuple[Case, int, frozenset[int]], data: st.DataObject
) -> None:
    """Whether images are found batch by batch, even over a resumption, or are known before: batches are the same."""
    case, rank, unreadable = broken
    own, spare = _places(case, rank)
    if unreadable.issuperset(own + spare):
        return
    expected = [_samples(batch) for batch in case.plan(rank, unreadable).epoch(case.epoch)]
    resumed_at = data.draw(st.integers(0, case.num_steps))
    known: frozenset[int] = frozenset()
    for step in range(case.num_steps):
        done = resumed_at if step >= resumed_at else 0
        while True:
            batch = case.plan(rank, known).at(case.epoch, step - done, done * case.global_batch)
            found = unreadable.intersection(_rows(batch))
            if not found:
                break
            known |= found
        assert _samples(batch) == expected[step]


@any_case
@given(broken_cases(max_repeats=1))
def test_spare_images_stand_in_for_unreadable_ones(broken: tuple[Case, int, frozenset[int]]) -> None:
    """A rank that has no more unreadable images than spare ones gets none twice; no two ranks get the same."""
    case, _, unreadable = broken
    seen: Counter[int] = Counter()
    for rank in range(case.world_size):
        own, spare = _places(case, rank)
        if unreadable.issuperset(own + spare):
            return
        rows = Counter(row for batch in case.plan(rank, unreadable).epoch(case.epoch) for row in _rows(batch))
        if len(unreadable.intersection(own + spare)) <= len(spare):
            assert set(rows.values()) == {1}
        seen.update(rows.keys())
    assert set(seen.values()) == {1}
    assert not unreadable.intersection(seen)


# Evaluation


@st.composite
def evaluations(draw: st.DrawFn) -> tuple[list[EvalPlan], frozenset[int]]:
    """Draw the plans of all ranks and the unreadable images, training ones among them."""
    num_val, world_size, batch_size = draw(st.tuples(st.integers(1, 60), st.integers(1, 9), st.integers(1, 20)))
    dataset = _dataset(5, num_val)
    rows = st.integers(0, len(dataset) - 1)
    unreadable = draw(st.frozensets(rows) | st.just(frozenset()) | st.just(frozenset(range(len(dataset)))))
    plans = [EvalPlan(dataset, batch_size, rank, world_size, unreadable) for rank in range(world_size)]
    return plans, unreadable


@any_case
@given(evaluations())
def test_evaluation_has_each_readable_image_once(drawn: tuple[list[EvalPlan], frozenset[int]]) -> None:
    """Over all ranks each readable test image comes exactly once; ranks without any have no batch."""
    plans, unreadable = drawn
    num_images = plans[0].num_images
    ranks = [[_rows(batch) for batch in plan.batches(Resolution(96))] for plan in plans]
    assert sorted(row for batches in ranks for batch in batches for row in batch) == sorted(
        set(range(5, 5 + num_images)) - unreadable
    )
    assert [len(batches) for batches in ranks] == [num_batches(plan) for plan in plans]
    for batches in ranks:
        assert all(len(batch) == plans[0].batch_size for batch in batches[:-1])
        assert all(1 <= len(batch) <= plans[0].batch_size for batch in batches[-1:])
    assert sum(plan.num_assigned for plan in plans) == num_images
    num_unreadable = sum(plan.num_assigned - len(plan.rows) for plan in plans)
    assert num_unreadable == len(unreadable - set(range(5)))


@any_case
@given(evaluations())
def test_rounds_are_the_most_batches_of_any_rank(drawn: tuple[list[EvalPlan], frozenset[int]]) -> None:
    """All ranks count the same rounds; none has more batches, and if all can be read none is two behind."""
    plans, _ = drawn
    (num_rounds,) = {plan.num_rounds for plan in plans}
    assert all(num_batches(plan) <= num_rounds for plan in plans)
    counts = [num_batches(replace(plan, unreadable=frozenset())) for plan in plans]
    assert max(counts) == num_rounds
    assert min(counts) >= num_rounds - 1


@any_case
@given(evaluations(), st.integers(0, 25))
def test_an_evaluation_goes_on_from_any_batch(drawn: tuple[list[EvalPlan], frozenset[int]], first_batch: int) -> None:
    """From a batch on, an evaluation is the tail of the whole one; past the end there is nothing."""
    for plan in drawn[0]:
        whole = [_rows(batch) for batch in plan.batches(Resolution(96))]
        assert [_rows(batch) for batch in plan.batches(Resolution(96), first_batch)] == whole[first_batch:]


@any_case
@given(evaluations())
def test_an_evaluation_finds_unreadable_images_as_it_goes(
    drawn: tuple[list[EvalPlan], frozenset[int]],
) -> None:
    """Found out batch by batch, unreadable images leave the same batches as if they were known before."""
    for plan in drawn[0]:
        known: frozenset[int] = frozenset()
        batches: list[list[int]] = []
        while len(batches) < num_batches(replace(plan, unreadable=known)):
            batch = _rows(next(replace(plan, unreadable=known).batches(Resolution(96), len(batches))))
            if found := plan.unreadable.intersection(batch):
                known |= found
            else:
                batches.append(batch)
        assert batches == [_rows(batch) for batch in plan.batches(Resolution(96))]
