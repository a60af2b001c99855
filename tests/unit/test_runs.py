import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dali_fixres.config import TrainConfig, read_toml
from dali_fixres.errors import CheckpointError, ConfigError, SaveError
from dali_fixres.runtime.run_folder import RunFolder, create_run, newest_run, open_run, reopen_run, run_to_resume
from pipelines.storage.files import write_json, write_text

Make = Callable[..., RunFolder]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of the test's own, where runs/ will be."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make() -> Iterator[Make]:
    """Return `create_run`, whose locks are released after the test."""
    runs: list[RunFolder] = []

    def create(out: Path | None, command: str = "train", config: dict[str, Any] | None = None) -> RunFolder:
        runs.append(create_run(out, command, config or {}))
        return runs[-1]

    yield create
    for run in runs:
        run.release()


def _finished(name: str, command: str, written_ns: int) -> Path:
    """Make a run that has ended, whose checkpoint was written at a given time."""
    run = create_run(Path("runs") / name, command, {})
    run.release()
    run.last.touch()
    os.utime(run.last, ns=(written_ns, written_ns))
    return run.path


def test_a_new_run_holds_its_settings(workplace: Path, make: Make) -> None:
    """A run folder begins with the settings, in the form that --config reads."""
    stored = TrainConfig(train_res="96").stored()
    run = make(workplace / "a/b", "train", stored)
    assert (workplace / "a/b/config.toml").read_text().startswith("# dali-fixres train --config config.toml\n")
    assert read_toml(run.config, set(stored)) == stored
    assert open_run(workplace / "a/b").path == run.path


def test_names_of_new_runs_differ(make: Make) -> None:
    """Runs begun in the same second get folders of their own under runs/, named by time and command."""
    paths = [make(None, "finetune").path for _ in range(5)]
    assert len(set(paths)) == 5
    for path in paths:
        assert path.parent == Path("runs")
        assert path.name.endswith("-finetune")


def test_a_run_is_not_overwritten(workplace: Path, make: Make) -> None:
    """A folder that holds a run with a checkpoint is refused, with the two ways out, and left as it is."""
    run = make(workplace / "one", "train", {"epochs": 3})
    run.last.touch()
    run.record("epoch", epoch=1)
    run.release()
    with pytest.raises(ConfigError, match=rf"^{workplace}/one already holds a run; give another --out, or --resume"):
        create_run(workplace / "one", "train", {"epochs": 4})
    assert "epochs = 3" in run.config.read_text()
    assert [record["event"] for record in run.records()] == ["epoch"]


def test_a_run_without_a_checkpoint_is_replaced(workplace: Path, make: Make) -> None:
    """A folder whose run ended before its first checkpoint gets new settings and records."""
    begun = make(workplace / "one", "train", {"epochs": 3})
    begun.record("evaluation", epoch=0)
    begun.release()
    run = make(workplace / "one", "finetune", {"epochs": 4})
    assert run.config.read_text() == "# dali-fixres finetune --config config.toml\nepochs = 4\n"
    assert run.records() == []


def test_a_folder_with_other_files_may_hold_a_run(workplace: Path, make: Make) -> None:
    """A folder with other files can be used for a run."""
    (workplace / "one").mkdir()
    (workplace / "one/notes.txt").touch()
    assert make(workplace / "one").config.exists()


def test_a_run_where_none_can_be_made(workplace: Path) -> None:
    """A path that is a file is refused with the system's reason."""
    (workplace / "one").touch()
    with pytest.raises(ConfigError, match=rf"^cannot write the run folder {workplace}/one: File exists; give another"):
        create_run(workplace / "one", "train", {})


def test_settings_that_no_toml_can_hold(workplace: Path) -> None:
    """A data folder whose name is not UTF-8 is a user error that names the run folder."""
    with pytest.raises(ConfigError, match=rf"{workplace}/one"):
        create_run(workplace / "one", "train", {"data": os.fsdecode(b"/data/\xff")})


def test_open_needs_a_run(workplace: Path) -> None:
    """A folder without settings is no run."""
    with pytest.raises(CheckpointError, match=rf"^{workplace} holds no run \(it has no config\.toml\)$"):
        open_run(workplace)


def test_records_are_lines_of_json(workplace: Path, make: Make) -> None:
    """Events are appended one a line, with their time, and read back in order."""
    run = make(workplace / "one")
    assert run.records() == []
    run.record("epoch", loss=0.5, epoch=1)
    run.record("evaluation", top1=61.25)
    lines = (workplace / "one/records.jsonl").read_text().splitlines()
    assert len(lines) == 2
    first, second = run.records()
    assert (first["event"], first["loss"], first["epoch"]) == ("epoch", 0.5, 1)
    assert (second["event"], second["top1"]) == ("evaluation", 61.25)
    assert 1.7e9 < first["time"] <= second["time"]


