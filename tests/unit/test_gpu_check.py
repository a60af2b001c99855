"""The check of a GPU, as far as it needs none: limits, what is run again, rows that are kept, commands, goals."""

import importlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import groupby, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_damaged
import gpu_parts
import gpu_training
import pytest
import torch
from gpu_check import (
    GRACE_S,
    PARTS,
    SAME,
    TOTAL_S,
    Check,
    allowed_s,
    command_of,
    finished,
    keep_to_one_machine,
    run_limited,
    state_before,
    state_of,
)
from gpu_damaged import CASES, differences, tried_apart
from gpu_evaluation import Answering, answerings, answers_counted, network_to_test
from gpu_goals import judged
from gpu_loader import JUDGED, LOADS, loader_settings
from gpu_parts import MEASURES, PartName, counted
from gpu_rows import Rows, rows_in
from gpu_training import TURNS, Marks, mean_utilisation, noted_blocking, utilisation

from dali_fixres.commands.decoding import Trials
from dali_fixres.errors import UserError
from dali_fixres.index import open_data
from dali_fixres.models import ModelSpec, build_model
from pipelines import Decoding
from pipelines.decoding import CANDIDATES, Attempt

BENCH = Path(gpu_damaged.__file__).parent

SMALL = "timm/mobilenetv3_small_050"


def done(out: Path, name: str, **content: Any) -> None:
    """Write what a part that has been run leaves."""
    (out / f"{name}.json").write_text(json.dumps({"results": [], **content}))


def test_every_way_to_decode_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the product has not tried is tried once more than that; a way that crashes is a row like any other."""
    known = Trials(tuple(Attempt(way, "", 0.1, 9000.0) for way in CANDIDATES), 7)
    monkeypatch.setattr(gpu_parts, "trials_of", lambda *_: known)

    def crash(_: torch.device, way: Decoding) -> tuple[Attempt, str]:
        return Attempt(way, "crashed with SIGSEGV" if way.region else "", 0.1, 5000.0), ""

    monkeypatch.setattr(gpu_parts, "try_way", crash)
    found = gpu_parts.decoding(Check(out=tmp_path), Rows(tmp_path / "decoding.jsonl", time.monotonic() + 60))
    tried = {Decoding(**row["decoding"]): row["flaw"] for row in (*found["results"], *found["others"])}
    asked = product((True, False), (0.0, 0.65, 1.0), (True, False))
    assert tried.keys() == {Decoding(*way) for way in asked}
    assert {way for way, flaw in tried.items() if flaw} == {
        way for way in tried if way.region and (way not in CANDIDATES)
    }
    assert all(row["images_per_s"] is None for row in found["others"]), "they were timed side by side"


def test_limits_fit_eight_minutes() -> None:
    """All parts together may take 480 s, and each has more than the grace before it is killed."""
    assert sum(part.limit_s for part in PARTS.values()) == TOTAL_S == 480
    assert min(part.limit_s for part in PARTS.values()) >= 20 > GRACE_S
    own = {name for name, part in PARTS.items() if part.script == "gpu_parts.py"}
    assert own == MEASURES.keys() == set(PartName.__args__)  # type: ignore[attr-defined]


def test_a_part_is_run_until_it_is_done_and_only_with_what_it_needs(tmp_path: Path) -> None:
    """What is done, not asked for, or lacks data is not run, and the reason is said; what has settings left is."""
    check = Check(out=tmp_path, only="decoding,loader,evaluation")
    assert state_before(check, "decoding") == state_before(check, "loader") == ""
    assert state_before(check, "tests") == "not asked for"
    assert state_before(check, "evaluation") == "left out; give --data and --tested-weights"
    done(tmp_path, "decoding")
    done(tmp_path, "loader", left_out=[{}, {}])
    assert state_before(check, "decoding") == "", "the cache that it fills may be gone"
    assert state_before(check, "loader") == ""
    assert state_of(tmp_path, "loader") == "2 settings left; run the same command again"
    done(tmp_path, "loader", left_out=[])
    assert state_before(check, "loader") == "done before"
    given = Check(out=tmp_path, data=tmp_path, tested_weights=tmp_path / "w.pth")
    assert state_before(given, "evaluation") == ""
    assert state_before(given, "real") == "left out; give --recipe"


def test_a_part_may_take_what_those_after_it_leave(tmp_path: Path) -> None:
    """Limits of parts that are done, left out or before it are to be had; the others' are kept for them."""
    check = Check(out=tmp_path)
    missing = PARTS["evaluation"].limit_s + PARTS["real"].limit_s
    assert allowed_s(check, "pictures", TOTAL_S) == PARTS["pictures"].limit_s + missing
    assert allowed_s(check, "compiling", 100) == 100
    done(tmp_path, "loader")
    more = missing + PARTS["loader"].limit_s
    assert allowed_s(check, "pictures", TOTAL_S) == PARTS["pictures"].limit_s + more
    assert allowed_s(Check(out=tmp_path, only="pictures"), "pictures", TOTAL_S) == TOTAL_S


