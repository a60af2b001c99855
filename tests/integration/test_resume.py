"""A run that was stopped and resumed is the run that was never stopped, to the bit."""

import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import natural_image
from steps import after_step
from torch.optim.optimizer import register_optimizer_step_post_hook

from dali_fixres.commands.finetune import finetune
from dali_fixres.commands.train import train
from dali_fixres.config import FinetuneConfig, TrainConfig
from dali_fixres.errors import CheckpointError, ConfigError, Interrupted
from dali_fixres.runtime.run_folder import RunFolder

STEPS = 5
"""Per epoch: 40 images in batches of 8."""


@pytest.fixture(scope="module")
def low(images: Path) -> TrainConfig:
    """Return a training of 3 epochs with dropout and a change of resolution after step 5, of 8 images per step."""
    return TrainConfig(
        data=images,
        model="timm/test_resnet",
        model_arg=("drop_rate=0.3",),
        batch_size=8,
        train_res="64@0,96@1",
        epochs=3,
        lr=0.05,
        warmup_ratio=0.2,
        workers=2,
    )


def stop(command: Callable[[Any], None], config: Any, step: int, number: signal.Signals = signal.SIGTERM) -> str:
    """Run a command until it has been stopped by a signal after a step; return what it says."""
    with after_step(step, partial(signal.raise_signal, number)), pytest.raises(Interrupted) as caught:
        command(config)
    return str(caught.value)


def load(run: Path, name: str = "last.pt") -> dict[str, Any]:
    """Return the content of a checkpoint."""
    content: dict[str, Any] = torch.load(run / name, weights_only=True)
    return content


def assert_same(one: Any, other: Any) -> None:
    """Compare nested containers of tensors and plain values bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


def facts(run: Path) -> list[dict[str, Any]]:
    """Return a run's records without what depends on the clock."""
    timed = {"time", "images_per_s", "wait_share", "seconds"}
    return [{key: value for key, value in row.items() if key not in timed} for row in RunFolder(run).records()]


def assert_same_runs(one: Path, other: Path) -> None:
    """Compare everything two runs have come to, but for the time they took."""
    for name in ("last.pt", "best.pt"):
        first, second = load(one, name), load(other, name)
        for state in (first, second):
            state.pop("statistics")  # holds seconds; its sums are in the records
        assert_same(first, second)
    assert facts(one) == facts(other)


