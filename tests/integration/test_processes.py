"""Several processes under torchrun, over gloo on the CPU: the same images, the same sums, one writer, one end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from steps import after_step

from dali_fixres.commands.evaluate import evaluate
from dali_fixres.commands.train import train
from dali_fixres.config import EvaluateConfig, TrainConfig
from dali_fixres.errors import Interrupted
from dali_fixres.runtime.run_folder import RunFolder


@pytest.fixture(scope="module")
def config(images: Path) -> TrainConfig:
    """Return a training of 2 epochs of 5 steps, of a network in which images do not depend on one another.

    Batch norm would use the statistics of each process' own images.
    """
    return TrainConfig(
        data=images, model="timm/test_convnext", batch_size=8, train_res="64@0,96@1", epochs=2, lr=0.05, workers=1
    )


@pytest.fixture(scope="module")
def alone(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of one process with batches of 8."""
    run = tmp_path_factory.mktemp("runs") / "alone"
    train(replace(config, out=run))
    return run


def words(config: TrainConfig, **others: object) -> list[object]:
    """Return a config as words of the command line."""
    values = {**config.stored(), **others}
    given = {name: value for name, value in values.items() if value not in (False, []) and name != "crop_ratio"}
    flags = [(f"--{name.replace('_', '-')}", value) for name, value in given.items()]
    return ["train", *(word for flag, value in flags for word in ((flag,) if value is True else (flag, value)))]


