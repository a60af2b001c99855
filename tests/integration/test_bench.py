"""The benches as a user runs them: scripts of a checkout, on tiny images and networks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Flags
from peers import parse_peers
from throughput import Bench, _peers

from dali_fixres.errors import UserError
from pipelines.dataset import open_dataset

BENCH = Path(__file__).parents[2] / "bench"
STAGES = ("storage", "read", "decode", "loader", "train step", "together", "evaluation", "overhead")


def run(folder: Path, script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a bench in a folder, with a cache of its own."""
    environment = {**os.environ, "DALI_FIXRES_CACHE": str(folder / "cache"), "COLUMNS": "160"}
    return subprocess.run(
        [sys.executable, str(BENCH / script), *map(str, words)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_throughput_says_what_limits_each_resolution(tmp_path: Path, images: Path) -> None:
    """Every stage and working peer has a row per resolution, and the verdicts follow from the rows."""
    peers = f"timm,ffcv={shutil.which('false')}"
    words = ("--data", images, "--model", "timm/test_resnet", "--res", "32,64", "--batch-size", 4, "--peers", peers)
    done = run(tmp_path, "throughput.py", *words, "--quick", "--repeats", 2, "--num-batches", 2, "--json", "t.json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "t.png").stat().st_size > 0
    found = json.loads((tmp_path / "t.json").read_text())
    rows = {(row["stage"], row["loader"], row["res"]): row for row in found["results"]}
    ours = {(stage, "dali-fixres", res) for stage in STAGES for res in (32, 64)}
    theirs = {("loader", "timm", res) for res in (32, 64)}
    assert set(rows) == ours | theirs
    assert all(len(row["repeats"]) == 2 and min(row["repeats"]) > 0 for row in found["results"])
    assert {"cpu", "usable_cores", "gpu", "driver", "torch", "nvidia-dali-cuda120"} < found["environment"].keys()
    assert found["data"]["num_images"] == 60
    assert len(found["data"]["fingerprint"]) == 64
    assert found["peers"]["timm"].keys() == {"timm", "torch", "pillow", "workers"}
    assert found["peers"]["ffcv"] == {"failed": "it has ended without a word"}
    assert "ffcv is left out" in done.stderr
    assert found["peak_host_mib"] > 100
    assert found["command"].startswith("uv run python bench/throughput.py --data ")
    assert found["command"].endswith(f"--peers {peers}")
    assert str(tmp_path) not in found["command"]
    assert "our loader over others" in done.stdout
    for verdict in found["verdicts"]:
        loader, step, together = (
            rows[stage, "dali-fixres", verdict["res"]]["repeats"] for stage in ("loader", "train step", "together")
        )
        rounds = [both / min(alone, stepped) for alone, stepped, both in zip(loader, step, together, strict=True)]
        assert verdict["overlap_efficiency"] == pytest.approx(sum(rounds) / 2, abs=0.02)
        overhead = rows["overhead", "dali-fixres", verdict["res"]]
        step_ms = verdict["ms_per_image"]["network"] * 4
        assert overhead["share_of_step"] == pytest.approx(overhead["ms_per_step"] / step_ms, rel=0.05)


def test_throughput_refuses_a_data_set_that_is_too_small(tmp_path: Path, images: Path) -> None:
    """Too few images for a batch are one line that says what to do, and exit code 2."""
    done = run(tmp_path, "throughput.py", "--data", images, "--model", "timm/test_resnet", "--json", "t.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("error: a batch of 64 images ")
    assert "larger than the 40 training images" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "t.json").exists()


def test_throughput_measures_the_peers_at_hand(images: Path) -> None:
    """Unless others are named, or none, or there is little time."""
    dataset = open_dataset(images)
    assert list(_peers(Bench(), dataset)) == ["torchvision", "torchvision-v2", "timm"]
    assert list(_peers(Bench(peers="spdl", quick=True), dataset)) == ["spdl"]
    assert _peers(Bench(peers=""), dataset) == _peers(Bench(quick=True), dataset) == {}


def test_flags_of_benches_are_checked() -> None:
    """Flags that contradict one another, and peers that nobody knows, are refused with what to give instead."""
    with pytest.raises(UserError, match="--quick and --full are opposites"):
        Flags(quick=True, full=True)
    with pytest.raises(UserError, match="--num-batches must be at least 2; found 1"):
        Flags(num_batches=1)
    with pytest.raises(UserError, match="did you mean 'timm'"):
        parse_peers("torchvision,tim")
    assert parse_peers("timm=env/bin/python,spdl") == {"timm": Path("env/bin/python"), "spdl": Path(sys.executable)}
    assert parse_peers("") == {}
