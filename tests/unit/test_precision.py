"""Number formats: which one is chosen, what a forward pass computes in, and scaled gradients in float16."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dali_fixres.commands.doctor import precision_rows
from dali_fixres.config import AutoPrecision, Precision, TrainConfig
from dali_fixres.errors import ConfigError, TrainingDivergedError
from dali_fixres.runtime import precision
from dali_fixres.runtime.precision import choose_precision, choose_precisions, has_fast_bf16, run_network
from dali_fixres.runtime.progress import Reporter
from dali_fixres.training import LearningRate, TrainingSetup, build_optimizer, build_scaler, train_step
from dali_fixres.training.optimizer import scaler_state
from pipelines import Batch, Resolution

CPU, GPU = torch.device("cpu"), torch.device("cuda")

CpuWith = Callable[[str], None]


@pytest.fixture
def cpu_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CpuWith:
    """Return a function that gives this machine a CPU with such a line about its features."""

    def give(line: str) -> None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\n")
        monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")

    return give


@pytest.mark.parametrize(
    ("line", "fast"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_bf16 amx_tile", True),
        ("flags\t\t: fpu avx2 avx512f", False),
        ("Features\t: fp asimd i8mm bf16", True),
        ("Features\t: fp asimd", False),
        ("model name\t: bf16", False),
    ],
)
def test_cpus_with_instructions_for_bfloat16(line: str, *, fast: bool, cpu_with: CpuWith) -> None:
    """They are known by the features that Linux names, of x86 and of Arm."""
    cpu_with(line)
    assert has_fast_bf16(CPU) is fast


def test_bf16_is_warned_of_where_it_is_slow(cpu_with: CpuWith, capsys: pytest.CaptureFixture[str]) -> None:
    """It is taken as asked for, with a warning on a CPU without instructions for it alone."""
    cpu_with("flags\t: avx512_bf16")
    assert choose_precision("bf16", CPU, "--precision", Reporter()) == "bf16"
    assert capsys.readouterr().err == ""
    cpu_with("flags\t: avx2")
    assert choose_precision("bf16", CPU, "--precision", Reporter()) == "bf16"
    assert "--precision bf16 is slow here: this cpu has no instructions for bfloat16" in capsys.readouterr().err


def test_fp16_on_a_cpu_is_refused() -> None:
    """The message names the flag and what to take."""
    with pytest.raises(ConfigError, match=r"^--eval-precision fp16 needs a GPU; on a CPU take bf16 or fp32$"):
        choose_precision("fp16", CPU, "--eval-precision", Reporter())


def test_a_run_in_fp16_is_not_resumed_on_a_cpu() -> None:
    """No other format is offered: a resumed run keeps its own."""
    config = TrainConfig(resume=True, precision="fp16")
    with pytest.raises(ConfigError) as caught:
        choose_precisions(config, CPU, Reporter())
    assert str(caught.value) == (
        "--precision fp16 needs a GPU; a run that was begun with it keeps it, so resume on a GPU, or start a new run"
    )


@pytest.mark.parametrize(
    ("wanted", "device", "native", "chosen"),
    [
        ("auto", CPU, True, "fp32"),
        ("auto", GPU, True, "bf16"),
        ("auto", GPU, False, "fp16"),
        ("fp32", GPU, True, "fp32"),
        ("fp16", GPU, True, "fp16"),
    ],
)
def test_what_is_chosen(
    wanted: AutoPrecision, device: torch.device, chosen: Precision, monkeypatch: pytest.MonkeyPatch, *, native: bool
) -> None:
    """Left to itself it is fp32 on a CPU, bf16 on a GPU that has it, fp16 on others; the rest is taken as it is."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert choose_precision(wanted, device, "--precision", Reporter()) == chosen


def test_doctor_says_what_auto_takes() -> None:
    """On each device, and whether bfloat16 is fast there."""
    rows = precision_rows({"cpu": {"auto": "fp32", "fast_bf16": True}, "cuda": {"auto": "fp16", "fast_bf16": False}})
    assert rows == {
        "precision auto on cpu": "fp32 (has instructions for bfloat16)",
        "precision auto on cuda": "fp16 (no instructions for bfloat16: --precision bf16 is slow)",
    }


def test_float16_images_reach_a_float32_network_as_float32() -> None:
    """The batches of a GPU are float16; tests are computed in float32, and are what torch computes."""
    network, images = linear(), torch.randn(4, 3, 8, 8).half()
    logits = run_network(network, images, "fp32")
    assert logits.dtype == torch.float32
    assert torch.equal(logits, network(images.float()))


def test_a_forward_pass_in_bfloat16() -> None:
    """Weights and images are rounded to bfloat16 for the product, and the parameters stay float32."""
    network, images = linear(), torch.randn(4, 3, 8, 8)
    logits = run_network(network, images, "bf16")
    layer = network[1]
    assert isinstance(layer, nn.Linear)
    by_hand = images.bfloat16().double().flatten(1) @ layer.weight.bfloat16().double().T + layer.bias.double()
    assert logits.dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32
    torch.testing.assert_close(logits.double(), by_hand, rtol=2**-7, atol=2**-8)