def test_unknown_parts_are_refused(tmp_path: Path) -> None:
    """A part that is not there is named, with those that are."""
    with pytest.raises(UserError, match="no part is called 'speed'; there are pictures, decoding, tests, "):
        Check(out=tmp_path, only="loader,speed")


def test_figures_of_two_machines_are_kept_apart(tmp_path: Path) -> None:
    """The same GPU and versions may go on, others are refused by what differs."""
    machine: dict[str, Any] = dict.fromkeys(SAME, "1")
    keep_to_one_machine(tmp_path, machine)
    keep_to_one_machine(tmp_path, {**machine, "usable_cores": 16})
    with pytest.raises(UserError, match="are of gpu 1, torch 1; give another --out"):
        keep_to_one_machine(tmp_path, {**machine, "gpu": "2", "torch": "2"})


def test_commands_of_parts(tmp_path: Path) -> None:
    """Our own parts are told all that is given, and when they end; other scripts where their figures go."""
    check = Check(out=tmp_path, data=Path("pets"), quick=True)
    python, script, *words = command_of(check, "loader", 60.0)
    assert (python, script) == (sys.executable, str(BENCH / "gpu_parts.py"))
    ends = words.pop(1)
    assert ends.startswith("--ends=")
    assert float(ends.removeprefix("--ends=")) == pytest.approx(time.monotonic() + 60, abs=5)
    assert words == ["loader", f"--out={tmp_path}", "--data=pets", "--res=192,224,256", "--quick=True"]
    _, script, *words = command_of(check, "finetune", 65.0)
    assert script == str(BENCH / "finetune_cost.py")
    assert {"--device=cuda", "--model=resnet50", "--quick", f"--json={tmp_path}/finetune.json"} < set(words)
    real = Check(out=tmp_path, data=Path("pets"), recipe=Path("r.toml"), weights=Path("w.pth"), quick=True)
    assert command_of(real, "real", 60.0)[1:] == [
        str(BENCH / "methods.py"), "--data=pets", "--recipe=r.toml", "--res=192,224,256", "--weights=w.pth",
        f"--folder={tmp_path}/real", f"--json={tmp_path}/real.json",
    ]  # fmt: skip


def test_our_own_parts_understand_what_they_are_told(tmp_path: Path) -> None:
    """The command line of a part is read as it was written: every flag, by the script itself."""
    check = Check(out=tmp_path, data=tmp_path, tested_weights=Path("w.pth"), tested_model="resnet18", quick=True)
    seen: list[tuple[Any, ...]] = []
    bench = importlib.import_module("gpu_parts")
    bound = bench.app.parse_args(command_of(check, "waits", 60.0)[2:], exit_on_error=False, print_error=False)[1]
    seen.append((bound.args[0], bound.args[1] if len(bound.args) > 1 else bound.kwargs["check"]))
    assert seen == [("waits", check)]


def test_benches_take_the_flags_they_are_given(tmp_path: Path) -> None:
    """The parts that are other benches are called with flags that these know."""
    check = Check(out=tmp_path, data=tmp_path, recipe=tmp_path, weights=tmp_path, quick=True)
    others = {name: part.script for name, part in PARTS.items() if part.script != "gpu_parts.py"}
    assert others.keys() == {"parity", "finetune", "real"}
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
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: torch {torch.__version__}, made for CUDA {torch.version.cuda}, finds no ")
    assert "driver" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@dataclass(frozen=True, slots=True)
class Number:
    """A setting."""

    number: int


def test_rows_are_kept_as_they_come_and_measured_once(tmp_path: Path) -> None:
    """A part that breaks down goes on after its last row; what breaks it down twice is given up, by name."""
    path, later = tmp_path / "part.jsonl", time.monotonic() + 60
    settings = [Number(number) for number in range(4)]
    measured: list[int] = []

    def measure(setting: Number) -> dict[str, Any]:
        measured.append(setting.number)
        if setting.number == 1:
            raise ZeroDivisionError
        return {"square": setting.number**2}

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            Rows(path, later).fill(settings, measure)
        assert rows_in(path) == [{"number": 0, "square": 0}]
    found = Rows(path, later).fill(settings, measure)
    assert measured == [0, 1, 1, 2, 3]
    assert found["left_out"] == []
    assert found["results"][1:] == [
        {"number": 1, "problem": "has ended its process 2 times"},
        {"number": 2, "square": 4}, {"number": 3, "square": 9},
    ]  # fmt: skip
    assert finished(tmp_path) == {}


