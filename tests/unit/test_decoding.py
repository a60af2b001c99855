"""How a GPU is to decode: the choice from trials, what is kept of them, and processes that crash or hang."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dali_fixres.commands.decoding import Trials, decoding_for, kept_trials, tried
from dali_fixres.commands.doctor import decoding_rows
from dali_fixres.distributed import World
from dali_fixres.report.progress import Reporter
from pipelines.decoding import CANDIDATES, WHOLE, Attempt, Decoding, choose, fallback, hardware_engines

REGION = Decoding(region=True, hw_decoder_load=1.0)
MACHINE = {"gpu": "NVIDIA H200", "driver": "560.35.03"}
GOOD = Trials((Attempt(WHOLE, "", 0.3, 9000.0), Attempt(REGION, "crashed with SIGSEGV")), 7)


def test_the_usual_way_is_whole_pictures_as_on_the_cpu() -> None:
    """Without a trial, pictures are decoded whole with the CPU's upsampling, and no candidate does without that."""
    assert Decoding(region=False, hw_decoder_load=0.65, fancy_upsampling=True) == WHOLE
    assert [(way.region, way.hw_decoder_load) for way in CANDIDATES] == [
        (False, 0.65), (False, 0.0), (False, 1.0), (True, 0.65), (True, 0.0), (True, 1.0),
    ]  # fmt: skip
    assert all(way.fancy_upsampling for way in CANDIDATES)


def test_the_fastest_safe_way_is_chosen() -> None:
    """Neither the fastest, which crashes, nor the next, whose pixels are wrong, but the fastest of the others."""
    attempts = [
        Attempt(WHOLE, "", 0.4, 7000.0),
        Attempt(Decoding(hw_decoder_load=1.0), "", 0.4, 9000.0),
        Attempt(Decoding(region=True), "", 17.25, 12000.0),
        Attempt(REGION, "crashed with SIGSEGV"),
    ]
    choice = choose(attempts)
    assert choice.decoding == Decoding(hw_decoder_load=1.0)
    assert choice.why == (
        "the fastest of 2 safe ways of 4, 9000 images/s in its trial (the window's surroundings, 65% on hardware "
        "engines: wrong pixels: a picture differs from the CPU's by 17.25 of 255 on average; the window's "
        "surroundings, 100% on hardware engines: crashed with SIGSEGV)"
    )
    assert choose([Attempt(REGION, "", 0.9, 2.0), Attempt(WHOLE, "", 0.9, 1.0)]).decoding == REGION


def test_without_a_safe_way_the_usual_one_is_taken_and_that_is_said() -> None:
    """If every trial has failed, pictures are decoded whole, and the reasons are given."""
    choice = choose([Attempt(REGION, "no answer within 60 s"), Attempt(WHOLE, "", float("nan"), 5.0)])
    assert choice.decoding == WHOLE
    assert choice.why.startswith("none of 2 ways has passed its trial, so the usual one (")
    assert "no answer within 60 s" in choice.why
    assert "nan of 255" in choice.why


def test_pixels_may_differ_by_one() -> None:
    """A picture may differ from the CPU's by 1 of 255 on average, and no more."""
    assert Attempt(WHOLE, "", 1.0, 1.0).flaw == ""
    assert Attempt(WHOLE, "", 1.01, 1.0).flaw.startswith("wrong pixels")


def test_hardware_engines_are_read_from_the_log() -> None:
    """NvImageCodec's line names their number, or says that there are none; other text tells nothing."""
    line = "[INFO] [nvjpeg_hw_decoder] HW decoder available num_hw_engines=7 num_cores_per_hw_engine=1"
    assert hardware_engines(f"something before\n{line}\n{line}\n") == 7
    assert hardware_engines("[INFO] HW decoder not supported by this platform. Skip.") == 0
    assert hardware_engines("") is None


