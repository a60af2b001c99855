"""The loader on a GPU, with both decoders: batches that nothing overwrites, damaged files, the faster decoder."""

import json
import shutil
from itertools import chain
from pathlib import Path

import pytest
import torch

from pipelines import Loader
from pipelines.batch import Batch
from pipelines.dali.choose_decoder import DECODERS, Decoder
from pipelines.dataset import Dataset, open_dataset
from pipelines.errors import UnreadableError
from pipelines.plan import AUGMENTATIONS, EvalPlan, TrainPlan
from pipelines.plan.batch_plan import BatchPlan
from pipelines.resolution import Resolution, Schedule

CUDA = "cuda"

ONE_OF_255 = 1 / (255 * 0.225)
"""In normalised images."""

pytestmark = pytest.mark.gpu

both_decoders = pytest.mark.parametrize("decode", DECODERS)


def training(dataset: Dataset, num_epochs: int) -> list[BatchPlan]:
    """Return training plans whose resolution changes with every epoch, and back."""
    schedule = Schedule.parse(",".join(f"{96 if epoch % 2 else 224}@{epoch}" for epoch in range(num_epochs)))
    plan = TrainPlan(dataset, AUGMENTATIONS["train"], schedule, batch_size=8)
    return list(chain.from_iterable(plan.epoch(epoch) for epoch in range(num_epochs)))


def keep_busy() -> None:
    """Give torch's stream so much work that whatever is queued next runs long after this returns."""
    factor = torch.ones(4096, 4096, device=CUDA)
    for _ in range(20):
        factor = factor @ factor / 4096


def num_wrong(batch: Batch, expected: torch.Tensor) -> torch.Tensor:
    """Count wrong values; a GPU's decoder may round a pixel differently from run to run, and NaN is never right."""
    return (~((batch.images - expected).abs() <= 6 * ONE_OF_255)).sum()


def on_cpu(dataset: Dataset, plans: list[BatchPlan]) -> list[torch.Tensor]:
    """Return the CPU's images."""
    with Loader(dataset, max_batch_size=20) as loader:
        return [batch.images for batch in loader.run(plans)]


@both_decoders
def test_a_batch_is_never_overwritten_while_it_is_read(dataset: Dataset, decode: Decoder) -> None:
    """Batches read late on a busy stream, then poisoned and freed, are what they were; so is one held all along."""
    plans = training(dataset, 8)
    with Loader(dataset, max_batch_size=8, device=CUDA, decode=decode) as loader:
        expected = []
        for batch in loader.run(plans):
            expected.append(batch.images.clone())
            torch.cuda.synchronize()
    with Loader(dataset, max_batch_size=8, device=CUDA, decode=decode, prefetch=3) as loader:
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


@both_decoders
def test_a_damaged_file_spoils_no_other_image(tmp_path: Path, images: Path, decode: Decoder) -> None:
    """A truncated file stops the batch or is decoded wrongly; `unreadable` names it, and all others are right."""
    dataset = copied(images, tmp_path / "damaged")
    plan = EvalPlan(dataset, batch_size=20)
    victim = int(plan.rows[7])
    content = dataset.path(victim).read_bytes()
    dataset.path(victim).write_bytes(content[: len(content) // 2])
    plans = list(plan.batches(Resolution(128)))
    with Loader(dataset, max_batch_size=20, device=CUDA, decode=decode) as loader:
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
    """Return a copy of the small data set."""
    shutil.copytree(images, folder)
    return open_dataset(folder)


def test_the_faster_decoder_is_timed_once(dataset: Dataset, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to itself the loader times both decoders, takes the faster one, and remembers it."""
    with Loader(dataset, max_batch_size=8, device=CUDA) as first:
        assert len(list(first.run(training(dataset, 1)))) == 5
    (answer,) = (own_cache / "decoding").iterdir()
    found = json.loads(answer.read_text())
    assert found["images_per_s"].keys() == set(DECODERS)
    assert found["decode"] == max(DECODERS, key=found["images_per_s"].get) == first.decode
    monkeypatch.setattr("pipelines.loader.time_decoders", pytest.fail)
    with Loader(dataset, max_batch_size=8, device=CUDA) as second:
        assert second.decode == first.decode
