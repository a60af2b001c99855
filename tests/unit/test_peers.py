"""Loaders of others: how many batches a repeat takes, how many workers they get, and what becomes of one that fails."""

import math
import sys
from pathlib import Path

import peers
import pytest
from peer_protocol import repeat_of
from peers import settings_of, started

from dali_fixres.runtime.progress import Reporter
from pipelines.dataset import open_dataset
from pipelines.plan import AUGMENTATIONS, TrainPlan
from pipelines.resolution import Phase, Schedule

BENCH = Path(peers.__file__).parent
SETTINGS = {"files": [["a.jpg", 0]] * 60, "batch_size": 2, "num_batches": 4, "workers": [2, 3], "res": 32}

LOADER = """
import sys, time
sys.path.insert(0, {bench!r})
from peer_protocol import serve

def loader(settings, res):
    print("a library says something")
    class Batches:
        def __iter__(self):
            {trouble}
            for _ in range(len(settings["files"]) // settings["batch_size"]):
                time.sleep(0.001 if settings["workers"] == 3 else 0.01)
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
    """Images come again where there are too few for many workers."""
    monkeypatch.setattr(peers, "usable_cores", lambda: 8)
    monkeypatch.setattr(peers, "loader_threads", lambda: 9)
    dataset = open_dataset(images)
    plan = TrainPlan(dataset, AUGMENTATIONS["train"], Schedule((Phase(0, 32),)), batch_size=4)
    settings = settings_of(plan, num_batches=4, max_side=500, quality=90)
    assert (settings["workers"], settings["res"]) == ((8, 9), 32)
    assert len(settings["files"]) == 4 * repeat_of(9, 4).num_batches > dataset.num_train


def script(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, trouble: str) -> dict[str, Path]:
    """Put a loader of its own behind a peer's name."""
    path = folder / f"{name}.py"
    path.write_text(LOADER.format(bench=str(BENCH), trouble=trouble))
    monkeypatch.setitem(peers.SCRIPTS, name, str(path))
    return {name: Path(sys.executable)}


def test_a_peer_has_the_workers_that_it_is_faster_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are tried before the first repeat, and told."""
    with started(script(tmp_path, monkeypatch, "timm", "pass"), SETTINGS, Reporter(quiet=True)) as (peer,):
        assert peer.about == {"workers": 3}
        assert 0 < peer.measure(32) < 2000
    assert not peer.failed


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("if res == 64: raise OSError('no such image')", "OSError: no such image"),
        ("if res == 64: time.sleep(60)", "no answer within 2 s"),
    ],
    ids=["dies", "hangs"],
)
def test_a_peer_that_fails_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trouble: str, reason: str
) -> None:
    """It says why once; the others go on."""
    both = {**script(tmp_path, monkeypatch, "timm", trouble), **script(tmp_path, monkeypatch, "spdl", "pass")}
    with started(both, SETTINGS, Reporter()) as (failing, sound):
        assert failing.measure(32) > 0
        with monkeypatch.context() as patched:
            patched.setattr(peers, "LIMIT_S", 2.0)
            assert math.isnan(failing.measure(64))
        assert math.isnan(failing.measure(32))
        assert sound.measure(64) > 0
    assert failing.about == {"failed": reason}
    assert capsys.readouterr().err.count(f"timm is left out: {reason}") == 1


def test_a_peer_that_does_not_start_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where its environment lacks it."""
    peer_of = script(tmp_path, monkeypatch, "ffcv", "import a_library_that_is_not_there")
    with started(peer_of, SETTINGS, Reporter(quiet=True)) as (peer,):
        assert math.isnan(peer.measure(32))
    assert peer.about == {"failed": "ModuleNotFoundError: No module named 'a_library_that_is_not_there'"}