# Gradient scaling: on a CPU, where torch has it too, but for tests alone


def linear() -> nn.Sequential:
    """Return a network of one layer."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))


def batch_of(images: torch.Tensor) -> Batch:
    """Return images with labels."""
    return Batch(images, torch.arange(len(images)) % 3, np.arange(len(images)), Resolution(32))


def scaling_setup(network: nn.Module, clip_grad: float | None = None) -> TrainingSetup:
    """Return what trains a network in float16, at a rate of 0.1."""
    rates = LearningRate(((0, 0.1),), num_steps=100, warmup_steps=0, decay="step", drops=())
    optimizer = build_optimizer(network, momentum=0.9, weight_decay=0.0, precision="fp16")
    return TrainingSetup(
        network, network, optimizer, rates, int, network.train, 0.0, clip_grad, "fp16", build_scaler("fp16", CPU)
    )


@pytest.mark.parametrize("clip_grad", [None, 0.5])
def test_a_scaled_step_is_the_unscaled_one(clip_grad: float | None) -> None:
    """The gradient is unscaled before it is limited and before the step, as written out by hand."""
    network, images = linear(), torch.randn(6, 3, 8, 8)
    expected = copy.deepcopy(network)
    setup = scaling_setup(network, clip_grad)
    setup.scaler.load_state_dict(setup.scaler.state_dict() | {"scale": 1024.0})
    loss = train_step(setup, batch_of(images), 0)
    by_hand = nn.functional.cross_entropy(expected(images), torch.arange(6) % 3)
    by_hand.backward()  # type: ignore[no-untyped-call]
    if clip_grad is not None:
        assert nn.utils.clip_grad_norm_(expected.parameters(), clip_grad) > 1
    torch.testing.assert_close(loss, by_hand.detach(), rtol=1e-3, atol=0)
    for ours, parameter in zip(network.parameters(), expected.parameters(), strict=True):
        assert parameter.grad is not None
        # Nesterov's first step: the gradient and 0.9 of it, as momentum.
        torch.testing.assert_close(ours.detach(), parameter.detach() - 0.19 * parameter.grad, rtol=1e-3, atol=1e-4)


def test_an_overflow_is_skipped_and_is_no_divergence() -> None:
    """Weights and momentum stay, the scale is halved, the loss is finite; the next step begins the momentum."""
    network = linear()
    before = copy.deepcopy(network.state_dict())
    setup = scaling_setup(network)
    setup.scaler.load_state_dict(setup.scaler.state_dict() | {"scale": 2.0**20})
    images = torch.randn(6, 3, 8, 8)
    loss = train_step(setup, batch_of(images), 0)
    assert loss.isfinite()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not setup.optimizer.state
    assert scaler_state(setup.scaler)["scale"] == 2.0**19
    setup.scaler.load_state_dict(scaler_state(setup.scaler) | {"scale": 1.0})
    other = scaling_setup(linear())
    other.scaler.load_state_dict(scaler_state(setup.scaler))
    train_step(setup, batch_of(images), 1)
    train_step(other, batch_of(images), 1)
    assert all(map(torch.equal, network.parameters(), other.network.parameters()))


def test_scaling_goes_on_where_it_was() -> None:
    """A scaler that was saved and loaded scales as the one that was never stopped, also across a change."""
    whole, images = scaling_setup(linear()), torch.randn(6, 3, 8, 8)
    whole.scaler.set_growth_interval(3)
    for step in range(8):
        train_step(whole, batch_of(images), step)
        if step == 3:
            network = copy.deepcopy(whole.network)
            part = scaling_setup(network)
            part.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
            part.scaler.load_state_dict(scaler_state(whole.scaler))
    for step in range(4, 8):
        train_step(part, batch_of(images), step)
    assert scaler_state(part.scaler) == scaler_state(whole.scaler)
    assert all(map(torch.equal, part.network.parameters(), whole.network.parameters()))


def test_a_gradient_that_no_scale_makes_finite_ends_the_run() -> None:
    """Steps that are skipped again and again, with a finite loss, are found when the state is saved."""
    scaler = build_scaler("fp16", CPU)
    assert scaler_state(scaler)["scale"] == 2.0**16
    scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0**-11})
    with pytest.raises(TrainingDivergedError, match=r"not finite in float16.*take --precision bf16 or fp32"):
        scaler_state(scaler)


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_other_formats_scale_nothing(name: Precision) -> None:
    """Their steps are not changed, and their checkpoints have no state of a scaler."""
    scaler = build_scaler(name, CPU)
    assert scaler_state(scaler) == {}
    assert scaler.scale(torch.tensor(3.0)) == 3.0
    setup = replace(scaling_setup(linear()), precision=name, scaler=scaler)
    assert train_step(setup, batch_of(torch.randn(6, 3, 8, 8)), 0).dtype == torch.float32
    assert len(setup.optimizer.state) == 2
