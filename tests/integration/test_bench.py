"""The benches on a data set so small that no figure means anything."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bench.harness import OURS
from bench.on_gpu import Step, run, steps_of
from bench.throughput import BENCH, STAGES, ThroughputFlags
from dali_fixres.runtime import Reporter
from pipelines import UserError

ROOT = Path(__file__).parents[2]


def test_throughput_says_what_limits_each_resolution(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every stage has a row per resolution; a baseline that fails is left out; the last three lines are the answer."""
    flags = ThroughputFlags(
        data=images, model="timm/test_resnet", res="32,64", batch_size=4, device="cpu", quick=True, repeats=2,
        num_batches=2, baselines="ffcv=false", json=tmp_path / "t.json",
    )  # fmt: skip
    assert BENCH.run(flags) == tmp_path / "t.json"
    found = json.loads((tmp_path / "t.json").read_text())
    rows = {(row["stage"], row["res"]): row for row in found["results"]}
    assert rows.keys() == {(stage, res) for stage in STAGES for res in (32, 64)}
    assert all(row["loader"] == OURS and len(row["repeats"]) == 2 and min(row["repeats"]) > 0 for row in rows.values())
    assert {"cpu", "usable_cores", "gpu", "torch", "nvidia-dali-cuda120"} < found["environment"].keys()
    assert found["data"]["num_images"] == 60
    assert found["baselines"] == {"ffcv": {"failed": "it has ended without a message"}}
    assert [one["res"] for one in found["bottlenecks"]] == [32, 64]
    printed = capsys.readouterr()
    assert "ffcv is left out" in printed.err
    lines = printed.out.splitlines()
    assert max(map(len, lines[:-3])) <= 100
    assert lines[-1].startswith("What limits the training: ")


def test_a_script_ends_with_one_line(tmp_path: Path, images: Path) -> None:
    """`python bench/throughput.py` runs anywhere; too few images for a batch are a user's mistake."""
    command = [sys.executable, ROOT / "bench" / "throughput.py", "--data", images, "--model", "timm/test_resnet"]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("error: a batch of 64 images ")


def test_what_was_measured_is_in_the_archive(tmp_path: Path) -> None:
    """A step that fails or hangs is ended and named, and the next one runs; the archive grows with each."""
    python = sys.executable
    steps = [
        Step("good", [python, "-c", f"open({str(tmp_path / 'good.json')!r}, 'w').write('1'); print('done')"], 60),
        Step("hanging", [python, "-c", "import time; print('begun', flush=True); time.sleep(60)"], 2),
        Step("failing", [python, "-c", "raise SystemExit(3)"], 60),
    ]
    ended = run(steps, tmp_path, Reporter(quiet=True))
    assert [(one.name, one.outcome, one.exit_code) for one in ended] == [
        ("good", "passed", 0),
        ("hanging", "timed out", None),
        ("failing", "failed", 3),
    ]
    with tarfile.open(tmp_path / "results.tgz") as archive:
        names = archive.getnames()
        log = archive.extractfile("hanging.log")
        assert log is not None
        assert log.read() == b"begun\n"
    assert sorted(names) == ["failing.log", "good.json", "good.log", "hanging.log", "summary.json"]
    assert [one["outcome"] for one in json.loads((tmp_path / "summary.json").read_text())["steps"]] == [
        "passed", "timed out", "failed",
    ]  # fmt: skip


def test_unknown_steps_are_refused(tmp_path: Path) -> None:
    """With those that there are."""
    with pytest.raises(UserError, match=r"--only takes smoke, tests, throughput, .*; found nothing"):
        steps_of(tmp_path, "cpu", [], only="nothing")


@pytest.mark.slow
def test_every_step_of_the_gpu_run_passes_on_a_cpu(tmp_path: Path, images: Path) -> None:
    """Smoke test, GPU tests (which skip themselves) and all benches; each bench has saved a result with rows."""
    more = ["--quick", f"--data={images}", "--batch-size=4", "--num-batches=4"]
    ended = run(steps_of(tmp_path, "cpu", more), tmp_path, Reporter())
    assert {one.name: one.outcome for one in ended} == dict.fromkeys([one.name for one in ended], "passed")
    assert [one.name for one in ended][:3] == ["smoke", "tests", "throughput"]
    for name in [one.name for one in ended][2:]:
        content = json.loads((tmp_path / f"{name}.json").read_text())
        assert content["bench"] == name
        assert content["results"] or content["differences"]
