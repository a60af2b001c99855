"""How a GPU is to decode: the choice from trials, what is kept of them, and processes that crash or hang."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dali_fixres.commands.dataset import advice_on_memory
from dali_fixres.commands.decoding import DOUBTFUL_S, NUM_LAST_LINES, Trials, decoding_for, kept_trials, tried
from dali_fixres.commands.doctor import decoding_rows
from dali_fixres.distributed import World
from dali_fixres.report.progress import Reporter
from pipelines.decoding import (
    CANDIDATES,
    NUM_WAYS,
    REGIONS_ON_CPU,
    WHOLE,
    Attempt,
    Decoding,
    choose,
    fallback,
    hardware_engines,
    next_way,
)

REGION = Decoding(region=True, hw_decoder_load=1.0)
MACHINE = {"gpu": "NVIDIA H200", "driver": "560.35.03"}
GOOD = Trials((Attempt(WHOLE, "", 0.3, 9000.0), Attempt(REGION, "crashed with SIGSEGV")), 7)

ON_CPU = (
    "[WARNING] [nvjpeg_cuda_decoder] ROI decode with fancy upsampling may produce wrong results on image edge (1 pixel "
    "wide) with nvJPEG < 13.2 (available in CTK 13.3). To enable anyway, set enable_roi_fancy_upsampling=1"
)
"""What nvImageCodec 0.9 writes for each picture whose region it leaves to the CPU."""


def tried_until_done(speed: dict[Decoding, float]) -> list[Decoding]:
    """Try what is to be tried next for as long as there is something; a way without a speed crashes."""
    attempts: list[Attempt] = []
    while (way := next_way(attempts)) is not None:
        attempts.append(Attempt(way, "", 0.3, speed[way]) if way in speed else Attempt(way, "crashed with SIGSEGV"))
    return [attempt.decoding for attempt in attempts]


def test_the_usual_way_is_whole_pictures_as_on_the_cpu() -> None:
    """Without a trial, pictures are decoded whole; all ways upsample as the CPU does."""
    assert Decoding(region=False, hw_decoder_load=0.65, fancy_upsampling=True) == WHOLE == CANDIDATES[0]
    assert [(way.region, way.hw_decoder_load, way.fancy_upsampling) for way in CANDIDATES] == [
        (False, 0.65, True), (False, 0.0, True), (True, 0.65, True), (True, 0.0, True),
    ]  # fmt: skip


def test_larger_shares_are_tried_for_the_fastest_candidate_alone() -> None:
    """If the fastest uses hardware engines, three more shares follow; otherwise, or if none works, nothing does."""
    best = CANDIDATES[2]
    more = [replace(best, hw_decoder_load=share) for share in (0.8, 0.9, 1.0)]
    assert tried_until_done({WHOLE: 7000.0, best: 9000.0, more[0]: 99000.0}) == [*CANDIDATES, *more]
    assert len(CANDIDATES) + len(more) == NUM_WAYS
    assert tried_until_done({WHOLE: 7000.0, CANDIDATES[1]: 9000.0}) == list(CANDIDATES)
    attempts = [Attempt(way, "", 0.3, 7000.0 if way == best else 1000.0) for way in CANDIDATES]
    assert [next_way(attempts, engines) for engines in (None, 1, 0)] == [more[0], more[0], None]
    assert tried_until_done({}) == list(CANDIDATES)


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
    """It is a fallback for regions that fail, not for those left to the CPU, and nobody says that it has been tried."""
    declined, wrong = Attempt(REGION, REGIONS_ON_CPU), Attempt(REGION, "", 17.0, 1.0)
    assert fallback([Attempt(WHOLE, "crashed with SIGSEGV"), declined, wrong]).startswith("none needed")
    said = fallback(GOOD.attempts)
    assert said.startswith("1 trials of decoding regions have crashed, failed or hung; nvidia-dali-cuda120 2.2")
    assert "untried" in said


def test_doctor_says_choice_reason_engines_and_fallback() -> None:
    """The rows of a GPU's decoding."""
    rows = decoding_rows(GOOD)
    assert rows["decoding on the GPU"] == "whole pictures, 65% on hardware engines"
    assert rows["because"].startswith("the fastest of 1 safe ways of 2, 9000 images/s")
    assert rows["hardware JPEG engines"] == "7"
    assert "2.2" in rows["fallback"]
    assert decoding_rows(Trials((), None))["hardware JPEG engines"] == "the decoder has not told"


