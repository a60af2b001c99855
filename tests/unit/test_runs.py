import json
import os
from pathlib import Path

import pytest

from dali_fixres.config import TrainConfig, read_toml
from dali_fixres.errors import CheckpointError, ConfigError
from dali_fixres.index import LeftOut
from dali_fixres.runs import create_run, newest_run, open_run, write_json


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of the test's own, where runs/ will be."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _finished(name: str, command: str, written_ns: int) -> Path:
    """Make a run whose checkpoint was written at a given time."""
    run = create_run(Path("runs") / name, command, {})
    run.last.touch()
    os.utime(run.last, ns=(written_ns, written_ns))
    return run.path


def test_a_new_run_holds_its_settings(workplace: Path) -> None:
    """A run folder begins with the settings, in the form that --config reads."""
    stored = TrainConfig(train_res="96").stored()
    run = create_run(workplace / "a/b", "train", stored)
    assert (workplace / "a/b/config.toml").read_text().startswith("# dali-fixres train --config config.toml\n")
    assert read_toml(run.config, set(stored)) == stored
    assert open_run(workplace / "a/b") == run


def test_names_of_new_runs_differ() -> None:
    """Runs begun in the same second get folders of their own under runs/, named by time and command."""
    paths = [create_run(None, "finetune", {}).path for _ in range(5)]
    assert len(set(paths)) == 5
    for path in paths:
        assert path.parent == Path("runs")
        assert path.name.endswith("-finetune")


def test_a_run_is_not_overwritten(workplace: Path) -> None:
    """A folder that holds a run is refused, with the two ways out."""
    create_run(workplace / "one", "train", {})
    with pytest.raises(ConfigError, match=rf"^{workplace}/one already holds a run; give another --out, or --resume"):
        create_run(workplace / "one", "train", {})


def test_a_folder_with_other_files_may_hold_a_run(workplace: Path) -> None:
    """A folder that holds something else than a run is used."""
    (workplace / "one").mkdir()
    (workplace / "one/notes.txt").touch()
    assert create_run(workplace / "one", "train", {}).config.exists()


def test_a_run_where_none_can_be_made(workplace: Path) -> None:
    """A path that is a file is refused with the system's reason."""
    (workplace / "one").touch()
    with pytest.raises(ConfigError, match=rf"^cannot write the run folder {workplace}/one: File exists; give another"):
        create_run(workplace / "one", "train", {})


def test_settings_that_no_toml_can_hold(workplace: Path) -> None:
    """A data folder whose name is no UTF-8 is an error of the user's that names the run folder."""
    with pytest.raises(ConfigError, match=rf"{workplace}/one"):
        create_run(workplace / "one", "train", {"data": os.fsdecode(b"/data/\xff")})


def test_open_needs_a_run(workplace: Path) -> None:
    """A folder without settings is no run."""
    with pytest.raises(CheckpointError, match=rf"^{workplace} holds no run \(it has no config\.toml\)$"):
        open_run(workplace)


def test_records_are_lines_of_json(workplace: Path) -> None:
    """Events are appended one a line, with their time, and read back in order."""
    run = create_run(workplace / "one", "train", {})
    assert run.records() == []
    run.record("epoch", loss=0.5, epoch=1)
    run.record("evaluation", top1=61.25)
    lines = (workplace / "one/records.jsonl").read_text().splitlines()
    assert len(lines) == 2
    first, second = run.records()
    assert (first["event"], first["loss"], first["epoch"]) == ("epoch", 0.5, 1)
    assert (second["event"], second["top1"]) == ("evaluation", 61.25)
    assert 1.7e9 < first["time"] <= second["time"]


def test_an_epoch_that_was_done_again_counts_once(workplace: Path) -> None:
    """Of what a killed run recorded and did again after --resume, the later record counts, in the earlier's place."""
    run = create_run(workplace / "one", "train", {})
    run.record("epoch", epoch=1, loss=3.0)
    run.record("evaluation", epoch=1, test_res=96, top1=10.0)
    run.record("epoch", epoch=2, loss=2.0)
    run.record("epoch", epoch=2, loss=2.5)
    run.record("evaluation", epoch=2, test_res=96, top1=20.0)
    run.record("evaluation", epoch=2, test_res=128, top1=25.0)
    figures = [record.get("loss", record.get("top1")) for record in run.records()]
    assert figures == [3.0, 10.0, 2.5, 20.0, 25.0]


def test_the_newest_run_is_the_one_whose_checkpoint_is() -> None:
    """Runs are ordered by when their checkpoint was written, not by name; without a checkpoint they do not count."""
    _finished("b", "train", 3_000_000_000)
    newest = _finished("a", "finetune", 4_000_000_000)
    _finished("c", "train", 2_000_000_000)
    create_run(Path("runs/d"), "train", {})
    assert newest_run().path == newest
    assert newest_run("finetune").path == newest
    assert newest_run("train").path == Path("runs/b")


@pytest.mark.parametrize("command", [None, "train"])
def test_no_run_yet(workplace: Path, command: str | None) -> None:
    """Without a run the error says where was looked and what to do."""
    _finished("a", "finetune", 1) if command else None
    what = "train run" if command else "run"
    with pytest.raises(
        CheckpointError, match=rf"^no {what} with a checkpoint under {workplace}/runs; run `dali-fixres"
    ):
        newest_run(command)


def test_left_out_files_are_listed(workplace: Path) -> None:
    """Files that are no pictures are listed with their reasons, whatever bytes their names have."""
    run = create_run(workplace / "one", "train", {})
    run.list_left_out([LeftOut(Path("/a/ä.jpg"), "empty file"), LeftOut(Path(os.fsdecode(b"/a/\xff")), "no picture")])
    assert (workplace / "one/left_out.txt").read_bytes() == "/a/ä.jpg: empty file\n/a/".encode() + b"\xff: no picture\n"


def test_write_json(workplace: Path) -> None:
    """Figures are written as JSON; where that fails the path and the reason are named."""
    write_json(workplace / "a.json", {"top1": 1.5})
    assert json.loads((workplace / "a.json").read_text()) == {"top1": 1.5}
    write_json(workplace / "deep/er/b.json", {})
    assert (workplace / "deep/er/b.json").exists()
    with pytest.raises(ConfigError, match=rf"^cannot write {workplace}: Is a directory"):
        write_json(workplace, {})
