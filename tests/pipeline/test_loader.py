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

from pipelines import Loader
from pipelines.dali import choose_decoder
from pipelines.dali.choose_decoder import (
    DECODERS,
    Decode,
    Decoder,
    readable_plans,
    sample_plan,
    time_decoders,
)
from pipelines.dali.graph import NICENESS
from pipelines.dataset import TRAIN, VAL, Dataset, open_dataset
from pipelines.errors import ConfigError, DataError, UnreadableError
from pipelines.plan import AUGMENTATIONS, EvalPlan, TrainPlan
from pipelines.plan.batch_plan import BatchPlan
from pipelines.resolution import Resolution, Schedule


def training(dataset: Dataset, schedule: str, batch_size: int = 8) -> TrainPlan:
    """Return a training plan of five steps per epoch."""
    return TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse(schedule), batch_size)


def mixed_plans(dataset: Dataset) -> list[BatchPlan]:
    """Return plans of many resolutions, sizes and stages, one after the other."""
    plan = training(dataset, "64@0,160@1,96@2")
    evaluation = EvalPlan(dataset, batch_size=6)
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


def test_on_a_cpu_the_graph_has_a_lower_priority(dataset: Dataset) -> None:
    """The graph's threads have a higher niceness; the process' other threads keep theirs."""
    before = niceness_of_threads()
    with Loader(dataset, max_batch_size=8, num_threads=3) as loader:
        next(loader.run(training(dataset, "64").epoch(0)))
        after = niceness_of_threads()
    kept = before.keys() & after.keys()
    assert {task: after[task] for task in kept} == {task: before[task] for task in kept}
    new = [niceness for task, niceness in after.items() if task not in before]
    assert len(new) > 3
    assert set(new) == {min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)}


