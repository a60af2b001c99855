"""Several ranks over gloo on the CPU: the same images, the same sums, one writer, one end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
from ranks import errors_of, launch, run_ranks
from steps import after_step
from torch.distributed import distributed_c10d
from torch.distributed.elastic.multiprocessing.api import SignalException

from dali_fixres.cli import app, main
from dali_fixres.commands.evaluate import evaluate
from dali_fixres.commands.train import train
from dali_fixres.config import EvaluateConfig, TrainConfig
from dali_fixres.errors import ConfigError, DataError, Interrupted, ProcessFailedError
from dali_fixres.runtime.distributed import process_group
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DALI_FIXRES_CACHE", str(tmp_path_factory.mktemp("cache")))
        train(replace(config, out=run))
    return run


def words(config: TrainConfig, **others: object) -> list[str]:
    """Return a config as words of the command line."""
    values = {**config.stored(), **others}
    given = {name: value for name, value in values.items() if value not in (False, []) and name != "crop_ratio"}
    flags = [(f"--{name.replace('_', '-')}", value) for name, value in given.items()]
    return ["train", *(str(word) for flag, value in flags for word in ((flag,) if value is True else (flag, value)))]


def run_alone(*command: object) -> None:
    """Run a command line in this process; its errors are raised."""
    app([*map(str, command)], exit_on_error=False, print_error=False, result_action="return_value")


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


@pytest.mark.parametrize("num_processes", [pytest.param(2, marks=pytest.mark.slow), 3])
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


# One rank fails


def truncate(path: Path) -> None:
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_an_error_on_one_rank_ends_all(config: TrainConfig, images: Path, tmp_path: Path) -> None:
    """With --strict, the rank that reads a broken file says so in one line; torchrun ends the other and reports it."""
    data = Path(shutil.copytree(images, tmp_path / "data"))
    for victim in (data / "val" / "ant").iterdir():
        if int(victim.stem) % 2:  # in the second rank's part of the first test batch, and there alone
            truncate(victim)
    command = words(config, data=data, batch_size=4, strict=True, out=tmp_path / "run")
    _, _, first = launch(2, main, command, tmp_path / "logs").partition("Root Cause")
    errors = [line for line in errors_of(tmp_path / "logs", 1).splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: rank 1: cannot decode")
    assert not any("Traceback" in errors_of(tmp_path / "logs", rank) for rank in range(2))
    assert re.search(r"rank +: 1 .*exitcode +: 2 .*UnreadableError: cannot decode", first, re.DOTALL)
    assert len(first.splitlines()) < 20, "no traceback of an error that is the user's"


def killed_after(step: int, folder: Path, command: list[str]) -> None:
    """Train as one of several ranks, the second of which is killed after a step."""

    def kill() -> None:
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    with after_step(step, kill if os.environ["RANK"] == "1" else bool):
        main(command)


def test_a_killed_rank_ends_all(config: TrainConfig, tmp_path: Path) -> None:
    """Kill -9 of one rank ends the other within seconds, and torchrun's report has the rank and the signal."""
    command = words(config, batch_size=4, out=tmp_path / "run")
    _, _, first = launch(2, partial(killed_after, 2, tmp_path), command, tmp_path / "logs").partition("Root Cause")
    assert time.time() - (tmp_path / "killed").stat().st_mtime < 20
    assert "Traceback" not in errors_of(tmp_path / "logs", 0)
    assert re.search(r"rank +: 1 .*exitcode +: -9 .*SIGKILL", first, re.DOTALL)


def slow_first_rank(fails: bool) -> None:
    """Work on files on the first rank for longer than a collective may take, or fail; the second rank waits."""
    distributed_c10d.default_pg_timeout = timedelta(seconds=4)  # of the processes that this is run in
    error = {"0": DataError, "1": ProcessFailedError}[os.environ["RANK"]] if fails else None
    with pytest.raises(error) if error else nullcontext(), process_group(torch.device("cpu")) as world:
        with world.local_main_first():
            if world.is_main and fails:
                raise DataError("no data")
            time.sleep(6 if world.is_main else 0)
        assert world.sum(torch.tensor([1])).item() == 2


@pytest.mark.parametrize("fails", [False, True])
def test_ranks_wait_for_work_on_files(fails: bool) -> None:
    """Ranks may wait for the first one for longer than for a collective; if it ends, the wait ends at once."""
    run_ranks(2, slow_first_rank, fails)


# Preemption and restarts


def read_until(text: str, read: Callable[[], str]) -> None:
    """Wait until something has been printed."""
    for _ in range(1200):
        if text in read():
            return
        time.sleep(0.1)
    pytest.fail(f"{text!r} does not appear in {read()!r}")


def test_preempted_processes_resume_in_other_numbers(config: TrainConfig, alone: Path, tmp_path: Path) -> None:
    """SIGTERM to torchrun stops both after the same step; a single process resumes, with the losses of one."""
    run, said = tmp_path / "run", partial(errors_of, tmp_path / "logs", 0)

    def terminate() -> None:
        read_until("epoch 1/2", said)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate, daemon=True).start()
    with pytest.raises(SignalException, match=r"SIGTERM|15"):
        launch(2, main, words(config, batch_size=4, out=run), tmp_path / "logs")
    assert len(re.findall(r"stopped by SIGTERM after step \d+, and saved", said())) == 1, said()
    assert 5 <= torch.load(run / "last.pt", weights_only=True)["step"] <= 10
    run_alone("train", "--resume", "--out", run, "--batch-size", 8)
    assert losses(run) == pytest.approx(losses(alone), rel=1e-4)


@pytest.mark.slow
def test_torchrun_restarts_a_killed_process(config: TrainConfig, tmp_path: Path) -> None:
    """The real torchrun with --max-restarts: kill -9 costs time only; SIGTERM then stops and saves."""
    run, log = tmp_path / "run", tmp_path / "log.txt"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2"]
    command = words(replace(config, epochs=20), batch_size=4, checkpoint_every="1steps", out=run)
    launcher += ["-m", "dali_fixres"]
    with log.open("w") as file, subprocess.Popen([*launcher, *command], stderr=file, stdout=file) as torchrun:
        try:
            read_until("epoch 1/20", log.read_text)
            children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
            os.kill(int(children[-1]), signal.SIGKILL)
            read_until(f"resuming {run} after step", log.read_text)
            read_until("epoch 6/20", log.read_text)
        finally:
            torchrun.terminate()
            torchrun.wait(timeout=60)
    assert "stopped by SIGTERM after step" in log.read_text()
    whole = tmp_path / "whole"
    train(replace(config, epochs=20, out=whole))
    run_alone("train", "--resume", "--out", run, "--batch-size", 8)
    assert losses(run) == pytest.approx(losses(whole), rel=1e-4)


def test_restarts_need_a_folder(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that torchrun may start again has to be found again."""
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    with pytest.raises(ConfigError, match="give it an --out"):
        run_alone("train", "--data", images)
