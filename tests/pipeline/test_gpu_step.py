"""Training steps on a GPU: the host never waits."""

from itertools import chain

import pytest
import torch
from torch import nn

from dali_fixres.training import LearningRate, TrainingSetup, build_optimizer, train_step
from pipelines import Loader
from pipelines.dali.choose_decoder import DECODERS, Decoder
from pipelines.dataset import Dataset
from pipelines.plan import AUGMENTATIONS, TrainPlan
from pipelines.resolution import Schedule


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("decode", DECODERS)
def test_a_step_never_makes_the_host_wait_for_the_gpu(dataset: Dataset, decode: Decoder) -> None:
    """From the loader's batch to the optimiser's step, also where the resolution changes, torch never waits."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=8), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ).to("cuda")
    setup = TrainingSetup(
        network=network,
        forward=network,
        optimizer=build_optimizer(network, momentum=0.9, weight_decay=1e-4),
        learning_rate=LearningRate(((0, 0.01),), num_steps=100, warmup_steps=0, decay="cosine"),
        seed_of=lambda step: step,
        set_mode=network.train,
        label_smoothing=0.1,
    )
    plan = TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse("224@0,96@1,224@2,96@3"), batch_size=8)
    plans = list(chain.from_iterable(plan.epoch(epoch) for epoch in range(4)))
    with Loader(dataset, max_batch_size=8, device="cuda", decode=decode) as loader:
        for step, batch in enumerate(loader.run(plans[:5])):
            train_step(setup, batch, step)
        torch.cuda.set_sync_debug_mode("error")
        try:
            losses = [train_step(setup, batch, step) for step, batch in enumerate(loader.run(plans))]
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert len(losses) == len(plans)
    assert torch.stack(losses).isfinite().all()