@pytest.fixture(scope="module")
def whole(low: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the training that was never stopped."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(replace(low, out=run))
    return run


def test_cut_anywhere_training_ends_the_same(low: TrainConfig, whole: Path, tmp_path: Path) -> None:
    """Stopped after the first step, within an epoch, at its end, and right after a change of resolution."""
    for step in (1, 3, 5, 6, 8, 10, 14):
        part = replace(low, out=tmp_path / f"cut{step}")
        said = stop(train, part, step)
        assert f"stopped by SIGTERM after step {step}, and saved" in said
        assert f"dali-fixres train --resume --out {part.out}" in said
        assert part.out is not None
        state = load(part.out)
        assert (state["step"], state["epoch"], state["num_done"]) == (step, (step - 1) // 5, 8 * ((step - 1) % 5 + 1))
        train(replace(part, resume=True))
        assert_same_runs(whole, part.out)


def test_training_in_bfloat16_ends_the_same(low: TrainConfig, tmp_path: Path) -> None:
    """So does a training in bf16, whose settings say so, and whose network differs from that trained in float32."""
    config = replace(low, precision="bf16", epochs=2, out=tmp_path / "one")
    train(config)
    part = replace(config, out=tmp_path / "two")
    stop(train, part, 3)
    with pytest.raises(ConfigError, match=r"was begun with precision = bf16; a resumed run keeps that"):
        train(replace(part, resume=True, precision="fp32"))
    train(replace(part, resume=True))
    assert_same_runs(tmp_path / "one", tmp_path / "two")
    assert load(tmp_path / "one")["config"]["precision"] == "bf16"
    train(replace(config, precision="auto", out=tmp_path / "float32"))
    assert load(tmp_path / "float32")["config"]["precision"] == "fp32"
    assert not torch.equal(*(load(tmp_path / run)["state_dict"]["fc.weight"] for run in ("one", "float32")))


def test_stopped_after_every_step_training_ends_the_same(low: TrainConfig, whole: Path, tmp_path: Path) -> None:
    """Fourteen stops in one run, by all three signals, change nothing."""
    config = replace(low, out=tmp_path / "often")
    signals = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    for step in range(1, 3 * STEPS):
        said = stop(train, config, 1, signals[step % 3])
        assert f"after step {step}," in said
        config = replace(config, resume=True)
    train(config)
    assert_same_runs(whole, tmp_path / "often")


def test_stopped_while_testing_training_ends_the_same(low: TrainConfig, whole: Path, tmp_path: Path) -> None:
    """A signal that comes during the evaluation after an epoch loses nothing of that epoch."""
    config = replace(low, out=tmp_path / "part")
    steps_taken = 0

    def count(*_: object) -> None:
        nonlocal steps_taken
        steps_taken += 1

    def signal_in_evaluation(module: torch.nn.Module, _inputs: object) -> None:
        if steps_taken == STEPS and not module.training:
            signal.raise_signal(signal.SIGTERM)

    hooks = [
        register_optimizer_step_post_hook(count),
        torch.nn.modules.module.register_module_forward_pre_hook(signal_in_evaluation),
    ]
    try:
        with pytest.raises(Interrupted, match="by SIGTERM after step 5, and saved"):
            train(config)
    finally:
        for hook in hooks:
            hook.remove()
    state = load(tmp_path / "part")
    assert (state["step"], state["epoch"], state["num_done"], state["top1"]) == (5, 0, 40, None)
    train(replace(config, resume=True))
    assert_same_runs(whole, tmp_path / "part")


def test_a_signal_during_the_report_does_not_cut_it(
    low: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is trained and saved by then: the report is finished, and the run ends as usual."""

    def signalled(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("dali_fixres.report.training.plot_curves", signalled)
    train(replace(low, epochs=2, out=tmp_path / "run"))
    assert (tmp_path / "run" / "results.json").is_file()
    assert load(tmp_path / "run")["epoch"] == 2


@pytest.mark.parametrize("step", [2, 5, 9])
def test_finetuning_cut_anywhere_ends_the_same(images: Path, whole: Path, tmp_path: Path, step: int) -> None:
    """Fine-tuning is resumed like training; the evaluation before it is not made again."""
    config = FinetuneConfig(
        checkpoint=whole, data=images, test_res=128, crop_ratio=0.875, epochs=2, batch_size=8, workers=2,
        method="sgd", out=tmp_path / "one",
    )  # fmt: skip
    finetune(config)
    part = replace(config, out=tmp_path / "two")
    stop(finetune, part, step)
    finetune(replace(part, resume=True))
    assert_same_runs(tmp_path / "one", tmp_path / "two")
    before = [row for row in facts(tmp_path / "two") if row["event"] == "evaluation" and row["epoch"] == 0]
    assert [row["test_res"] for row in before] == [96, 128]


def test_checkpoints_come_as_often_as_asked(low: TrainConfig, tmp_path: Path) -> None:
    """With --checkpoint-every 2steps, a run that dies after step 4 has its state after step 4."""
    config = replace(low, out=tmp_path / "run", checkpoint_every="2steps")

    def fail() -> None:
        raise OSError("power failure")

    with after_step(5, fail), pytest.raises(OSError, match="power failure"):
        train(config)
    assert load(tmp_path / "run")["step"] == 4


def test_changed_data_is_refused_with_the_difference(low: TrainConfig, images: Path, tmp_path: Path) -> None:
    """A resumed run names what was added, removed and changed, and continues only with --accept-changed-data."""
    data = tmp_path / "data"
    for source in images.rglob("*.jpg"):
        target = data / source.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    config = replace(low, data=data, out=tmp_path / "run")
    stop(train, config, 7)
    (data / "train" / "ant" / "00.jpg").unlink()
    natural_image(np.random.default_rng(0), 200, 300).save(data / "train" / "bee" / "new.jpg")
    natural_image(np.random.default_rng(1), 210, 310).save(data / "val" / "cat" / "01.jpg")
    resumed = replace(config, resume=True)
    with pytest.raises(CheckpointError) as caught:
        train(resumed)
    for part in (
        "1 added: train/bee/new.jpg",
        "1 removed: train/ant/00.jpg",
        "1 changed: val/cat/01.jpg",
        "--accept-changed-data",
    ):
        assert part in str(caught.value)
    assert load(tmp_path / "run")["step"] == 7
    train(replace(resumed, accept_changed_data=True))
    assert load(tmp_path / "run")["epoch"] == 3


def test_fewer_epochs_than_are_done_are_refused(low: TrainConfig, tmp_path: Path) -> None:
    """A run that has begun its second epoch cannot go on to the end of its first."""
    config = replace(low, out=tmp_path / "run", train_res="64")
    stop(train, config, 7)
    with pytest.raises(
        ConfigError, match=r"has done 1 epochs and a part of the next, more than --epochs 1; give a larger"
    ):
        train(replace(config, resume=True, epochs=1))


def test_changed_settings_are_refused(low: TrainConfig, tmp_path: Path) -> None:
    """What decides which images a run sees cannot change; the message says what it was."""
    config = replace(low, out=tmp_path / "run")
    stop(train, config, 2)
    with pytest.raises(ConfigError, match=r"was begun with seed = 0; a resumed run keeps that"):
        train(replace(config, resume=True, seed=1))


def test_a_batch_too_large_for_the_rest_leaves_it(low: TrainConfig, tmp_path: Path) -> None:
    """With a global batch larger than what is left, the epoch ends there, and the next begins with the new batch."""
    config = replace(low, out=tmp_path / "run")
    stop(train, config, 4)
    train(replace(config, resume=True, batch_size=40))
    epochs = [row for row in facts(tmp_path / "run") if row["event"] == "epoch"]
    assert [row["step"] for row in epochs] == [0, 2, 3]
    assert load(tmp_path / "run")["epoch"] == 3


def test_another_batch_size_goes_on_at_the_same_image(
    low: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run may be resumed with another batch size: what is left of the epoch is cut anew, into 4 steps of 4."""
    config = replace(low, out=tmp_path / "run")
    stop(train, config, 3)
    capsys.readouterr()
    train(replace(config, resume=True, batch_size=4))
    assert "warning: the global batch was 8 before and is 4 now" in capsys.readouterr().err
    epochs = [row for row in facts(tmp_path / "run") if row["event"] == "epoch"]
    assert [row["step"] for row in epochs] == [10, 20, 30]
    assert load(tmp_path / "run")["epoch"] == 3