@pytest.fixture(scope="session")
def torchrun(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a function that starts the command line in several processes."""
    cache = tmp_path_factory.mktemp("torchrun-cache")

    def start(num_processes: int, *words: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        environment = {**os.environ, "DALI_FIXRES_CACHE": str(cache), "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
        command += [*launcher, "-m", "dali_fixres", *map(str, words)]
        return subprocess.Popen(
            command, cwd=workplace, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    return start


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for success and return what was said on standard error."""
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def losses(run: Path) -> list[float]:
    """Return a run's training loss by epoch."""
    return [record["loss"] for record in RunFolder(run).records() if record["event"] == "epoch"]


def counts(run: Path) -> list[tuple[int, int]]:
    """Return images tested and unreadable, evaluation by evaluation."""
    rows = [record for record in RunFolder(run).records() if record["event"] == "evaluation"]
    return [(row["num_images"], row["num_unreadable"]) for row in rows]


@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_learn_what_one_learns(config: TrainConfig, alone: Path, tmp_path: Path, num_processes: int) -> None:
    """At the same global batch of 8 the losses and the weights agree with those of one process, to rounding."""
    run = tmp_path / "many"
    run_ranks(num_processes, train, replace(config, batch_size=8 // num_processes, out=run))
    assert losses(run) == pytest.approx(losses(alone), rel=1e-4)
    assert counts(run) == [(20, 0), (20, 0)]
    one, other = (torch.load(folder / "last.pt", weights_only=True) for folder in (alone, run))
    assert other["step"] == one["step"] == 10
    for key, tensor in one["state_dict"].items():
        torch.testing.assert_close(other["state_dict"][key], tensor, rtol=1e-3, atol=1e-4, msg=key)


def stopping_after(step: int, config: TrainConfig) -> None:
    """Train in one of several processes, the second of which gets a signal after a step; all of them stop."""
    notice = partial(signal.raise_signal, signal.SIGUSR1) if os.environ["RANK"] == "1" else bool
    with after_step(step, notice), pytest.raises(Interrupted):
        train(config)


@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_resume_to_the_bit(config: TrainConfig, tmp_path: Path, num_processes: int) -> None:
    """A signal to one process stops all at the same step; resumed, they end as if there had been none."""
    whole = replace(
        config, model="timm/test_resnet", model_arg=("drop_rate=0.3",), batch_size=4, out=tmp_path / "whole"
    )
    run_ranks(num_processes, train, whole)
    part = replace(whole, out=tmp_path / "part")
    run_ranks(num_processes, partial(stopping_after, 2), part)
    assert torch.load(tmp_path / "part" / "last.pt", weights_only=True)["step"] == 3, "one step later, by agreement"
    run_ranks(num_processes, train, replace(part, resume=True))
    one, other = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "part"))
    assert one["step"] == other["step"]
    assert all(torch.equal(tensor, other["state_dict"][name]) for name, tensor in one["state_dict"].items())


def test_processes_count_what_one_counts(alone: Path, images: Path, tmp_path: Path) -> None:
    """20 images, one of them unreadable, in batches of 3: the same answers from 1, 2, 3 and 4 processes."""
    data = Path(shutil.copytree(images, tmp_path / "data"))
    victim = data / "val" / "cat" / "02.jpg"
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    found = []
    for num_processes in (1, 2, 3, 4):
        figures = tmp_path / f"{num_processes}.json"
        config = EvaluateConfig(
            checkpoint=alone, data=data, test_res="64,96", batch_size=3, workers=1, json=figures, plot=tmp_path / "plot"
        )
        run_ranks(num_processes, evaluate, config)
        content = json.loads(figures.read_text())
        assert [(row["num_images"], row["num_unreadable"]) for row in content["results"]] == [(19, 1), (19, 1)]
        found.append(
            [(row["test_res"], row["top1"], row["top5"], *content["unreadable"]) for row in content["results"]]
        )
    assert found[1:] == found[:1] * 3


def test_an_error_on_one_rank_ends_all_with_its_message(
    torchrun: Callable[..., Any], config: TrainConfig, images: Path, workplace: Path
) -> None:
    """With --strict, the rank that meets a broken file ends the others, and its message is the one that is shown."""
    data = Path(shutil.copytree(images, workplace / "broken"))
    for victim in (data / "val" / "ant").iterdir():  # in the first round of the second rank too, and of it alone
        if int(victim.stem) % 2:
            victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    process = torchrun(2, *words(config, data=data, batch_size=4, strict=True, out="runs/strict"))
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert all(line.startswith("error: rank 1: cannot decode") for line in errors), errors
    assert "Traceback" not in said.partition("ChildFailedError")[0].replace(
        'Traceback (most recent call last):\n  File "<frozen', ""
    )


def test_preempted_processes_resume_in_other_numbers(
    torchrun: Callable[..., Any], config: TrainConfig, alone: Path, workplace: Path
) -> None:
    """SIGTERM to torchrun stops both after the same step; a single process goes on to where it would have come."""
    process = torchrun(2, *words(config, batch_size=4, out="runs/preempted"))
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 1/2"):
            break
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert len(re.findall(r"stopped by SIGTERM after step \d+, and saved", said)) == 1, said
    run = workplace / "runs" / "preempted"
    step = torch.load(run / "last.pt", weights_only=True)["step"]
    assert 5 <= step <= 10
    finish(torchrun(1, "train", "--resume", "--out", "runs/preempted", "--batch-size", 8))
    assert losses(run) == pytest.approx(losses(alone), rel=1e-4)


@pytest.mark.slow
def test_a_killed_process_is_restarted_and_resumes(
    torchrun: Callable[..., Any], config: TrainConfig, alone: Path, workplace: Path
) -> None:
    """With --max-restarts, kill -9 of one process costs nothing but time."""
    command = words(config, batch_size=4, checkpoint_every="1steps", out="runs/elastic")
    process = torchrun(2, *command, launcher=("--max-restarts=2",))
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("epoch 1/2"))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    said = finish(process)
    assert "resuming runs/elastic after step" in said
    assert losses(workplace / "runs" / "elastic") == pytest.approx(losses(alone), rel=1e-4)


def test_restarts_need_a_folder(torchrun: Callable[..., Any], images: Path) -> None:
    """A run that torchrun may start again has to be found again."""
    process = torchrun(1, "train", "--data", images, launcher=("--max-restarts=1",))
    _, said = process.communicate(timeout=60)
    assert "give it an --out" in said