def test_a_system_that_forbids_niceness_is_no_obstacle(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the graph's threads have the process' own priority, and make the same batches."""

    def forbidden(_: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "nice", forbidden)
    before = niceness_of_threads()
    with Loader(dataset, max_batch_size=8) as loader:
        assert len(next(loader.run(training(dataset, "64").epoch(0))).images) == 8
        new = [niceness for task, niceness in niceness_of_threads().items() if task not in before]
    assert set(new) == {os.getpriority(os.PRIO_PROCESS, 0)}


@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_resolution_switches_exactly_on_the_batch(dataset: Dataset, prefetch: int) -> None:
    """Every batch of mixed plans has the ids, labels, shape and resolution of its plan."""
    plans = mixed_plans(dataset)
    with Loader(dataset, max_batch_size=8, prefetch=prefetch) as loader:
        batches = list(loader.run(plans))
    assert len(batches) == len(plans)
    for plan, batch in zip(plans, batches, strict=True):
        check_shapes(batch)
        assert batch.resolution == plan.resolution
        np.testing.assert_array_equal(batch.ids, plan.ids)
        np.testing.assert_array_equal(batch.labels.numpy(), dataset.labels[plan.ids])
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_depends_on_its_plan_alone(dataset: Dataset) -> None:
    """The same plans in another order, with other thread numbers and prefetch, give the same bits."""
    plans = mixed_plans(dataset)
    with Loader(dataset, max_batch_size=8, num_threads=2, prefetch=3) as loader:
        forward = [batch.images.clone() for batch in loader.run(plans)]
    with Loader(dataset, max_batch_size=16, num_threads=1, prefetch=1) as loader:
        backward = [batch.images.clone() for batch in loader.run(plans[::-1])]
    for one, other in zip(forward, backward[::-1], strict=True):
        assert torch.equal(one, other)


def test_batches_held_are_not_overwritten(dataset: Dataset) -> None:
    """Zero-copy batches keep their content while later ones are made, and after the loader is closed."""
    plan = training(dataset, "96")
    with Loader(dataset, max_batch_size=8) as loader:
        held = [(batch.images, batch.images.clone()) for epoch in range(3) for batch in loader.run(plan.epoch(epoch))]
    gc.collect()
    assert len(held) == 15
    assert all(torch.equal(images, copy) for images, copy in held)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_image_once(dataset: Dataset, world_size: int) -> None:
    """Over all ranks, each test image comes exactly once, short last batches included."""
    seen: list[int] = []
    for rank in range(world_size):
        plan = EvalPlan(dataset, batch_size=7, rank=rank, world_size=world_size)
        with Loader(dataset, max_batch_size=7) as loader:
            seen += [row for batch in loader.run(plan.batches(Resolution(64))) for row in batch.ids.tolist()]
    assert sorted(seen) == dataset.rows(VAL).tolist()


def test_an_abandoned_run_leaves_nothing_behind(dataset: Dataset) -> None:
    """A run left in the middle does not leak batches into the next one, and has ended by then."""
    plan = training(dataset, "64@0,96@1")
    with Loader(dataset, max_batch_size=8) as loader:
        first = loader.run(plan.epoch(0))
        next(first)
        second = list(loader.run(plan.epoch(1)))
        assert [batch.resolution.crop_px for batch in second] == [96] * 5
        with pytest.raises(RuntimeError, match="another run of this loader has begun"):
            next(first)


def test_endless_plans_are_read_only_a_few_batches_ahead(dataset: Dataset) -> None:
    """Plans are drawn as they are needed, so they may be endless."""
    plan = training(dataset, "64")
    drawn = 0

    def endless() -> object:
        nonlocal drawn
        while True:
            drawn += 1
            yield plan.at(0, drawn % 5)

    with Loader(dataset, max_batch_size=8, prefetch=2) as loader:
        assert len(list(islice(loader.run(endless()), 10))) == 10  # type: ignore[arg-type]
    assert 10 <= drawn <= 13


def test_fifty_loaders_leave_no_threads_and_no_memory(dataset: Dataset) -> None:
    """Building, running and closing 50 loaders neither adds threads nor lets memory grow."""
    plan = training(dataset, "128")

    def once() -> None:
        with Loader(dataset, max_batch_size=8) as loader:
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
def test_a_broken_file_is_named(images: Path, tmp_path: Path, damage: str) -> None:
    """A file that breaks after it was indexed stops the run with an error that names it; the loader still works."""
    root = Path(shutil.copytree(images, tmp_path / "data"))
    dataset = open_dataset(root)
    plan = EvalPlan(dataset, batch_size=5)
    victim = dataset.path(int(plan.rows[7]))
    if damage == "truncate":
        victim.write_bytes(victim.read_bytes()[:700])
    elif damage == "delete":
        victim.unlink()
    else:
        victim.write_bytes(b"no image" if damage == "text" else b"")
    with Loader(dataset, max_batch_size=5) as loader:
        batches = loader.run(plan.batches(Resolution(64)))
        next(batches)
        with pytest.raises(DataError, match="cannot decode") as caught:
            next(batches)
        assert str(victim) in str(caught.value)
        (good,) = loader.run(list(plan.batches(Resolution(64)))[:1])
    assert len(good) == 5


def test_a_cpu_has_one_way_to_decode(dataset: Dataset) -> None:
    """Nothing is timed or chosen there, and asking for the GPU is an error."""
    decodes: tuple[Decode, ...] = ("auto", "cpu")
    for decode in decodes:
        with Loader(dataset, max_batch_size=8, decode=decode) as loader:
            assert loader.decode == "cpu"
    with pytest.raises(ConfigError, match=r"decode 'gpu' needs batches on a GPU, but the device is cpu"):
        Loader(dataset, max_batch_size=8, decode="gpu")


def test_ways_to_decode_are_timed_on_images_from_all_over_the_data(dataset: Dataset) -> None:
    """Training crops at 224 px of every fifth image here; of all where there are few."""
    few = sample_plan(dataset, batch_size=2)
    np.testing.assert_array_equal(few.rows, dataset.rows(TRAIN)[::5])
    np.testing.assert_array_equal(sample_plan(dataset, batch_size=64).rows, dataset.rows(TRAIN))
    with Loader(dataset, max_batch_size=2) as loader:
        batches = list(loader.run(readable_plans(loader, few)))
    assert [tuple(batch.images.shape) for batch in batches] == [(2, 3, 224, 224)] * 4


def test_ways_to_decode_are_timed_without_unreadable_images(images: Path, tmp_path: Path) -> None:
    """A broken image is left out, and it is an error if all are broken."""
    dataset = open_dataset(Path(shutil.copytree(images, tmp_path / "data")))
    with Loader(dataset, max_batch_size=8) as loader:
        dataset.path(11).write_bytes(b"no image")
        plans = readable_plans(loader, sample_plan(dataset, batch_size=8))
        assert sorted(row for plan in plans for row in plan.ids.tolist()) == [*range(11), *range(12, 40)]
        for row in range(40):
            dataset.path(row).write_bytes(b"no image")
        with pytest.raises(UnreadableError) as caught:
            readable_plans(loader, sample_plan(dataset, batch_size=8))
    assert len(caught.value.images) == 40


def test_both_decoders_to_decode_are_timed(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loader is built, runs for a while, and is closed; one that fails is left out."""
    monkeypatch.setattr(choose_decoder, "SECONDS", 0.05)
    built: list[Loader] = []

    def loader_of(decoder: Decoder) -> Loader:
        if decoder == "gpu":
            raise RuntimeError("no GPU in this test")
        built.append(Loader(dataset, max_batch_size=8))
        return built[-1]

    timing = time_decoders(dataset, 8, loader_of, wait=lambda: None)
    assert timing.failed == {"gpu": "no GPU in this test"}
    assert timing.images_per_s["cpu"] > 0
    (loader,) = built
    with pytest.raises(ValueError, match="closed"):
        loader.run([])


@pytest.mark.gpu
@pytest.mark.parametrize("decode", DECODERS)
def test_gpu_batches_switch_exactly(dataset: Dataset, decode: Decoder) -> None:
    """On a GPU too, every batch of mixed plans is what its plan says."""
    plans = mixed_plans(dataset)
    with Loader(dataset, max_batch_size=8, device="cuda", decode=decode) as loader:
        batches = list(loader.run(plans))
    for plan, batch in zip(plans, batches, strict=True):
        check_shapes(batch)
        assert batch.resolution == plan.resolution
        np.testing.assert_array_equal(batch.labels.cpu().numpy(), dataset.labels[plan.ids])
