"""The loader: exact switches, exact coverage, no leaks, clear errors."""

import gc
import os
import shutil
import threading
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from shapes import check_shapes

from dali_fixres.batch import BatchPlan
from dali_fixres.errors import DataError
from dali_fixres.index import VAL, Index, open_data
from dali_fixres.plan import AUGMENTATIONS, EvaluationPlan, TrainPlan
from dali_fixres.resolution import Resolution, Schedule
from pipelines import Loader
from pipelines.graph import GIVES_WAY
from pipelines.loader import refused_row


def training(index: Index, schedule: str, batch_size: int = 8) -> TrainPlan:
    """Return a training plan of five steps per epoch."""
    return TrainPlan(index, AUGMENTATIONS["train"], Schedule.parse(schedule), batch_size)


def mixed_plans(index: Index) -> list[BatchPlan]:
    """Return plans of many resolutions, sizes and stages in one stream."""
    plan = training(index, "64@0,160@1,96@2")
    evaluation = EvaluationPlan(index, batch_size=6)
    tests = list(evaluation.batches(Resolution(224)))
    return [
        *plan.epoch(0),
        *tests,
        *plan.epoch(1),
        plan.at(2, 0),
        plan.at(0, 1),
        plan.at(1, 2),
        tests[-1],
        plan.at(2, 3),
    ]


def niceness_of_threads() -> dict[int, int]:
    """Return that of each thread of this process that is not just ending."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            found[int(task.name)] = os.getpriority(os.PRIO_PROCESS, int(task.name))
    return found


def test_on_a_cpu_the_network_goes_first(index: Index) -> None:
    """The graph's threads get what the process' other threads leave, which keep their priority."""
    before = niceness_of_threads()
    with Loader(index, max_batch_size=8, num_threads=3) as loader:
        next(loader.run(training(index, "64").epoch(0)))
        after = niceness_of_threads()
    kept = before.keys() & after.keys()
    assert {task: after[task] for task in kept} == {task: before[task] for task in kept}
    new = [niceness for task, niceness in after.items() if task not in before]
    assert len(new) > 3
    assert set(new) == {min(19, os.getpriority(os.PRIO_PROCESS, 0) + GIVES_WAY)}


def test_a_system_that_forbids_niceness_is_no_obstacle(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the graph's threads have the process' own priority, and make the same batches."""

    def forbidden(_: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "nice", forbidden)
    before = niceness_of_threads()
    with Loader(index, max_batch_size=8) as loader:
        assert len(next(loader.run(training(index, "64").epoch(0))).images) == 8
        new = [niceness for task, niceness in niceness_of_threads().items() if task not in before]
    assert set(new) == {os.getpriority(os.PRIO_PROCESS, 0)}


@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_resolution_switches_exactly_on_the_batch(index: Index, prefetch: int) -> None:
    """Every batch of a mixed stream has the ids, labels, shape and resolution of its plan."""
    plans = mixed_plans(index)
    with Loader(index, max_batch_size=8, prefetch=prefetch) as loader:
        batches = list(loader.run(plans))
    assert len(batches) == len(plans)
    for plan, batch in zip(plans, batches, strict=True):
        check_shapes(batch)
        assert batch.resolution == plan.resolution
        np.testing.assert_array_equal(batch.ids, plan.ids)
        np.testing.assert_array_equal(batch.labels.numpy(), index.labels[plan.ids])
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_depends_on_its_plan_alone(index: Index) -> None:
    """The same plans in another order, with other thread numbers and prefetch, give the same bits."""
    plans = mixed_plans(index)
    with Loader(index, max_batch_size=8, num_threads=2, prefetch=3) as loader:
        forward = [batch.images.clone() for batch in loader.run(plans)]
    with Loader(index, max_batch_size=16, num_threads=1, prefetch=1) as loader:
        backward = [batch.images.clone() for batch in loader.run(plans[::-1])]
    for one, other in zip(forward, backward[::-1], strict=True):
        assert torch.equal(one, other)