def test_nothing_is_begun_that_would_not_be_finished(tmp_path: Path) -> None:
    """What the time is too short for is left out, and measured the next time; some settings at once if it may be."""
    path, settings = tmp_path / "tests.jsonl", [Number(number) for number in range(6)]

    def slow(_: Number) -> dict[str, Any]:
        time.sleep(0.1)
        return {}

    found = Rows(path, time.monotonic() + 0.3).fill(settings, slow)
    assert 1 <= len(found["results"]) <= 3
    assert len(found["results"]) + len(found["left_out"]) == 6
    assert finished(tmp_path) == {"tests": {"results": found["results"]}}, "also of a part that was ended"
    with ThreadPoolExecutor(4) as pool:
        found = Rows(path, time.monotonic() + 60).fill(settings, slow, pool.map)
    assert sorted(row["number"] for row in found["results"]) == list(range(6))


def test_the_loader_is_measured_in_order_of_what_matters() -> None:
    """First what goals are stated for, then all shares of safe ways; one loader serves sizes that follow."""
    usual = Decoding(True, 0.65, fancy_upsampling=False)
    settings = loader_settings(usual, [usual, Decoding()], 17, 256)
    first = [(one.what, one.source, one.res) for one in settings[:6]]
    assert first == [
        ("loader", "originals", 128), ("loader", "originals", 224), ("loader", "rungs", 128), ("loader", "rungs", 224),
        ("decode", "originals", 224), ("decode", "rungs", 128),
    ]  # fmt: skip
    assert len(settings) == len(set(settings))
    sweep = {(one.region, one.hw_decoder_load) for one in settings[6:28]}
    assert sweep | {(True, 0.65)} == {(region, load) for region in (True, False) for load in LOADS}
    assert {one.res for one in settings[6:28]} == set(JUDGED)
    assert {one.fancy_upsampling for one in settings if one.region} == {False}
    built = [
        key
        for key, _ in groupby(
            settings[6:-8], lambda one: (one.decoding, one.source, one.threads, one.batch_size, one.prefetch)
        )
    ]
    assert len(built) == len(set(built))


def test_speeds_that_are_compared_take_turns() -> None:
    """Loader and step together and the step alone are measured three times each, one after the other."""
    assert len(TURNS) == len(set(TURNS)) == 12
    assert [turn.stage for turn in TURNS[:4]] == ["train step", "together"] * 2


def test_blocking_is_told_from_feeding() -> None:
    """Only what waits for the pipeline's outputs counts; what they are is passed on."""

    def outputs(stream: str) -> tuple[str, str]:
        time.sleep(0.05)
        return "batch", stream

    pipeline = SimpleNamespace(outputs=outputs)
    blocked = noted_blocking(SimpleNamespace(_pipeline=pipeline))  # type: ignore[arg-type]
    assert pipeline.outputs("stream") == ("batch", "stream")
    assert len(blocked) == 1
    assert 0.05 <= blocked[0] < 1


def test_starving_is_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the end of a step to the beginning of the next, of the time from the first mark to the last."""
    times = iter((0.0, 9.0, 10.0, 19.0, 20.0, 30.0))

    @dataclass
    class Event:
        at: float

        def elapsed_time(self, later: "Event") -> float:
            return later.at - self.at

    monkeypatch.setattr(gpu_training, "_mark", lambda: Event(next(times)))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    marks = Marks()
    batches: list[Any] = ["a", "b", "c"]
    assert list(marks.between(batches)) == batches
    assert marks.starved_share() == pytest.approx(2 / 30)


def test_nvidia_smi_ends_with_what_it_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where that breaks down, which is what is told then."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 97\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError), utilisation():
        raise ZeroDivisionError
    with utilisation() as seen:
        time.sleep(0.5)
    assert seen == ["97"]
    assert time.monotonic() - started < 20


def test_a_case_that_crashes_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one that gives no answer; else the last line is what came of it."""
    answers: list[Any] = [
        subprocess.CompletedProcess([], -11, ""), subprocess.CompletedProcess([], 0, 'log\n{"gpu": "decodes"}\n'),
    ]  # fmt: skip
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answers.pop(0))
    assert len(CASES) == 8
    assert tried_apart(CASES[0], Decoding()) == {"problem": "crashed with SIGSEGV"}
    assert tried_apart(CASES[0], Decoding()) == {"gpu": "decodes"}


