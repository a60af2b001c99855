"""Images in tar shards: the same batches as from folders, and the same care for broken ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tars import tar_of_folders

from pipelines import Loader
from pipelines.dali.decodability import DecodabilityCheck
from pipelines.dataset import Dataset, open_dataset
from pipelines.errors import UnreadableError
from pipelines.plan import AUGMENTATIONS, EvalPlan, TrainPlan
from pipelines.resolution import Resolution, Schedule


@pytest.fixture
def shards(images: Path, tmp_path: Path) -> Dataset:
    """Return a data set of one shard for each split, with the rows of the folders."""
    tar_of_folders(images, tmp_path / "shards", num_shards=1)
    return open_dataset(tmp_path / "shards")


def test_shards_give_the_batches_of_folders(dataset: Dataset, shards: Dataset) -> None:
    """Training and test batches are the same to the bit, shuffled over the whole data set."""
    found = []
    for data in (dataset, shards):
        training = TrainPlan(data, AUGMENTATIONS["train"], Schedule.parse("96"), batch_size=8)
        evaluation = EvalPlan(data, batch_size=7)
        with Loader(data, max_batch_size=8) as loader:
            plans = [*training.epoch(3), *evaluation.batches(Resolution(128))]
            found.append([(batch.images.clone(), batch.labels) for batch in loader.run(plans)])
    assert len(found[0]) == 5 + 3
    for (images, labels), (other_images, other_labels) in zip(*found, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def spoil(dataset: Dataset, row: int, damage: str) -> None:
    """Damage an image in its shard, after it was indexed."""
    shard = dataset.root / dataset.shards[dataset.shard_of[row]]
    if damage == "overwritten":
        with shard.open("r+b") as file:
            file.seek(int(dataset.offsets[row]))
            file.write(bytes(int(dataset.num_bytes[row])))
    elif damage == "cut":
        with shard.open("r+b") as file:
            file.truncate(int(dataset.offsets[row]) + 100)
    else:
        shard.unlink()


@pytest.mark.parametrize(
    ("damage", "reason", "num_lost"),
    [("overwritten", "not a JPEG", 1), ("cut", "(?i)truncated|empty|not a JPEG", 8), ("deleted", "No such file", 20)],
)
def test_a_broken_image_in_a_shard_is_named(shards: Dataset, damage: str, reason: str, num_lost: int) -> None:
    """Overwritten, cut off with all behind it, or gone with its shard: each is named as SHARD/MEMBER, none kills."""
    plan = EvalPlan(shards, batch_size=20)
    row = int(plan.rows[12])
    with Loader(shards, max_batch_size=20) as loader:
        assert len(list(loader.run(plan.batches(Resolution(64))))) == 1
        spoil(shards, row, damage)
        with pytest.raises(UnreadableError, match=reason) as caught:
            list(loader.run(plan.batches(Resolution(64))))
    found = caught.value.images
    assert len(found) == num_lost
    assert found[row][0] == shards.root / "val-0000.tar" / shards.path(row).name
    whole = DecodabilityCheck(shards, num_threads=2).whole()
    assert sorted(whole) == sorted(found)
    np.testing.assert_array_less(shards.num_train - 1, sorted(whole))