def test_batches_held_are_not_overwritten(index: Index) -> None:
    """Zero-copy batches keep their content while later ones are made, and after the loader is closed."""
    plan = training(index, "96")
    with Loader(index, max_batch_size=8) as loader:
        held = [(batch.images, batch.images.clone()) for epoch in range(3) for batch in loader.run(plan.epoch(epoch))]
    gc.collect()
    assert len(held) == 15
    assert all(torch.equal(images, copy) for images, copy in held)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_picture_once(index: Index, world_size: int) -> None:
    """Over all ranks, each test picture comes exactly once, short last batches included."""
    seen: list[int] = []
    for rank in range(world_size):
        plan = EvaluationPlan(index, batch_size=7, rank=rank, world_size=world_size)
        with Loader(index, max_batch_size=7) as loader:
            seen += [row for batch in loader.run(plan.batches(Resolution(64))) for row in batch.ids.tolist()]
    assert sorted(seen) == index.rows(VAL).tolist()


def test_an_abandoned_run_leaves_nothing_behind(index: Index) -> None:
    """A run left in the middle does not leak batches into the next one, and cannot go on after it."""
    plan = training(index, "64@0,96@1")
    with Loader(index, max_batch_size=8) as loader:
        first = loader.run(plan.epoch(0))
        next(first)
        second = list(loader.run(plan.epoch(1)))
        assert [batch.resolution.crop_px for batch in second] == [96] * 5
        assert list(first) == []


def test_an_endless_stream_is_read_only_a_few_batches_ahead(index: Index) -> None:
    """Plans are drawn as they are needed, so a stream may be endless."""
    plan = training(index, "64")
    drawn = 0

    def endless() -> object:
        nonlocal drawn
        while True:
            drawn += 1
            yield plan.at(0, drawn % 5)

    with Loader(index, max_batch_size=8, prefetch=2) as loader:
        assert len(list(islice(loader.run(endless()), 10))) == 10  # type: ignore[arg-type]
    assert 10 <= drawn <= 13


def test_fifty_loaders_leave_no_threads_and_no_memory(index: Index) -> None:
    """Building, running and closing 50 loaders neither adds threads nor lets memory grow."""
    plan = training(index, "128")

    def once() -> None:
        with Loader(index, max_batch_size=8) as loader:
            next(loader.run(plan.epoch(0)))

    for _ in range(10):
        once()
    gc.collect()
    threads, resident, in_python = num_threads(), resident_mib(), threading.active_count()
    for _ in range(50):
        once()
    gc.collect()
    assert num_threads() <= threads
    assert threading.active_count() <= in_python
    assert resident_mib() - resident < 40


def num_threads() -> int:
    """Return the number of the process's threads, DALI's included."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def resident_mib() -> float:
    """Return the process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.parametrize("damage", ["truncate", "text", "empty", "delete"])
def test_a_broken_file_is_named(pictures: Path, tmp_path: Path, damage: str) -> None:
    """A file that breaks after it was indexed stops the run with an error that names it; the loader goes on."""
    root = Path(shutil.copytree(pictures, tmp_path / "data"))
    index = open_data(root).index
    plan = EvaluationPlan(index, batch_size=5)
    victim = index.path(int(plan.rows[7]))
    if damage == "truncate":
        victim.write_bytes(victim.read_bytes()[:700])
    elif damage == "delete":
        victim.unlink()
    else:
        victim.write_bytes(b"no picture" if damage == "text" else b"")
    with Loader(index, max_batch_size=5) as loader:
        batches = loader.run(plan.batches(Resolution(64)))
        next(batches)
        with pytest.raises(DataError, match="cannot decode") as caught:
            next(batches)
        assert str(victim) in str(caught.value)
        (good,) = loader.run(list(plan.batches(Resolution(64)))[:1])
    assert len(good) == 5


@pytest.mark.gpu
def test_gpu_batches_switch_exactly(index: Index) -> None:
    """On a GPU too, every batch of a mixed stream is what its plan says."""
    plans = mixed_plans(index)
    with Loader(index, max_batch_size=8, device="cuda") as loader:
        batches = list(loader.run(plans))
    for plan, batch in zip(plans, batches, strict=True):
        check_shapes(batch)
        assert batch.resolution == plan.resolution
        np.testing.assert_array_equal(batch.labels.cpu().numpy(), index.labels[plan.ids])


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ("Error in decoder: Failed to decode sample #3. Nothing helped", 3),
        ("Failed to decode sample #8", None),  # the batch has 8
        ("out of memory", None),
    ],
)
def test_a_picture_that_one_decoder_refuses_is_told_by_its_message(
    index: Index, message: str, place: int | None
) -> None:
    """DALI's message has the place in the batch; the row of the index is that of the plan."""
    plan = next(iter(training(index, "32").epoch(0)))
    assert len(plan) == 8
    assert refused_row(message, plan) == (None if place is None else plan.ids[place])