def test_pictures_are_compared_one_by_one() -> None:
    """The mean difference of each in grey levels; what is no number is as far off as can be."""
    expected = torch.zeros(3, 3, 2, 2)
    found = expected.clone()
    found[1] += 1
    found[2, 0, 0, 0] = float("nan")
    assert differences(found, expected) == [0.0, 57.375, 255.0]


def test_answers_are_compared_with_the_cpus(tmp_path: Path, pictures: Path) -> None:
    """All of a small data set is answered; the CPU's own answers do not change."""
    torch.save(build_model(ModelSpec(SMALL, 4)).network.state_dict(), tmp_path / "w.pth")
    check = Check(out=tmp_path, data=pictures, tested_weights=tmp_path / "w.pth", tested_model=SMALL)
    found = answers_counted(check, Decoding())(Answering(64, "cpu", "float32"))
    assert (found["num_images"], found["num_changed"]) == (20, 0)
    assert found["top1"] == 100 * found["num_right"] / 20
    assert [(one.device, one.precision) for one in answerings("64,96")] == [
        ("cpu", "float32"), ("cuda", "float32"), ("cuda", "bfloat16"),
    ] * 2  # fmt: skip


def test_weights_of_other_classes_are_not_compared(tmp_path: Path, pictures: Path) -> None:
    """Their new head would answer alike everywhere, and the goal would be reached by accident."""
    torch.save(build_model(ModelSpec(SMALL, 7)).network.state_dict(), tmp_path / "w.pth")
    check = Check(out=tmp_path, data=pictures, tested_weights=tmp_path / "w.pth", tested_model=SMALL)
    with pytest.raises(UserError, match="are not of the 4 classes of"):
        network_to_test(check, open_data(pictures).index)


def test_pytests_report_is_counted() -> None:
    """Failures and errors are failed tests, skipped ones are counted by themselves; no report counts nothing."""
    found = counted(
        '<testsuites><testsuite><testcase name="a" time="1.5"/><testcase name="b" time="0"><failure/></testcase>'
        '<testcase name="c" time="0"><error/></testcase><testcase name="d" time="0"><skipped/></testcase>'
        "</testsuite></testsuites>"
    )
    assert found == {"num_passed": 1, "num_failed": 2, "num_skipped": 1, "failed": ["b", "c"]}
    assert set(map(str, counted(None).values())) == {"0", "[]"}


def test_utilisation_is_the_mean_of_what_is_said() -> None:
    """Numbers count, lines that are none do not; without any there is no figure."""
    assert mean_utilisation(["97", " 100", "[N/A]", "", "88"]) == 0.95
    assert mean_utilisation(["[N/A]"]) is None


def turns(res: int, together: float, alone: float, repeats: int = 3) -> list[dict[str, Any]]:
    """Return rows of the part `training`."""
    return [
        {"repeat": repeat, "res": res, "stage": stage, "images_per_s": speed}
        for repeat in range(repeats)
        for stage, speed in (("together", together), ("train step", alone))
    ]


def answered(right: int, changed: int = 3) -> list[dict[str, Any]]:
    """Return rows of the part `evaluation`, the CPU with 376 right answers of 500."""
    return [
        {
            "res": 224,
            "device": device,
            "precision": precision,
            "num_images": 500,
            "num_right": num,
            "top1": num / 5,
            "num_changed": changed,
        }
        for device, precision, num in (("cpu", "float32", 376), ("cuda", "float32", 376), ("cuda", "bfloat16", right))
    ]


def changes(known: bool, *ratios: float, wrong: int = 0) -> list[dict[str, Any]]:
    """Return rows of the part `switching`, a repeat for each ratio."""
    return [
        {
            "known": known,
            "repeat": repeat,
            "num_wrong": wrong,
            "changes": [{"from": 128, "res": 224, "first_ratio": ratio}],
        }
        for repeat, ratio in enumerate(ratios)
    ]