class Trying:
    """Trials that crash, or measure what they are given, and are counted."""

    def __init__(self, speed: float = 0.0, stop_after: int | None = None) -> None:
        self.ways: list[Decoding] = []
        self._speed = speed
        self._stop_after = stop_after

    def one(self, way: Decoding) -> tuple[Attempt, str]:
        """Try a way."""
        if len(self.ways) == self._stop_after:
            raise KeyboardInterrupt
        self.ways.append(way)
        return Attempt(way, "" if self._speed else "crashed with SIGSEGV", 0.3, self._speed), "num_hw_engines=7"

    def kept(self, machine: dict[str, str] = MACHINE, *, again: bool = False) -> Trials:
        """Return what is known of a machine, or try."""
        return kept_trials(machine, self.one, Reporter(quiet=True), again=again)


def test_trials_are_made_once_for_each_machine(own_cache: Path) -> None:
    """What they show is kept by GPU and versions; another driver, a damaged file and asking make them anew."""
    trying = Trying(speed=9000.0)
    first = trying.kept()
    assert first.hardware_engines == 7
    assert trying.kept(dict(reversed(MACHINE.items()))) == first
    assert len(trying.ways) == NUM_WAYS
    trying.kept({**MACHINE, "driver": "570.1"})
    assert len(trying.ways) == 2 * NUM_WAYS
    files = sorted((own_cache / "decoding").iterdir())
    assert len(files) == 2
    kept = [json.loads(file.read_text()) for file in files]
    assert MACHINE in [content["machine"] for content in kept]
    assert all(abs(content["tried_at"] - time.time()) < 60 for content in kept)
    for file in files:
        file.write_text('{"attempts": [{"speed": 1}], "hardware_engines": 7, "tried_at": 0}')
    assert trying.kept().attempts == first.attempts
    assert len(trying.ways) == 3 * NUM_WAYS
    trying.kept(again=True)
    assert len(trying.ways) == 4 * NUM_WAYS


@pytest.mark.usefixtures("own_cache")
def test_a_process_that_is_stopped_goes_on_where_it_was() -> None:
    """Each attempt is kept at once, so that of seven only the missing ones follow."""
    with pytest.raises(KeyboardInterrupt):
        Trying(speed=9000.0, stop_after=2).kept()
    rest = Trying(speed=9000.0)
    assert len(rest.kept().attempts) == NUM_WAYS
    assert rest.ways[:2] == list(CANDIDATES[2:])
    assert len(rest.ways) == NUM_WAYS - 2


def test_a_cpu_needs_no_trial(own_cache: Path) -> None:
    """On a CPU nothing is tried and nothing kept."""
    assert decoding_for(torch.device("cpu"), World(), Reporter(quiet=True)) == WHOLE
    assert not own_cache.joinpath("decoding").exists()


def test_failure_all_along_is_believed_for_a_day(own_cache: Path) -> None:
    """Where nothing has worked, for instance on a GPU that is full, that is kept, and tried again a day later."""
    hopeless = Trying().kept()
    assert hopeless.hopeless
    assert hopeless.choice.decoding == WHOLE
    later = Trying(speed=9000.0)
    assert later.kept() == hopeless
    assert later.ways == []
    (file,) = (own_cache / "decoding").iterdir()
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "tried_at": content["tried_at"] - DOUBTFUL_S - 1}))
    assert not later.kept().hopeless
    assert len(later.ways) == NUM_WAYS


def test_a_time_limit_is_believed_for_a_day(own_cache: Path) -> None:
    """A way that was too slow once, perhaps on a busy machine, has another trial a day later; others have none."""
    Trying(speed=9000.0).kept()
    (file,) = (own_cache / "decoding").iterdir()
    content = json.loads(file.read_text())
    late, crashed = content["attempts"][1], content["attempts"][2]
    late |= {"problem": "no answer within 25 s", "timed_out": True}
    crashed |= {"problem": "crashed with SIGSEGV"}
    file.write_text(json.dumps(content))
    same_day = Trying(speed=9000.0)
    same_day.kept()
    assert same_day.ways == []
    file.write_text(json.dumps({**content, "tried_at": content["tried_at"] - DOUBTFUL_S - 1}))
    next_day = Trying(speed=9000.0)
    attempts = {attempt.decoding: attempt for attempt in next_day.kept().attempts}
    assert next_day.ways == [Decoding(**late["decoding"])]
    assert attempts[next_day.ways[0]].flaw == ""
    assert attempts[Decoding(**crashed["decoding"])].flaw == "crashed with SIGSEGV"


