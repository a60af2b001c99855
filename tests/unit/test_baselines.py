"""Baseline loaders: how many batches a repeat takes, how many workers they get, and what happens if one fails."""

import math
import sys
from pathlib import Path

import pytest

from bench.baselines import run
from bench.baselines.protocol import repeat_of
from bench.baselines.run import parse_baselines, settings_of, started
from dali_fixres.runtime import Reporter
from pipelines import AUGMENTATIONS, Schedule, TrainPlan, UserError, open_dataset

SETTINGS = {"files": [["a.jpg", 0]] * 60, "batch_size": 2, "num_batches": 4, "workers": [2, 3], "res": 32}

LOADER = """
import os
import time
from bench.baselines.protocol import serve

def loader(settings, res):
    print("a library prints something")
    os.write(1, b"and so does one in C\\n")
    class Batches:
        def __iter__(self):
            {trouble}
            for _ in range(len(settings["files"]) // settings["batch_size"]):
                end = time.process_time() + (0.001 if settings["workers"] == 3 else 0.01)
                while time.process_time() < end:
                    pass
                yield None
    return Batches()

serve(loader, ())
"""


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 64])
def test_a_repeat_is_longer_than_what_workers_make_ahead(workers: int) -> None:
    """What is ready when the clock starts has been taken before, and whole waves are timed."""
    repeat = repeat_of(workers, 16)
    assert repeat.ahead >= 2 * workers
    assert 16 <= repeat.timed < 16 + workers
    assert repeat.timed % workers == 0
    assert repeat.num_batches == repeat.timed + 2 * repeat.ahead


def test_files_last_for_a_repeat_of_any_number_of_workers(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are repeated where there are too few for many workers."""
    monkeypatch.setattr(run, "usable_cores", lambda: 8)
    monkeypatch.setattr(run, "loader_threads", lambda: 9)
    dataset = open_dataset(images)
    plan = TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse("32"), batch_size=4)
    settings = settings_of(plan, num_batches=4)
    assert (settings["workers"], settings["res"]) == ((8, 9), 32)
    assert len(settings["files"]) == 4 * repeat_of(9, 4).num_batches > dataset.num_train


def test_names_are_checked() -> None:
    """Each may name the Python of its environment; none at all is no baseline."""
    assert parse_baselines("timm=env/bin/python,spdl") == {"timm": Path("env/bin/python"), "spdl": Path(sys.executable)}
    assert parse_baselines("") == {}
    with pytest.raises(UserError, match=r"--baselines takes torchvision, .*; found 'tim'"):
        parse_baselines("torchvision,tim")


def loader(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, trouble: str) -> dict[str, Path]:
    """Put a module of a test behind a baseline's name."""
    (folder / f"some_{name}.py").write_text(LOADER.format(trouble=trouble))
    monkeypatch.setitem(run.MODULES, name, f"some_{name}")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return {name: Path(sys.executable)}


def test_a_baseline_has_the_fastest_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are tried before the first repeat, and reported. A batch of two images takes 1 ms of CPU time then."""
    with started(loader(tmp_path, monkeypatch, "timm", "pass"), SETTINGS, Reporter(quiet=True)) as (baseline,):
        assert baseline.about == {"workers": 3}
        images_per_s, core_ms = baseline.measure(32)
        assert 0 < images_per_s < 2000
        assert 0.5 <= core_ms < 5
    assert not baseline.failed


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("if res == 64: raise OSError('no such image')", "OSError: no such image"),
        ("if res == 64: time.sleep(60)", "no answer within 1 s"),
    ],
    ids=["dies", "hangs"],
)
def test_a_baseline_that_fails_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trouble: str, reason: str
) -> None:
    """The reason is given once, and the others are measured."""
    both = {**loader(tmp_path, monkeypatch, "timm", trouble), **loader(tmp_path, monkeypatch, "spdl", "pass")}
    with started(both, SETTINGS, Reporter()) as (failing, sound):
        assert failing.measure(32).images_per_s > 0
        with monkeypatch.context() as patched:
            patched.setattr(run, "LIMIT_S", 1.0)
            assert all(map(math.isnan, failing.measure(64)))
        assert all(map(math.isnan, failing.measure(32)))
        assert sound.measure(64).images_per_s > 0
    assert failing.about == {"failed": reason}
    assert capsys.readouterr().err.count(f"timm is left out: {reason}") == 1