def test_an_older_dali_is_named_only_where_it_might_help() -> None:
    """It is a fallback for failed regions alone, and nobody says that it has been tried."""
    assert fallback([Attempt(WHOLE, "crashed with SIGSEGV"), Attempt(REGION, "", 0.2, 1.0)]).startswith("none needed")
    said = fallback(GOOD.attempts)
    assert "1 trials of decoding regions have failed; nvidia-dali-cuda120 2.2" in said
    assert "untried" in said


def test_doctor_says_choice_reason_engines_and_fallback() -> None:
    """The rows of a GPU's decoding."""
    rows = decoding_rows(GOOD)
    assert rows["decoding on the GPU"] == "whole pictures, 65% on hardware engines"
    assert rows["because"].startswith("the fastest of 1 safe ways of 2, 9000 images/s")
    assert rows["hardware JPEG engines"] == "7"
    assert "2.2" in rows["fallback"]
    assert decoding_rows(Trials((), None))["hardware JPEG engines"] == "the decoder has not told"


def test_trials_are_made_once_for_each_machine(own_cache: Path) -> None:
    """What they have shown is kept by GPU and versions, and made again for another driver or a damaged file."""
    asked: list[int] = []

    def try_all() -> Trials:
        asked.append(1)
        return GOOD

    assert kept_trials(MACHINE, try_all) == kept_trials(dict(reversed(MACHINE.items())), try_all) == GOOD
    assert len(asked) == 1
    kept_trials({**MACHINE, "driver": "570.1"}, try_all)
    assert len(asked) == 2
    files = sorted((own_cache / "decoding").iterdir())
    assert len(files) == 2
    kept = [json.loads(file.read_text()) for file in files]
    assert MACHINE in [content["machine"] for content in kept]
    for file in files:
        file.write_text('{"attempts": [{"speed": 1}], "hardware_engines": 7}')
    assert kept_trials(MACHINE, try_all) == GOOD
    assert len(asked) == 3


def test_a_cpu_needs_no_trial(own_cache: Path) -> None:
    """On a CPU nothing is tried and nothing kept."""
    assert decoding_for(torch.device("cpu"), World(), Reporter(quiet=True)) == WHOLE
    assert not own_cache.joinpath("decoding").exists()


def test_failure_all_along_is_not_kept(own_cache: Path) -> None:
    """Where nothing has worked, for instance on a GPU that is full, the next start tries again."""
    broken = Trials((Attempt(WHOLE, "failed: out of memory"),), None)
    assert kept_trials(MACHINE, lambda: broken) == broken
    assert not (own_cache / "decoding").exists()
    assert kept_trials(MACHINE, lambda: GOOD) == GOOD


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
        ("import os; os.abort()", "crashed with SIGABRT"),
        ("import sys; sys.exit('first\\nnvImageCodec error #8')", "failed: nvImageCodec error #8"),
        ("raise SystemExit(3)", "failed: exit code 3"),
        ("print('only a log')", "failed: it has printed no result"),
    ],
)
def test_a_trial_that_goes_wrong_is_a_result(program: str, problem: str) -> None:
    """A crash, an error and silence each become a problem in words."""
    attempt, _ = tried(REGION, [sys.executable, "-c", program], 30)
    assert attempt == Attempt(REGION, problem)


def test_a_trial_that_hangs_is_ended() -> None:
    """After its time limit a trial is killed, and that is its result."""
    attempt, log = tried(WHOLE, [sys.executable, "-c", "import time; time.sleep(60)"], 0.5)
    assert (attempt.problem, log) == ("no answer within 0.5 s", "")


def test_a_trial_that_works_is_read_among_its_log() -> None:
    """The result is the last line of JSON; the log, which nvImageCodec is asked to write, is given back as well."""
    result: dict[str, Any] = {"difference": 0.25, "images_per_s": 1234.5}
    program = f"import os; print({json.dumps(result)!r}); print('level', os.environ['DALI_NVIMGCODEC_LOG_LEVEL'])"
    attempt, log = tried(WHOLE, [sys.executable, "-c", program], 30)
    assert attempt == Attempt(WHOLE, "", 0.25, 1234.5)
    assert "level 4" in log