DALI_ERROR = """Traceback (most recent call last):
RuntimeError: Critical error in pipeline:
Error in MIXED operator `nvidia.dali.fn.decoders.image`,
which was used in the pipeline definition with the following traceback:

encountered:

Error in thread 0: nvJPEG has no memory
Current pipeline object is no longer valid.
\033[0;32m[INFO] \033[0m[nvimgcodec] Framework is unregistering decoder
"""


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
        ("import os; os.abort()", "crashed with SIGABRT"),
        ("import sys; sys.exit('first\\nnvImageCodec error #8')", "failed: nvImageCodec error #8"),
        (f"import sys; sys.exit({DALI_ERROR!r})", "failed: Error in thread 0: nvJPEG has no memory"),
        ("raise SystemExit(3)", "failed: exit code 3"),
        ("print('only a log')", "failed: it has printed no result"),
    ],
)
def test_a_trial_that_goes_wrong_is_a_result(program: str, problem: str) -> None:
    """A crash, an error and silence each become a problem in words: of DALI's errors, what it names as the cause."""
    attempt, _ = tried(REGION, [sys.executable, "-c", program], 30)
    assert replace(attempt, last_lines=()) == Attempt(REGION, problem)


def test_the_last_lines_of_a_failed_trial_are_kept() -> None:
    """They are without colours, and without what nvImageCodec tells when all is well; a file gives them back."""
    program = f"import sys; print(*range(100), sep='\\n'); sys.exit({DALI_ERROR!r})"
    attempt, _ = tried(REGION, [sys.executable, "-c", program], 30)
    assert len(attempt.last_lines) == NUM_LAST_LINES
    assert attempt.last_lines[-1] == "Current pipeline object is no longer valid."
    assert Attempt.from_json(json.loads(json.dumps(attempt.as_json()))) == attempt


def test_a_trial_that_hangs_is_ended() -> None:
    """After its time limit a trial is killed, and that is its result, with what it has written until then."""
    program = "import time; print('loading', flush=True); time.sleep(60)"
    attempt, log = tried(WHOLE, [sys.executable, "-c", program], 2)
    assert (attempt.problem, attempt.timed_out) == ("no answer within 2 s", True)
    assert attempt.last_lines == tuple(log.split())


def test_a_trial_that_works_is_read_among_its_log() -> None:
    """The result is the last line of JSON; the log is given back as well."""
    result: dict[str, Any] = {"difference": 0.25, "images_per_s": 1234.5}
    program = f"print({json.dumps(result)!r}); print('more')"
    attempt, log = tried(WHOLE, [sys.executable, "-c", program], 30)
    assert attempt == Attempt(WHOLE, "", 0.25, 1234.5)
    assert "more" in log


def test_regions_that_the_gpu_declines_are_a_flaw() -> None:
    """The CPU has decoded: nvImageCodec's warning tells; for whole pictures it is no flaw."""
    result = json.dumps({"difference": 0.25, "images_per_s": 1234.5})
    program = f"import sys; print({result!r}); print({ON_CPU!r}, file=sys.stderr)"
    attempt, _ = tried(REGION, [sys.executable, "-c", program], 30)
    assert attempt.flaw == REGIONS_ON_CPU
    assert attempt.last_lines[-1] == ON_CPU
    attempt, _ = tried(WHOLE, [sys.executable, "-c", program], 30)
    assert attempt.flaw == ""


def test_large_pictures_are_warned_of_before_memory_is_short() -> None:
    """Three batches of 256 whole pictures of 12 megapixels are 25.7 GiB; a batch of 16 needs no warning."""
    heights, widths = np.array([3000, 3000]), np.array([4000, 4000])
    card = 80 * 2**30
    said = advice_on_memory(heights, widths, 256, card)
    assert "3 batches of them take about 25.7 of its 80.0 GiB" in said
    assert "dali-fixres prepare" in said
    assert advice_on_memory(heights, widths, 16, card) == ""