def test_a_repeated_epoch_counts_once(workplace: Path, make: Make) -> None:
    """Of an epoch that a killed run repeated after --resume, the later record replaces the earlier."""
    run = make(workplace / "one")
    run.record("epoch", epoch=1, loss=3.0)
    run.record("evaluation", epoch=1, test_res=96, top1=10.0)
    run.record("epoch", epoch=2, loss=2.0)
    run.record("epoch", epoch=2, loss=2.5)
    run.record("evaluation", epoch=2, test_res=96, top1=20.0)
    run.record("evaluation", epoch=2, test_res=128, top1=25.0)
    figures = [record.get("loss", record.get("top1")) for record in run.records()]
    assert figures == [3.0, 10.0, 2.5, 20.0, 25.0]


def test_the_newest_run_is_the_one_whose_checkpoint_is(make: Make) -> None:
    """Runs are ordered by when their checkpoint was written, not by name; without a checkpoint they do not count."""
    _finished("b", "train", 3_000_000_000)
    newest = _finished("a", "finetune", 4_000_000_000)
    _finished("c", "train", 2_000_000_000)
    make(Path("runs/d"))
    assert newest_run().path == newest
    assert newest_run("finetune").path == newest
    assert newest_run("train").path == Path("runs/b")


@pytest.mark.parametrize("command", [None, "train"])
def test_no_run_yet(workplace: Path, command: str | None) -> None:
    """Without a run, the error names the folder and the next step."""
    _finished("a", "finetune", 1) if command else None
    what = "train run" if command else "run"
    with pytest.raises(
        CheckpointError, match=rf"^no {what} with a checkpoint under {workplace}/runs; run `dali-fixres"
    ):
        newest_run(command)


# Locks


def _refused_elsewhere(call: str, folder: Path) -> str:
    """Return the error of another process that opens a run folder; an empty string if there is none."""
    code = (
        "import sys; from pathlib import Path; from dali_fixres.errors import ConfigError\n"
        "from dali_fixres.runtime.run_folder import create_run, reopen_run\n"
        f"try: {call}.release()\nexcept ConfigError as error: print(error, end='')"
    )
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


@pytest.mark.parametrize("call", ["create_run(Path(sys.argv[1]), 'train', {})", "reopen_run(Path(sys.argv[1]))"])
def test_another_process_is_refused_a_locked_run(workplace: Path, make: Make, call: str) -> None:
    """A locked run is refused to other processes, new or resumed, until it is released."""
    run = make(workplace / "one")
    message = _refused_elsewhere(call, run.path)
    assert message.startswith(f"{run.path} is being written by process {os.getpid()} on ")
    assert message.endswith("; wait for it, or give another --out")
    run.release()
    assert not _refused_elsewhere(call, run.path)


def test_the_same_process_is_refused_a_locked_run(workplace: Path, make: Make) -> None:
    """A run can be locked once, even within a process."""
    run = make(workplace / "one")
    refusal = rf"^{run.path} is being written by process {os.getpid()} on .*; wait"
    with pytest.raises(ConfigError, match=refusal):
        create_run(run.path, "train", {})
    with pytest.raises(ConfigError, match=refusal):
        reopen_run(run.path)
    run.release()
    reopen_run(run.path).release()


