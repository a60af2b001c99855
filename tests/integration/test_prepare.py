"""`prepare` and the commands on prepared data."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from preparing import SMALL, digests, prepare_copies

from dali_fixres.commands.index import index as show_index
from dali_fixres.commands.prepare import prepare
from dali_fixres.commands.train import train
from dali_fixres.commands.verify import verify
from dali_fixres.config import IndexConfig, PrepareConfig, TrainConfig, VerifyConfig
from dali_fixres.errors import CheckpointError
from pipelines.dataset import open_dataset
from pipelines.errors import ConfigError, DataError


def test_what_prepare_reports(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The room it needs, what it has written and left out, and the next command; the second time, that it checks."""
    data = tmp_path / "data"
    shutil.copytree(images / "val", data / "val")
    (data / "val" / "ant" / "01.jpg").write_text("no image")
    config = PrepareConfig(sizes="64", max_side=300, workers=1)
    prepare(data, tmp_path / "set", config)
    lines = capsys.readouterr().err
    assert re.search(r"^about \d+ MB to write, \d+ MB free$", lines, re.MULTILINE)
    assert f"1 file(s) cannot be read and are left out; see {tmp_path / 'set' / 'unreadable.txt'}" in lines
    assert re.search(rf"^19 images at 64, full: \d\.\d MB in {tmp_path / 'set'}$", lines, re.MULTILINE)
    assert lines.endswith(f"next: dali-fixres train --data {tmp_path / 'set'}\n")
    prepare(data, tmp_path / "set", config)
    lines = capsys.readouterr().err
    assert lines.startswith(f"{tmp_path / 'set'} was finished before: checking that it is complete\n")


def test_killed_while_it_writes(images: Path, prepared: Path, tmp_path: Path) -> None:
    """Killed when the first part is done, and again when the second is: it is not finished, and ends all the same."""
    target = tmp_path / "set"
    command = [sys.executable, "-m", "dali_fixres", "prepare", str(images), str(target), "--sizes", "64,128"]
    command += ["--max-side", "300", "--shard-size", "15", "--workers", "1"]
    for num_done in (1, 2):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and len(list(target.glob(".done/*.json"))) < num_done:
                time.sleep(0.001)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        with pytest.raises(DataError, match="is not finished; prepare it again"):
            open_dataset(target)
    prepare_copies(images, target, SMALL)
    assert digests(target) == digests(prepared)


def test_verify_and_index_know_the_copies(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy that is broken inside of its shard is found and named; `index` says how many copies there are."""
    target = Path(shutil.copytree(prepared, tmp_path / "set"))
    copies = open_dataset(target).copies[1]
    row = 7
    with (copies.root / copies.shards[copies.shard_of[row]]).open("r+b") as file:
        file.seek(copies.offsets[row])
        file.write(bytes(200))
    monkeypatch.chdir(tmp_path)
    assert verify(target, VerifyConfig(json=tmp_path / "verify.json"))
    found = json.loads((tmp_path / "verify.json").read_text())
    assert found["num_files"] == 180
    assert len(found["unreadable"]) == 1
    assert "its copy of 128 px: not a JPEG" in found["unreadable"][0]
    capsys.readouterr()
    show_index(IndexConfig(data=target))
    assert "copies of 64 px: 60 images" in capsys.readouterr().out


def test_a_run_is_not_resumed_with_other_copies(images: Path, prepared: Path, tmp_path: Path) -> None:
    """The fingerprint of a data set covers its copies; the error says what has changed."""
    other = tmp_path / "other"
    prepare_copies(images, other, replace(SMALL, sides=(96, 128)))
    common: dict[str, Any] = {"model": "timm/test_resnet", "train_res": "32", "batch_size": 8, "out": tmp_path / "run"}
    train(TrainConfig(data=prepared, epochs=1, **common))
    with pytest.raises(CheckpointError, match=r"has changed since .* \(its resized copies are others\)"):
        train(TrainConfig(data=other, epochs=2, resume=True, **common))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sizes": "256,160"}, "--sizes must be ascending"),
        ({"sizes": "160,160"}, "--sizes must be ascending"),
        ({"sizes": "16"}, "from 32 px"),
        ({"sizes": "160,big"}, "--sizes must be whole numbers"),
        ({"max_side": 384}, "--max-side must be above the largest of --sizes, 384"),
        ({"quality": 96}, "--quality must be from 1 to 95"),
        ({"full": False, "layout": "folder"}, "--no-full needs --layout shards"),
    ],
)
def test_settings_that_are_refused(values: dict[str, Any], message: str) -> None:
    """Each names the flag and the rule."""
    with pytest.raises(ConfigError, match=message):
        PrepareConfig(**values)
