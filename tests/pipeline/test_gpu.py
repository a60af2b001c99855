"""The loader on a GPU: the same images, batches that nothing overwrites, no waiting of the host, damaged files."""

import shutil
from itertools import chain
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from dali_fixres.errors import UnreadableError
from dali_fixres.evaluation.metrics import EpochStatistics
from dali_fixres.runtime.decoding import trials_of
from dali_fixres.runtime.progress import Bar, Reporter
from dali_fixres.training import loop
from dali_fixres.training.optimizer import LearningRate, build_optimizer
from pipelines import Loader
from pipelines.batch import Batch
from pipelines.dali.decoding import Decoding
from pipelines.dataset import Dataset, open_dataset
from pipelines.plan import AUGMENTATIONS, EvalPlan, TrainPlan
from pipelines.plan.batch_plan import BatchPlan
from pipelines.resolution import Resolution, Schedule

CUDA = "cuda"

ONE_OF_255 = 1 / (255 * 0.225)
"""In normalised images."""

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def decoding() -> Decoding:
    """Return the way to decode that has passed its trial on this GPU, now or when the user's cache was filled."""
    return trials_of(torch.device(CUDA), Reporter(quiet=True)).choice.decoding


def training(dataset: Dataset, num_epochs: int) -> list[BatchPlan]:
    """Return training plans whose resolution changes with every epoch, and back."""
    schedule = Schedule.parse(",".join(f"{96 if epoch % 2 else 224}@{epoch}" for epoch in range(num_epochs)))
    plan = TrainPlan(dataset, AUGMENTATIONS["train"], schedule, batch_size=8)
    return list(chain.from_iterable(plan.epoch(epoch) for epoch in range(num_epochs)))


def keep_busy() -> None:
    """Give torch's stream so much to do that whatever is ordered next runs long after the host has gone on."""
    factor = torch.ones(4096, 4096, device=CUDA)
    for _ in range(20):
        factor = factor @ factor / 4096


def num_wrong(batch: Batch, expected: torch.Tensor) -> torch.Tensor:
    """Count values that are others; a decoder may round a pixel otherwise from run to run, and NaN is never right."""
    return (~((batch.images - expected).abs() <= 6 * ONE_OF_255)).sum()


def on_cpu(dataset: Dataset, plans: list[BatchPlan]) -> list[torch.Tensor]:
    """Return the CPU's images."""
    with Loader(dataset, max_batch_size=20) as loader:
        return [batch.images for batch in loader.run(plans)]


def test_the_chosen_decoding_gives_the_cpus_images(dataset: Dataset, decoding: Decoding) -> None:
    """Training crops and test crops, decoded the way that was chosen, are the CPU's but for rounding."""
    plans = [*training(dataset, 2), *EvalPlan(dataset, batch_size=8).batches(Resolution(320))]
    with Loader(dataset, max_batch_size=8, device=CUDA, decoding=decoding) as loader:
        for expected, batch in zip(on_cpu(dataset, plans), loader.run(plans), strict=True):
            assert (batch.images.float().cpu() - expected).abs().mean().item() <= ONE_OF_255


def test_a_batch_is_never_overwritten_while_it_is_read(dataset: Dataset, decoding: Decoding) -> None:
    """Batches read late on a busy stream, then poisoned and freed, are what they were; so is one held all along."""
    plans = training(dataset, 8)
    with Loader(dataset, max_batch_size=8, device=CUDA, decoding=decoding) as loader:
        expected = []
        for batch in loader.run(plans):
            expected.append(batch.images.clone())
            torch.cuda.synchronize()
    with Loader(dataset, max_batch_size=8, device=CUDA, decoding=decoding, prefetch=3) as loader:
        held: Batch | None = None
        wrong = torch.zeros((), dtype=torch.int64, device=CUDA)
        for number, batch in enumerate(loader.run(plans)):
            keep_busy()
            wrong += num_wrong(batch, expected[number])
            if held is None:
                held = batch
            else:
                # Runs late: memory that was handed out again too early would show it in a later batch.
                batch.images.fill_(float("nan"))
            del batch
        assert number == len(plans) - 1
        assert held is not None
        wrong += num_wrong(held, expected[0])
        assert wrong.item() == 0


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_step_never_makes_the_host_wait_for_the_gpu(
    dataset: Dataset, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the loader's batch to the optimiser's step, also where the resolution changes, torch never waits."""
    monkeypatch.setattr(loop, "LOOK_EVERY_S", 1e9)  # looks at the loss do wait, once a second
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=8), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ).to(CUDA)
    learner = loop.Learner(
        network=network,
        forward=network,
        optimizer=build_optimizer(network, momentum=0.9, weight_decay=1e-4),
        learning_rate=LearningRate(((0, 0.01),), num_steps=100, warmup_steps=0, decay="cosine"),
        seed_of=lambda step: step,
        set_mode=network.train,
        label_smoothing=0.1,
        clip_grad=None,
    )
    plans = training(dataset, 4)
    with Loader(dataset, max_batch_size=8, device=CUDA, decoding=decoding) as loader:
        meter = loop.EpochMeter(Bar("", 1, Console(quiet=True), live=None), EpochStatistics())
        assert list(loop.train(learner, loader.run(plans[:5]), 0, meter)) == [1, 2, 3, 4, 5]
        batches = loader.run(plans)
        torch.cuda.set_sync_debug_mode("error")
        try:
            assert sum(1 for _ in loop.train(learner, batches, 0, meter)) == len(plans)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_damaged_file_spoils_no_other_image(tmp_path: Path, images: Path, decoding: Decoding) -> None:
    """A truncated file stops the batch, or passes for an image; `unreadable` names it, and all others are right."""
    dataset = copied(images, tmp_path / "damaged")
    plan = EvalPlan(dataset, batch_size=20)
    victim = int(plan.rows[7])
    content = dataset.path(victim).read_bytes()
    dataset.path(victim).write_bytes(content[: len(content) // 2])
    plans = list(plan.batches(Resolution(128)))
    with Loader(dataset, max_batch_size=20, device=CUDA, decoding=decoding) as loader:
        assert loader.unreadable(plans).keys() == {victim}
        stopped_by: set[int] = set()
        try:
            (batch,) = loader.run(plans)
        except UnreadableError as error:
            stopped_by = set(error.images)
        if stopped_by:
            assert stopped_by == {victim}
            rest = EvalPlan(dataset, batch_size=20, unreadable=frozenset({victim}))
            (batch,) = loader.run(list(rest.batches(Resolution(128))))
    whole = copied(images, tmp_path / "whole")
    (expected,) = on_cpu(whole, list(EvalPlan(whole, batch_size=20).batches(Resolution(128))))
    found = batch.images.float().cpu()[batch.ids != victim]
    difference = (found - expected[plan.rows != victim]).abs().mean(dim=(1, 2, 3))
    assert len(difference) == 19
    assert difference.max().item() <= ONE_OF_255


def copied(images: Path, folder: Path) -> Dataset:
    """Return the index of a copy of the small data set."""
    shutil.copytree(images, folder)
    return open_dataset(folder)
