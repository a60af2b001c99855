"""What the benches of switching and scaling count and vary, with a loader that makes no images."""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pytest
import scaling
import switching
import torch
import visits
from scaling import num_batches, training_settings
from visits import Batches, first_times, in_one_stream, rises

from dali_fixres.errors import RunError
from pipelines.batch import Batch
from pipelines.dataset import open_dataset
from pipelines.plan.batch_plan import BatchPlan
from pipelines.resolution import parse_resolutions

WRONG_PX = 64
"""Where the loader makes images of another size."""


class FakeLoader:
    """Makes empty images, one pixel too high at one resolution; keeps the plans of every loader."""

    ran: list[list[BatchPlan]]

    def __init__(self, *_: object, **__: object) -> None:
        self.plans: list[BatchPlan] = []
        self.ran.append(self.plans)

    def run(self, plans: Iterable[BatchPlan]) -> Iterator[Batch]:
        """Yield a batch for each plan."""
        for plan in plans:
            self.plans.append(plan)
            side = plan.resolution.crop_px
            images = torch.empty(len(plan), 3, side + (side == WRONG_PX), side)
            yield Batch(images, torch.zeros(len(plan)), plan.ids, plan.resolution)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


@pytest.fixture(autouse=True)
def loaders(monkeypatch: pytest.MonkeyPatch) -> list[list[BatchPlan]]:
    """Return what the fake loaders that the benches make are given."""
    ran: list[list[BatchPlan]] = []
    monkeypatch.setattr(FakeLoader, "ran", ran, raising=False)
    monkeypatch.setattr(visits, "Loader", FakeLoader)
    return ran


@pytest.fixture
def batches(images: Path) -> Batches:
    """Return visits to four batches of ten images."""
    return Batches(open_dataset(images), torch.device("cpu"), size=10, number=4)


def test_a_stream_has_been_everywhere_before(batches: Batches, loaders: list[list[BatchPlan]]) -> None:
    """One loader goes to each resolution untimed, and then the route, with other images in each visit."""
    low, high = parse_resolutions("32,48")
    found = in_one_stream(batches, [low, high, low])
    assert [(visit.before, visit.res, len(visit.batch_ms)) for visit in found] == [
        (None, 32, 4),
        (32, 48, 4),
        (48, 32, 4),
    ]
    (plans,) = loaders
    assert [plan.resolution.crop_px for plan in plans[::4]] == [32, 48, 32, 48, 32]
    assert len({tuple(plan.ids) for plan in plans}) == len(plans) == 20


def test_a_first_time_has_a_loader_of_its_own(batches: Batches, loaders: list[list[BatchPlan]]) -> None:
    """Each rise is measured once; no loader was at the higher resolution before."""
    pairs = rises(parse_resolutions("32,48,80"))
    assert [(low.crop_px, high.crop_px) for low, high in pairs] == [(32, 48), (48, 80), (32, 80)]
    found = first_times(batches, pairs)
    assert [(visit.before, visit.res) for visit in found[1::2]] == [(32, 48), (48, 80), (32, 80)]
    assert all(visit.before is None for visit in found[::2])
    assert [[plan.resolution.crop_px for plan in plans[::4]] for plans in loaders] == [[32, 48], [48, 80], [32, 80]]


def test_a_wrong_size_is_an_error_after_the_figures(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of our streams that have another size than was ordered are counted and written; then the bench fails."""
    monkeypatch.setattr(switching, "worker_pool", ThreadPoolExecutor)
    monkeypatch.setattr(switching, "new_dataloaders", visits.rebuilt)
    out = tmp_path / "out.json"
    bench = switching.Bench(data=images, res=f"32,{WRONG_PX}", batch_size=10, quick=True, json=out, device="cpu")
    with pytest.raises(RunError, match="24 of 44 batches had another size than was ordered"):
        switching.main(bench)
    content = json.loads(out.read_text())
    # Visits of four batches to 64 px: one of the circuit's three, one of two of a first time, four of six stages.
    assert (content["num_batches"], content["batches_at_wrong_resolution"]) == (
        (3 + 2 + 2 * 3) * 4,
        (1 + 1 + 2 * 2) * 4,
    )


def test_batches_of_any_size_hold_as_many_images() -> None:
    """A measure of training has half of the loader's images, and none has fewer than two batches."""
    bench = scaling.Bench(batch_size=64, num_batches=16)
    assert [num_batches(bench, "loader", size) for size in (16, 64, 256, 1024)] == [64, 16, 4, 2]
    assert [num_batches(bench, "training", size) for size in (16, 64)] == [32, 8]


def test_training_splits_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """On two cores the loader has one to three threads and torch one or two; batch sizes follow, with all threads."""
    monkeypatch.setattr(scaling, "usable_cores", lambda: 2)
    monkeypatch.setattr(scaling, "loader_threads", lambda: 3)
    settings = training_settings(scaling.Bench(train_batch_sizes="8,16"))
    found = [(one.stage, one.threads, one.torch_threads, one.batch_size) for one in settings]
    assert found == [
        *(("training by threads", ours, torchs, 64) for ours in (1, 2, 3) for torchs in (1, 2)),
        *(("training by batch size", 3, 2, size) for size in (8, 16)),
    ]
