"""Training steps on a GPU: the host never waits."""

from itertools import chain

import pytest
import torch
from rich.console import Console
from torch import nn

from dali_fixres.evaluation.metrics import EpochStatistics
from dali_fixres.runtime.progress import Bar
from dali_fixres.training import loop
from dali_fixres.training.optimizer import LearningRate, build_optimizer
from pipelines import Loader
from pipelines.dali.decoding import WAYS, Way
from pipelines.dataset import Dataset
from pipelines.plan import AUGMENTATIONS, TrainPlan
from pipelines.resolution import Schedule


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("decode", WAYS)
def test_a_step_never_makes_the_host_wait_for_the_gpu(
    dataset: Dataset, decode: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the loader's batch to the optimiser's step, also where the resolution changes, torch never waits."""
    monkeypatch.setattr(loop, "LOOK_EVERY_S", 1e9)  # looks at the loss do wait, once a second
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=8), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ).to("cuda")
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
    plan = TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse("224@0,96@1,224@2,96@3"), batch_size=8)
    plans = list(chain.from_iterable(plan.epoch(epoch) for epoch in range(4)))
    with Loader(dataset, max_batch_size=8, device="cuda", decode=decode) as loader:
        meter = loop.EpochMeter(Bar("", 1, Console(quiet=True), live=None), EpochStatistics())
        assert list(loop.train(learner, loader.run(plans[:5]), 0, meter)) == [1, 2, 3, 4, 5]
        batches = loader.run(plans)
        torch.cuda.set_sync_debug_mode("error")
        try:
            assert sum(1 for _ in loop.train(learner, batches, 0, meter)) == len(plans)
        finally:
            torch.cuda.set_sync_debug_mode("default")