GOOD: dict[str, Any] = {
    "decoding": {"choice": "whole pictures", "why": "the fastest", "results": [{"flaw": "x"}, {"flaw": ""}]},
    "tests": {
        "results": [
            {"file": "a.py", "num_passed": 8, "num_failed": 0, "num_skipped": 0, "problem": ""},
            {"file": "b.py", "num_passed": 1, "num_failed": 0, "num_skipped": 0, "problem": ""},
        ]
    },
    "damaged": {"results": [{"damage": "a", "differences": [99.0, 1.0]}, {"damage": "b", "differences": None}]},
    "parity": {
        "differences": [
            {"loader": "dali cpu", "against": "dali gpu", "res": 128, "mean": 1.0},
            {"loader": "dali gpu", "against": "pil", "res": 128, "mean": 1.2},
        ]
    },
    "evaluation": {"results": answered(375)},
    "training": {"results": [*turns(128, 7600, 8000), *turns(224, 2999, 3000)]},
    "loader": {
        "results": [
            {"what": "loader", "source": "originals", "res": 224, "images_per_s": 9000.0},
            {"what": "loader", "source": "originals", "res": 224, "images_per_s": 10500.0},
            {"what": "loader", "source": "originals", "res": 224, "problem": "has ended its process 2 times"},
            {"what": "loader", "source": "rungs", "res": 128, "images_per_s": 18000.0},
            {"what": "decode", "source": "rungs", "res": 128, "images_per_s": 20000.0},
        ]
    },
    "switching": {"results": [*changes(True, 1.5, 1.99, 9.0), *changes(False, 5.0)]},
    "waits": {
        "results": [
            {"res": 128, "starved_share": 0.0099, "blocked_share": 0.2},
            {"res": 224, "starved_share": 0.001, "blocked_share": 0.1},
        ]
    },
}


def test_goals_without_figures_are_neither_reached_nor_missed() -> None:
    """Of a check that has found nothing, or too little, every goal is named and left open."""
    goals = judged({})
    assert len(goals) == 11
    assert {(goal.found, goal.passed) for goal in goals} == {("not measured", None)}
    assert judged({"decoding": {"results": [{"flaw": ""}]}}) == goals
    assert judged({"training": {"results": turns(128, 1, 1, repeats=2)}}) == goals
    assert judged({"evaluation": {"results": answered(375)[:2]}}) == goals


def test_goals_that_are_reached() -> None:
    """Each at its bound, with what was found."""
    goals = judged(GOOD)
    assert [goal.passed for goal in goals] == [True] * 11
    assert [goal.found for goal in goals] == [
        "whole pictures: the fastest",
        "9 passed, 0 failed, 0 skipped",
        "1.00 at most in 1 batches of 2 cases",
        "1.00 at 128 px",
        "75.00 and 75.20 % at 224 px, 3 answers changed",
        "0.950 (7600 of 8000 images/s)",
        "1.000 (2999 of 3000 images/s)",
        "10500 images/s, the decoder alone not measured",
        "18000 images/s, the decoder alone 20000",
        "the worst first batch is 1.99 steady ones; 5.00 the first time; 0 batches of a wrong size",
        "0.99% at 128 px (the host blocked for 20.00%), 0.10% at 224 px (the host blocked for 10.00%)",
    ]


@pytest.mark.parametrize(
    ("goal", "bad"),
    [
        (0, {"decoding": {**GOOD["decoding"], "results": [{"flaw": "x"}]}}),
        (1, {"tests": {"results": [{**GOOD["tests"]["results"][0], "num_skipped": 1}]}}),
        (1, {"tests": {"results": [*GOOD["tests"]["results"], {"file": "c.py", "problem": "crashed with SIGSEGV"}]}}),
        (2, {"damaged": {"results": [{"damage": "a", "differences": [0.0, 1.01]}]}}),
        (2, {"damaged": {"results": [{"damage": "a", "problem": "crashed with SIGSEGV"}]}}),
        (3, {"parity": {"differences": [{"loader": "dali cpu", "against": "dali gpu", "res": 128, "mean": 1.01}]}}),
        (4, {"evaluation": {"results": answered(374)}}),
        (5, {"training": {"results": turns(128, 7599, 8000)}}),
        (6, {"training": {"results": turns(224, 1500, 3000)}}),
        (7, {"loader": {"results": [{**GOOD["loader"]["results"][0], "images_per_s": 9999.0}]}}),
        (
            8,
            {
                "loader": {
                    "results": [
                        {**GOOD["loader"]["results"][3], "images_per_s": 17999.0},
                        GOOD["loader"]["results"][4],
                    ]
                }
            },
        ),
        (9, {"switching": {"results": changes(True, 2.0, 2.0, 1.0)}}),
        (9, {"switching": {"results": changes(True, 1.0, wrong=1)}}),
        (10, {"waits": {"results": [{"res": 128, "starved_share": 0.01, "blocked_share": 0.0}]}}),
    ],
)
def test_goals_that_are_missed(goal: int, bad: dict[str, Any]) -> None:
    """Each just beyond its bound; a crash misses it, too."""
    assert judged(bad)[goal].passed is False
