"""kill -9 at random moments: the run folder is always readable, and the run ends as if nothing had happened."""

import random
import signal
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ranks import start_ranks

from dali_fixres.checkpoints.checkpoint import load_checkpoint
from dali_fixres.commands.train import train
from dali_fixres.config import TrainConfig
from dali_fixres.runtime.run_folder import RunFolder
from pipelines.dataset.snapshot import load_snapshot

NUM_KILLS = 30


@pytest.mark.slow
def test_thirty_kills_change_nothing(images: Path, tmp_path: Path) -> None:
    """A run that writes a checkpoint after every step is killed up to thirty times, at moments drawn at random."""
    config = TrainConfig(
        data=images, model="timm/test_resnet", model_arg=("drop_rate=0.3",), batch_size=8, workers=1,
        train_res="64@0,96@40,64@80", test_res=64, epochs=120, lr=0.01, checkpoint_every="1steps",
        out=tmp_path / "whole",
    )  # fmt: skip
    (whole,) = start_ranks(1, train, config)
    whole.join()
    assert whole.exitcode == 0

    moments = random.Random(0)  # noqa: S311 - when to kill is no secret
    run = RunFolder(tmp_path / "killed")
    config = replace(config, out=run.path)
    steps = []
    for _ in range(NUM_KILLS):
        (victim,) = start_ranks(1, train, replace(config, resume=run.last.exists()))
        time.sleep(moments.uniform(0, 1.5))
        victim.kill()
        victim.join()
        if victim.exitcode == 0:
            break  # it was faster than the moments allow for
        assert victim.exitcode == -signal.SIGKILL
        if run.last.exists():
            state = load_checkpoint(run.last)
            steps.append(state.step)
            assert len(load_snapshot(run.data, images)) == 60
            assert tomllib.loads(run.config.read_text())["epochs"] == 120
            # A kill may come between the save after an epoch's last step and the epoch's record.
            assert len([row for row in run.records() if row["event"] == "epoch"]) >= state.epoch
            if run.best.exists():
                assert load_checkpoint(run.best).top1 is not None
    assert steps == sorted(steps), "no kill may lose what an earlier one had left"
    assert len(set(steps)) > NUM_KILLS // 3, "most kills have to come while the run makes progress"
    (last,) = start_ranks(1, train, replace(config, resume=True))
    last.join()
    assert last.exitcode == 0

    for name in ("last.pt", "best.pt"):
        one, other = (load_checkpoint(tmp_path / folder / name) for folder in ("whole", "killed"))
        assert (one.step, one.top1, one.best_top1) == (other.step, other.top1, other.best_top1)
        assert all(torch.equal(tensor, other.state_dict[key]) for key, tensor in one.state_dict.items())
    facts = [
        [(row["event"], row["epoch"], row.get("loss"), row.get("top1")) for row in RunFolder(folder).records()]
        for folder in (tmp_path / "whole", run.path)
    ]
    assert facts[0] == facts[1]
