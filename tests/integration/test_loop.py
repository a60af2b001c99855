"""The training loop by itself: what it keeps of several epochs."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from dali_fixres.checkpoints import Checkpoint, CheckpointClock, EpochStatistics, load_checkpoint
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.models import DataConfig, ModelSpec
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import RunFolder
from dali_fixres.runtime.signals import StopSignals
from dali_fixres.training import LearningRate, TrainingSetup, build_optimizer, train
from dali_fixres.training.run_log import RunLog
from pipelines import (
    AUGMENTATIONS,
    Loader,
    ReadableBatches,
    Resolution,
    Schedule,
    SkippedImages,
    TrainPlan,
    open_dataset,
)


def network() -> nn.Module:
    """Return a network of one convolution."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("num_correct", "best_epoch"), [((3, 5, 4), 2), ((5, 3, 4), 1), ((4, 4, 5), 3), ((4, 4, 3), 1)]
)
def test_the_best_epoch_is_kept(images: Path, tmp_path: Path, num_correct: tuple[int, ...], best_epoch: int) -> None:
    """best.pt is of the most accurate epoch, of equal ones the first; last.pt is of the last."""
    dataset = open_dataset(images)
    plan = TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse("32"), batch_size=20)
    model = network()
    state = Checkpoint(
        command="train", model=ModelSpec("none", 4), state_dict=model.state_dict(),
        data_config=DataConfig(train_res=32, test_res=32), before=None,
        classes=dataset.classes, fingerprint=dataset.fingerprint,
        config={}, epoch=0, global_batch=0, num_done=0, statistics=EpochStatistics(), step=0, optimizer={}, scaler={},
        unreadable={}, top1=None, best_top1=None,
    )  # fmt: skip
    rates = LearningRate(((0, 0.1),), num_steps=6, warmup_steps=0, decay="cosine")
    setup = TrainingSetup(model, model, build_optimizer(model, momentum=0.9, weight_decay=0.0), rates, int, model.train)
    accuracies = iter(Accuracy(Resolution(32), correct, 20, 20, 0, 1.0) for correct in num_correct)
    log = RunLog("train", RunFolder(tmp_path), World(), Reporter(quiet=True))
    with Loader(dataset, max_batch_size=20) as loader:
        batches = ReadableBatches(loader, SkippedImages(dataset))
        end, last = train(
            setup, batches, plan, 3, state, log, StopSignals(World()), CheckpointClock(math.inf, "min"),
            evaluate=lambda _: next(accuracies),
        )  # fmt: skip
    assert last is not None
    assert (end.epoch, end.step, last.num_top1) == (3, 6, num_correct[-1])
    best, latest = load_checkpoint(tmp_path / "best.pt"), load_checkpoint(tmp_path / "last.pt")
    assert (best.epoch, best.top1) == (best_epoch, 5.0 * max(num_correct))
    assert (latest.epoch, latest.best_top1) == (3, 5.0 * max(num_correct))
