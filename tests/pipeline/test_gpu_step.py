"""Training steps on a GPU in each number format: the host never waits, and overflows of float16 are skipped."""

from itertools import chain

import numpy as np
import pytest
import torch
from torch import nn

from dali_fixres.config import Precision
from dali_fixres.runtime.precision import run_network
from dali_fixres.training import LearningRate, TrainingSetup, build_optimizer, build_scaler, train_step
from dali_fixres.training.optimizer import scaler_state
from pipelines import Batch, Loader, Resolution
from pipelines.dali.choose_decoder import DECODERS, Decoder
from pipelines.dataset import Dataset
from pipelines.plan import AUGMENTATIONS, TrainPlan
from pipelines.resolution import Schedule

pytestmark = pytest.mark.gpu


def build_setup(precision: Precision) -> TrainingSetup:
    """Return a small network on the GPU, and what trains it in a number format."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=8), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ).to("cuda")
    return TrainingSetup(
        network=network,
        forward=network,
        optimizer=build_optimizer(network, momentum=0.9, weight_decay=1e-4, precision=precision),
        learning_rate=LearningRate(((0, 0.01),), num_steps=100, warmup_steps=0, decay="cosine"),
        seed_of=lambda step: step,
        set_mode=network.train,
        label_smoothing=0.1,
        precision=precision,
        scaler=build_scaler(precision, torch.device("cuda")),
    )


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("decode", DECODERS)
def test_a_step_never_makes_the_host_wait_for_the_gpu(dataset: Dataset, decode: Decoder, precision: Precision) -> None:
    """From the loader's batch to the optimiser's step, also where the resolution changes, torch never waits.

    In fp16 it does, once a step, to see whether the gradient has overflowed.
    """
    setup = build_setup(precision)
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


def noise() -> Batch:
    """Return a batch as the loader's: float16 images on the GPU, channels last."""
    images = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(1)).half().cuda()
    labels = torch.arange(16, device="cuda") % 4
    return Batch(images.to(memory_format=torch.channels_last), labels, np.arange(16), Resolution(64))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_steps_of_lower_precision_are_those_of_float32(precision: Precision) -> None:
    """Ten steps end, within rounding, where those in float32 end; parameters and statistics stay float32."""
    found, expected = build_setup(precision), build_setup("fp32")
    for step in range(10):
        losses = [train_step(setup, noise(), step).item() for setup in (found, expected)]
        assert losses[0] == pytest.approx(losses[1], rel=0.02)
    for ours, theirs in zip(found.network.parameters(), expected.network.parameters(), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=5e-3)


def test_an_overflow_in_float16_is_skipped() -> None:
    """Weights and momentum stay, the loss is finite, and the scale is halved."""
    setup = build_setup("fp16")
    before = [parameter.clone() for parameter in setup.network.parameters()]
    setup.scaler.load_state_dict(setup.scaler.state_dict() | {"scale": 2.0**30})
    assert train_step(setup, noise(), 0).isfinite()
    assert all(map(torch.equal, setup.network.parameters(), before))
    assert not setup.optimizer.state
    assert scaler_state(setup.scaler)["scale"] == 2.0**29


def test_tests_in_float32_take_the_loaders_images() -> None:
    """Float16 images run through a float32 network as the same images in float32."""
    network, images = build_setup("fp32").network.eval(), noise().images
    logits = run_network(network, images, "fp32")
    assert logits.dtype == torch.float32
    assert torch.equal(logits, network(images.float()))
