"""The check of a GPU, as far as it needs none: time limits, what is run again, commands, goals from rows."""

import importlib
import os
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import gpu_check
import pytest
from gpu_check import PARTS, TOTAL_S, Check, command_of, finished, run_limited, state_before
from gpu_goals import judged
from gpu_loader import grid
from gpu_parts import counted
from gpu_training import mean_utilisation

from dali_fixres.errors import UserError

BENCH = Path(gpu_check.__file__).parent


def test_limits_fit_eight_minutes() -> None:
    """All parts together may take 480 s, and each has more than the grace before it is killed."""
    assert sum(part.limit_s for part in PARTS.values()) == TOTAL_S == 480
    assert min(part.limit_s for part in PARTS.values()) >= 20
    assert [name for name, part in PARTS.items() if part.takes_rest] == ["real"]


def test_a_part_is_run_once_and_only_with_what_it_needs(tmp_path: Path) -> None:
    """What is done, not asked for, lacks data or no longer fits the time is not run, and the reason is said."""
    check = Check(out=tmp_path, only="decoding,loader,evaluation")
    assert state_before(check, "decoding", 480) == ""
    assert state_before(check, "loader", 59) == "no time left; run the same command again"
    assert state_before(check, "tests", 480) == "not asked for"
    assert state_before(check, "evaluation", 480) == "left out; give --data and --weights"
    (tmp_path / "decoding.json").write_text('{"results": []}')
    assert state_before(check, "decoding", 480) == "done before"
    assert finished(tmp_path) == {"decoding": {"results": []}}
    given = Check(out=tmp_path, data=tmp_path, weights=tmp_path / "w.pth")
    assert state_before(given, "evaluation", 480) == ""
    assert state_before(given, "real", 480) == "left out; give --recipe"


def test_unknown_parts_are_refused(tmp_path: Path) -> None:
    """A part that is not there is named, with those that are."""
    with pytest.raises(UserError, match="no part is called 'speed'; there are decoding, tests, "):
        Check(out=tmp_path, only="loader,speed")


def test_commands_of_parts(tmp_path: Path) -> None:
    """Each script is told where its figures go; our own parts also what they are called, and for how long."""
    check = Check(out=tmp_path, data=Path("pets"), quick=True)
    python, script, *words = command_of(check, "loader", 60.0)
    assert (python, script) == (sys.executable, str(BENCH / "gpu_parts.py"))
    assert words == [
        "loader", "--seconds=36", "--data=pets", "--model=resnet50", "--res=192,224,256", "--quick",
        f"--json={tmp_path}/loader.json",
    ]  # fmt: skip
    _, script, *words = command_of(check, "training", 65.0)
    assert script == str(BENCH / "throughput.py")
    assert {"--device=cuda", "--model=resnet50", "--quick", f"--json={tmp_path}/training.json"} < set(words)
    real = Check(out=tmp_path, data=Path("pets"), recipe=Path("r.toml"), weights=Path("w.pth"), quick=True)
    assert command_of(real, "real", 60.0)[1:] == [
        str(BENCH / "methods.py"), "--data=pets", "--recipe=r.toml", "--res=192,224,256", "--weights=w.pth",
        f"--folder={tmp_path}/real", f"--json={tmp_path}/real.json",
    ]  # fmt: skip


def test_benches_take_the_flags_they_are_given(tmp_path: Path) -> None:
    """The parts that are other benches are called with flags that these know."""
    check = Check(out=tmp_path, data=tmp_path, recipe=tmp_path, weights=tmp_path, quick=True)
    others = {name: part.script for name, part in PARTS.items() if part.script != "gpu_parts.py"}
    assert others.keys() == {"parity", "switching", "training", "finetune", "real"}
    for name, script in others.items():
        bench = importlib.import_module(script.removesuffix(".py"))
        known = {f"--{field.name.replace('_', '-')}" for field in fields(bench.Bench)}
        assert {word.partition("=")[0] for word in command_of(check, name, 60.0)[2:]} <= known


def test_a_part_that_goes_wrong_is_a_result(tmp_path: Path) -> None:
    """A crash, an exit code and a hang are told apart, and nothing that a hanging part has started is left."""
    python = [sys.executable, "-c"]
    with (tmp_path / "log").open("w") as log:
        assert run_limited([*python, "print('well')"], 30, log.fileno()) == ""
        assert run_limited([*python, "raise SystemExit(3)"], 30, log.fileno()) == "failed with exit code 3"
        crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
        assert run_limited([*python, crash], 30, log.fileno()) == "crashed with SIGSEGV"
        pid = tmp_path / "pid"
        child = f"sleep 60 & echo $! > {pid}; wait"
        assert (
            run_limited(["sh", "-c", child], 1, log.fileno()) == "not finished within 1 s; run the same command again"
        )
    for _ in range(50):
        if not _is_running(int(pid.read_text())):
            break
        time.sleep(0.1)
    assert not _is_running(int(pid.read_text()))
    assert (tmp_path / "log").read_text().startswith("well")


