"""Files made to do harm: nothing in them is run, and no name in them leads out of the run folder."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dali_fixres.commands.evaluate import evaluate
from dali_fixres.commands.train import train
from dali_fixres.config import EvaluateConfig, TrainConfig
from dali_fixres.errors import CheckpointError, DataError


class Mischief:
    """What runs a command when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Ask for a folder to be made."""
        return os.mkdir, (str(self.witness),)


@pytest.fixture
def config(images: Path, tmp_path: Path) -> TrainConfig:
    """Return a training of one epoch."""
    return TrainConfig(
        data=images, model="timm/test_resnet", batch_size=8, train_res="64", epochs=1, workers=1,
        out=tmp_path / "runs" / "run",
    )  # fmt: skip


def test_a_checkpoint_cannot_run_code(config: TrainConfig, tmp_path: Path) -> None:
    """Neither resuming from such a file, nor testing it, nor starting from it does what it asks for."""
    witness = tmp_path / "witness"
    train(config)
    assert config.out is not None
    torch.save({"format": 2, "state_dict": Mischief(witness)}, config.out / "last.pt")
    torch.save({"model": {"fc.weight": Mischief(witness)}}, tmp_path / "weights.pth")
    with pytest.raises(
        CheckpointError, match=r"last\.pt is not a plain checkpoint: loading it would run code of \w+\.mkdir"
    ):
        train(replace(config, resume=True))
    with pytest.raises(CheckpointError, match="would run code"):
        evaluate(EvaluateConfig(checkpoint=config.out / "last.pt"))
    with pytest.raises(CheckpointError, match="would run code"):
        train(replace(config, weights=tmp_path / "weights.pth", out=tmp_path / "runs" / "other"))
    assert not witness.exists()


def test_a_snapshot_cannot_run_code(config: TrainConfig, tmp_path: Path) -> None:
    """A data.npz with pickled objects is refused when the run is resumed on changed data."""
    witness = tmp_path / "witness"
    train(config)
    assert config.out is not None
    state = torch.load(config.out / "last.pt", weights_only=True)
    torch.save({**state, "fingerprint": "0" * 64}, config.out / "last.pt")
    np.savez(config.out / "data.npz", paths=np.array([Mischief(witness)], dtype=object))
    with pytest.raises(DataError, match=r"cannot read .*data\.npz"):
        train(replace(config, resume=True))
    assert not witness.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": {"param_groups": [{"lr": 0.1, "params": [0, 1, 2]}], "state": {}}},
        {"state_dict": {"fc.weight": "no tensor"}},
        {"num_done": "many"},
        {"epoch": None},
        {"statistics": {"loss_sum": 0.0, "surprise": 1}},
        {"unreadable": [1, 2]},
    ],
)
def test_a_checkpoint_of_wrong_parts_is_refused(config: TrainConfig, change: dict[str, object]) -> None:
    """What is loaded without running code may still be nonsense; the error names the file."""
    train(config)
    assert config.out is not None
    state = torch.load(config.out / "last.pt", weights_only=True)
    torch.save({**state, "epoch": 0, **change}, config.out / "last.pt")
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        train(replace(config, resume=True))


def test_names_of_the_data_stay_in_the_data(config: TrainConfig, images: Path, tmp_path: Path) -> None:
    """Labels and paths with ../ or / in them write nothing outside the run folder."""
    manifest = tmp_path / "data" / "manifest.csv"
    manifest.parent.mkdir()
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for label, name in (("../../../escaped", "ant"), ("/escaped", "bee")):
            for split in ("train", "val"):
                for path in sorted((images / split / name).iterdir()):
                    writer.writerow([os.path.relpath(path, manifest.parent), label, split])
    before = {path for path in tmp_path.rglob("*") if config.out not in path.parents}
    train(replace(config, data=manifest))
    after = {path for path in tmp_path.rglob("*") if config.out not in path.parents and path != config.out}
    assert after - before == {tmp_path / "runs"}
    assert not (tmp_path.parent / "escaped").exists()
    assert not Path("/escaped").exists()