def test_a_refused_run_is_not_locked(workplace: Path, make: Make) -> None:
    """After a refused command the folder is not locked, even while the error is handled."""
    run = make(workplace / "one")
    run.last.touch()
    run.release()
    code = (
        "import sys; from pathlib import Path; from dali_fixres.errors import ConfigError\n"
        "from dali_fixres.runtime.run_folder import create_run, reopen_run\n"
        "try: create_run(Path(sys.argv[1]), 'train', {})\n"
        "except ConfigError: reopen_run(Path(sys.argv[1])).release()"
    )
    command = [sys.executable, "-c", code, str(run.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_locked_run_can_be_read(workplace: Path, make: Make) -> None:
    """Reading a run needs no lock."""
    make(workplace / "one").record("epoch", epoch=1)
    assert [record["epoch"] for record in open_run(workplace / "one").records()] == [1]


def test_the_lock_ends_with_its_process(workplace: Path) -> None:
    """The lock of a process that died is free, whatever it has left in the file."""
    code = (
        "import os, sys; from pathlib import Path; from dali_fixres.runtime.run_folder import create_run\n"
        "run = create_run(Path(sys.argv[1]), 'train', {}); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, "one"], check=False, timeout=120).returncode == 9
    assert (workplace / "one/.lock").read_text().startswith("process ")
    reopen_run(Path("one")).release()


# What a kill leaves


@pytest.mark.parametrize("half", ["{", '{"event": "epoch", "epo', '{"event": "epoch", "epoch": 2}'])
def test_half_a_record_is_skipped(workplace: Path, make: Make, half: str) -> None:
    """A last line without its end does not count: the process was killed while writing it."""
    run = make(workplace / "one")
    run.record("epoch", epoch=1)
    with (workplace / "one/records.jsonl").open("a") as file:
        file.write(half)
    assert [record["epoch"] for record in run.records()] == [1]


@pytest.mark.parametrize("half", ["", "{", '{"event": "epoch", "epo'])
def test_a_reopened_run_loses_half_a_record(workplace: Path, make: Make, half: str) -> None:
    """A resumed run's records begin on a new line, after the complete ones."""
    begun = make(workplace / "one")
    begun.record("epoch", epoch=1)
    begun.release()
    whole = (workplace / "one/records.jsonl").read_text()
    (workplace / "one/records.jsonl").write_text(whole + half)
    run = reopen_run(workplace / "one")
    assert (workplace / "one/records.jsonl").read_text() == whole
    run.record("epoch", epoch=2)
    run.release()
    assert [record["epoch"] for record in run.records()] == [1, 2]


def test_a_reopened_run_may_have_no_record(workplace: Path, make: Make) -> None:
    """A run without records, or with half a record alone, has none after it is reopened."""
    make(workplace / "one").release()
    reopen_run(workplace / "one").release()
    (workplace / "one/records.jsonl").write_text('{"event"')
    run = reopen_run(workplace / "one")
    run.release()
    assert (workplace / "one/records.jsonl").read_text() == ""
    assert run.records() == []


def test_a_run_that_cannot_be_reopened(workplace: Path) -> None:
    """A missing folder is a user error."""
    with pytest.raises(
        ConfigError, match=rf"^cannot write the run folder {workplace}/none: No such file or directory$"
    ):
        reopen_run(workplace / "none")


def test_a_record_that_cannot_be_written(workplace: Path, make: Make) -> None:
    """Records that cannot be appended end the run with the file, the reason and the next step."""
    run = make(workplace / "one")
    (workplace / "one/records.jsonl").mkdir()
    with pytest.raises(SaveError) as caught:
        run.record("epoch")
    assert str(caught.value) == (f"cannot write {workplace}/one/records.jsonl: Is a directory; make room, then resume")


# Which run is resumed


@pytest.mark.usefixtures("workplace")
def test_run_to_resume() -> None:
    """--resume resumes the run in --out, or the newest run of the command."""
    _finished("a", "train", 2_000_000_000)
    _finished("b", "finetune", 3_000_000_000)
    _finished("c", "train", 1_000_000_000)
    assert run_to_resume("train", Path("runs/c")).path == Path("runs/c")
    newest = run_to_resume("train", None)
    assert (newest.path, newest.lock) == (Path("runs/a"), None)


def test_run_to_resume_that_is_not_there(workplace: Path, make: Make) -> None:
    """--resume without a run to resume, or with one that has no checkpoint yet, is an error."""
    with pytest.raises(CheckpointError, match=rf"^{workplace}/none holds no run"):
        run_to_resume("train", workplace / "none")
    with pytest.raises(CheckpointError, match=r"^no train run with a checkpoint under "):
        run_to_resume("train", None)
    make(workplace / "early")
    with pytest.raises(CheckpointError, match=r"early has no checkpoint, .* begin it again without --resume$"):
        run_to_resume("train", workplace / "early")


# Files in one step


def test_write_text_replaces(workplace: Path) -> None:
    """A second text takes the first one's place and leaves no other file; any bytes of names can be written."""
    write_text(workplace / "a.txt", "a much longer text\n")
    write_text(workplace / "a.txt", "ä \udcff\n", errors="surrogateescape")
    assert (workplace / "a.txt").read_bytes() == "ä ".encode() + b"\xff\n"
    assert [path.name for path in workplace.iterdir()] == ["a.txt"]


def test_write_text_keeps_what_it_cannot_replace(workplace: Path) -> None:
    """Where a disk is full, the text before stays whole and no half file is left behind."""
    path = workplace / "a.txt"
    write_text(path, "before\n")
    code = (
        "import resource, sys; from pathlib import Path; from dali_fixres.errors import SaveError\n"
        "from dali_fixres.runtime.run_folder import write_text\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_text(Path(sys.argv[1]), 'after ' * 1000)\nexcept SaveError as error: print(error, end='')"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert (
        done.stdout == f"cannot write {path}: File too large; what was there before is intact; make room and try again"
    )
    assert path.read_text() == "before\n"
    assert [path.name for path in workplace.iterdir()] == ["a.txt"]


def test_write_text_where_it_cannot(workplace: Path) -> None:
    """A folder in the way, and a folder that is not there, are named with the system's reason."""
    with pytest.raises(SaveError, match=rf"^cannot write {workplace}: Is a directory$"):
        write_text(workplace, "text")
    with pytest.raises(SaveError, match=rf"^cannot write {workplace}/none/a.txt: No such file or directory$"):
        write_text(workplace / "none/a.txt", "text")


def test_write_json(workplace: Path) -> None:
    """Figures are written as JSON; where that fails the path and the reason are named."""
    write_json(workplace / "a.json", {"top1": 1.5})
    assert json.loads((workplace / "a.json").read_text()) == {"top1": 1.5}
    write_json(workplace / "deep/er/b.json", {})
    assert (workplace / "deep/er/b.json").exists()
    with pytest.raises(ConfigError, match=rf"^cannot write {workplace}: .*Is a directory"):
        write_json(workplace, {})