def _is_running(pid: int) -> bool:
    """Say whether a process is there and has not ended yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_without_a_gpu_that_is_said_in_one_line(tmp_path: Path) -> None:
    """On a machine without a GPU the check says so and ends with 2, and writes nothing."""
    command = [sys.executable, str(BENCH / "gpu_check.py"), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("error: torch finds no NVIDIA GPU on this machine, and every part of this check needs one\n")
    assert not (tmp_path / "out").exists()


def test_grid_measures_what_goals_need_first_and_nothing_twice() -> None:
    """Resolutions go upwards, then come the copies and the decoder alone, then one thing at a time."""
    settings = grid(0.65, 17, 256)
    first = [(setting.what, setting.source, setting.res) for setting in settings[:9]]
    assert first[:6] == [("loader", "originals", res) for res in (128, 160, 224, 288, 320, 384)]
    assert first[6:] == [("loader", "rungs", 128), ("decode", "originals", 224), ("decode", "rungs", 128)]
    assert len(settings) == len(set(settings))
    at_224 = [s.hw_decoder_load for s in settings if (s.res, s.source, s.what) == (224, "originals", "loader")]
    assert set(at_224) == {0, 0.5, 0.65, 0.8, 0.9, 1}


def test_pytests_report_is_counted() -> None:
    """Failures and errors are failed tests, skipped ones are counted by themselves."""
    found = counted(
        '<testsuites><testsuite><testcase name="a" time="1.5"/><testcase name="b" time="0"><failure/></testcase>'
        '<testcase name="c" time="0"><error/></testcase><testcase name="d" time="0"><skipped/></testcase>'
        "</testsuite></testsuites>"
    )
    assert (found["num_passed"], found["num_failed"], found["num_skipped"]) == (1, 2, 1)
    assert found["failed"] == ["b", "c"]
    assert found["results"][0] == {"test": "a", "seconds": 1.5}


def test_utilisation_is_the_mean_of_what_is_said() -> None:
    """Numbers count, lines that are none do not; without any there is no figure."""
    assert mean_utilisation(["97", " 100", "[N/A]", "", "88"]) == 0.95
    assert mean_utilisation(["[N/A]"]) is None


def rows(*speeds: tuple[str, int, float]) -> list[dict[str, Any]]:
    """Return rows of `throughput.py`."""
    return [
        {"stage": stage, "loader": "dali-fixres", "res": res, "images_per_s": speed} for stage, res, speed in speeds
    ]


def test_goals_without_figures_are_neither_reached_nor_missed() -> None:
    """Of a check that has found nothing, every goal is named and left open."""
    goals = judged({})
    assert len(goals) == 10
    assert {(goal.found, goal.passed) for goal in goals} == {("not measured", None)}


def test_goals_are_judged_from_rows() -> None:
    """Each goal on both sides of its bound."""
    good: dict[str, Any] = {
        "decoding": {"choice": "whole pictures", "why": "the fastest", "results": [{"flaw": "x"}, {"flaw": ""}]},
        "tests": {"num_passed": 8, "num_failed": 0, "num_skipped": 0},
        "parity": {
            "differences": [
                {"loader": "dali cpu", "against": "dali gpu", "res": 128, "mean": 1.0},
                {"loader": "dali gpu", "against": "pil", "res": 128, "mean": 1.2},
            ]
        },
        "evaluation": {"results": [{"res": 224, "cpu_top1": 75.3, "gpu_top1": 75.4}]},
        "training": {
            "environment": {"usable_cores": 16},
            "results": rows(
                ("train step", 128, 8000), ("together", 128, 7600), ("train step", 224, 3000), ("together", 224, 2999)
            ),
        },
        "loader": {
            "results": [
                {"what": "loader", "source": "originals", "res": 224, "images_per_s": 9000.0},
                {"what": "loader", "source": "originals", "res": 224, "images_per_s": 10500.0},
                {"what": "loader", "source": "rungs", "res": 128, "images_per_s": 18000.0},
                {"what": "decode", "source": "rungs", "res": 128, "images_per_s": 20000.0},
            ]
        },
        "switching": {
            "summary": [
                {"loader": "dali-fixres", "worst_first_ratio": 1.99},
                {"loader": "rebuilt pipeline", "worst_first_ratio": 30.0},
            ]
        },
        "waits": {"results": [{"res": 128, "wait_share": 0.0099}, {"res": 224, "wait_share": 0.001}]},
    }  # fmt: skip
    goals = judged(good)
    assert [goal.passed for goal in goals] == [True] * 10
    assert goals[4].found == "0.950 (7600 of 8000 images/s, 16 cores)"
    assert goals[6].found == "10500 images/s, the decoder alone not measured"
    assert goals[7].found == "18000 images/s, the decoder alone 20000"
    bad: dict[str, Any] = {
        "decoding": {**good["decoding"], "results": [{"flaw": "x"}]},
        "tests": {"num_passed": 7, "num_failed": 0, "num_skipped": 1},
        "parity": {"differences": [{"loader": "dali cpu", "against": "dali gpu", "res": 128, "mean": 1.01}]},
        "evaluation": {"results": [{"res": 224, "cpu_top1": 75.3, "gpu_top1": 75.41}]},
        "training": {
            "environment": {"usable_cores": 16},
            "results": rows(
                ("train step", 128, 8000), ("together", 128, 7599), ("train step", 224, 3000), ("together", 224, 1500)
            ),
        },
        "loader": {
            "results": [
                {"what": "loader", "source": "originals", "res": 224, "images_per_s": 9999.0},
                {"what": "loader", "source": "rungs", "res": 128, "images_per_s": 17999.0},
                {"what": "decode", "source": "rungs", "res": 128, "images_per_s": 20000.0},
            ]
        },
        "switching": {"summary": [{"loader": "dali-fixres", "worst_first_ratio": 2.0}]},
        "waits": {"results": [{"res": 128, "wait_share": 0.01}, {"res": 224, "wait_share": 0.0}]},
    }  # fmt: skip
    assert [goal.passed for goal in judged(bad)] == [False] * 10
