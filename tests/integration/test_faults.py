"""Files that break after they were indexed are named, skipped and listed; and errors that stop a run cleanly."""

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import natural_image
from steps import after_step

from dali_fixres.commands.evaluate import evaluate
from dali_fixres.commands.train import train
from dali_fixres.commands.verify import verify
from dali_fixres.config import EvaluateConfig, TrainConfig, VerifyConfig
from dali_fixres.errors import (
    ConfigError,
    DataError,
    Interrupted,
    SaveError,
    TrainingDivergedError,
    UnreadableError,
)
from dali_fixres.runtime.run_folder import RunFolder


def truncate(path: Path) -> None:
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def forbid(path: Path) -> None:
    """Take the permission to read a file."""
    path.chmod(0)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "truncated"),
    "zero-bytes": (lambda path: path.write_bytes(b""), "empty file"),
    "text": (lambda path: path.write_text("no image at all\n" * 50), "not a JPEG"),
    "random-bytes": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(20_000)), "not a JPEG"),
    "gif": (lambda path: path.write_bytes(b"GIF89a" + bytes(500)), "not a JPEG"),
    "deleted": (lambda path: path.unlink(), "No such file"),
    "permission": (forbid, "Permission denied"),
}
"""How a file breaks, and the reason in the message."""


@pytest.fixture
def data(images: Path, tmp_path: Path) -> Path:
    """Return a copy of the images that may be damaged."""
    return Path(shutil.copytree(images, tmp_path / "data"))


@pytest.fixture
def config(data: Path, tmp_path: Path) -> TrainConfig:
    """Return a training of two epochs of 10 steps."""
    return TrainConfig(
        data=data, model="timm/test_resnet", batch_size=4, train_res="64", epochs=2, lr=0.05, workers=2,
        out=tmp_path / "run",
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of one epoch."""
    run = tmp_path_factory.mktemp("runs") / "run"
    config = TrainConfig(data=images, model="timm/test_resnet", batch_size=8, train_res="64", epochs=1, out=run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DALI_FIXRES_CACHE", str(tmp_path_factory.mktemp("cache")))
        train(config)
    return run


def obeys_permissions(data: Path) -> bool:
    """Return whether permissions apply to this user; they do not to root."""
    locked = data / "locked"
    locked.touch(mode=0)
    try:
        locked.read_bytes()
    except PermissionError:
        return True
    else:
        return False
    finally:
        locked.unlink()


def stop() -> None:
    """Ask this process to stop."""
    signal.raise_signal(signal.SIGTERM)


def records(run: Path, event: str) -> list[dict[str, Any]]:
    """Return a run's records of one kind."""
    return [record for record in RunFolder(run).records() if record["event"] == event]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_continues_without_a_file_that_breaks(config: TrainConfig, data: Path, fault: str) -> None:
    """The file is named with the reason, listed, skipped in training, and reported beside each accuracy."""
    if fault == "permission" and not obeys_permissions(data):
        pytest.skip("this user may read everything, as root does")
    damage, reason = FAULTS[fault]
    victims = [data / "train" / "bee" / "03.jpg", data / "val" / "cat" / "02.jpg"]
    with after_step(1, *(partial(damage, victim) for victim in victims)):
        train(config)
    assert config.out is not None
    listed = (config.out / "unreadable.txt").read_text().splitlines()
    assert sorted(line.partition(": ")[0] for line in listed) == sorted(map(str, victims))
    assert all(reason in line for line in listed)
    assert [record["step"] for record in records(config.out, "epoch")] == [10, 20]
    tests = records(config.out, "evaluation")
    assert [(test["num_images"], test["num_unreadable"]) for test in tests] == [(19, 1), (19, 1)]
    assert len(torch.load(config.out / "last.pt", weights_only=True)["unreadable"]) == 2


def test_strict_stops_at_the_first(config: TrainConfig, data: Path) -> None:
    """With --strict the run ends with the file's name; its checkpoint can be resumed."""
    victim = data / "val" / "cat" / "02.jpg"
    with after_step(1, partial(truncate, victim)), pytest.raises(UnreadableError, match="truncated") as caught:
        train(replace(config, strict=True))
    assert str(victim) in str(caught.value)
    assert config.out is not None
    assert torch.load(config.out / "last.pt", weights_only=True)["step"] == 0


def test_strict_stops_at_what_the_index_leaves_out(config: TrainConfig, data: Path) -> None:
    """With --strict, a file that is no image by its header stops the run before it begins."""
    (data / "train" / "ant" / "03.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"03\.jpg: not a JPEG.*; repair or remove it, or leave --strict out"):
        train(replace(config, strict=True))


def test_accepting_changed_data_keeps_the_list(config: TrainConfig, data: Path) -> None:
    """Unreadable images that have not changed since stay listed; the others are checked again."""
    run = config.out
    assert run is not None
    cut, gone = data / "train" / "dog" / "01.jpg", data / "train" / "cat" / "05.jpg"
    # Truncated before the run, behind the header: the data does not change while it runs.
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 4])
    config = replace(config, epochs=4)
    with after_step(2, gone.unlink), after_step(25, stop), pytest.raises(Interrupted):
        train(config)
    assert len(torch.load(run / "last.pt", weights_only=True)["unreadable"]) == 2
    (data / "val" / "ant" / "00.jpg").unlink()
    train(replace(config, resume=True, accept_changed_data=True))
    assert [line.partition(": ")[0] for line in (run / "unreadable.txt").read_text().splitlines()] == [str(cut)]


def test_a_resumed_run_skips_the_same_files(config: TrainConfig, data: Path, tmp_path: Path) -> None:
    """Stopped after files broke, and resumed, the run ends as without the stop, without --accept-changed-data."""
    backup = Path(shutil.copytree(data, tmp_path / "backup"))
    damages = [partial(FAULTS[fault][0], data / "train" / "dog" / f"0{n}.jpg") for n, fault in enumerate(FAULTS)]
    if not obeys_permissions(data):
        damages.pop()
    config = replace(config, epochs=3)
    with after_step(2, *damages):
        train(config)
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    part = replace(config, out=tmp_path / "part")
    # In the third epoch: by then each of the files has been met.
    with after_step(2, *damages), after_step(23, stop), pytest.raises(Interrupted):
        train(part)
    train(replace(part, resume=True))
    states = [torch.load(run / "last.pt", weights_only=True) for run in (tmp_path / "run", tmp_path / "part")]
    assert len(states[0]["unreadable"]) == len(damages)
    assert states[0]["unreadable"].keys() == states[1]["unreadable"].keys()
    assert all(torch.equal(tensor, states[1]["state_dict"][name]) for name, tensor in states[0]["state_dict"].items())


def test_a_resumed_run_lists_what_was_left_out(config: TrainConfig, data: Path) -> None:
    """A file that was no image from the start stays listed, also where the resumed run goes by its snapshot."""
    run = config.out
    assert run is not None
    left_out, skipped = data / "train" / "ant" / "00.jpg", data / "train" / "dog" / "01.jpg"
    left_out.write_bytes(b"no image")
    skipped.write_bytes(skipped.read_bytes()[: skipped.stat().st_size // 4])
    with after_step(12, stop), pytest.raises(Interrupted):
        train(replace(config, epochs=3))
    skipped.unlink()
    train(replace(config, epochs=3, resume=True))
    assert [line.partition(": ")[0] for line in (run / "unreadable.txt").read_text().splitlines()] == [
        str(left_out),
        str(skipped),
    ]


def test_a_data_set_that_vanishes_stops_the_run(config: TrainConfig, data: Path) -> None:
    """If all files are gone, as after a lost mount, the run stops instead of skipping them one by one."""
    with (
        after_step(3, partial(shutil.rmtree, data), data.mkdir),
        pytest.raises(DataError, match="has become empty; is it still mounted"),
    ):
        train(config)
    assert config.out is not None
    assert not (config.out / "unreadable.txt").exists()


def test_a_folder_without_permission_is_skipped(config: TrainConfig, data: Path) -> None:
    """The images of a class whose folder loses its permission during the run are listed one by one."""
    if not obeys_permissions(data):
        pytest.skip("this user may read everything, as root does")
    folder = data / "val" / "bee"
    try:
        with after_step(1, partial(forbid, folder)):
            train(config)
    finally:
        folder.chmod(0o755)
    assert config.out is not None
    assert [(test["num_images"], test["num_unreadable"]) for test in records(config.out, "evaluation")] == [(15, 5)] * 2
    assert "Permission denied" in (config.out / "unreadable.txt").read_text()


def test_most_of_the_data_gone_stops_the_run(config: TrainConfig, data: Path) -> None:
    """If most of the data is gone, as after a lost mount of a subfolder, the run stops as well."""
    with (
        after_step(3, partial(shutil.rmtree, data / "train"), (data / "train").mkdir),
        pytest.raises(DataError, match=r"of the 60 images of .* cannot be read; is all of it still mounted"),
    ):
        train(replace(config, epochs=9))


def test_a_folder_that_vanishes_is_skipped(config: TrainConfig, data: Path) -> None:
    """The images of a class that can no longer be read are listed one by one."""
    with after_step(1, partial(shutil.rmtree, data / "val" / "ant")):
        train(config)
    assert config.out is not None
    assert [(test["num_images"], test["num_unreadable"]) for test in records(config.out, "evaluation")] == [(15, 5)] * 2
    assert len((config.out / "unreadable.txt").read_text().splitlines()) == 5


def test_evaluate_counts_unreadable_images(trained: Path, data: Path, tmp_path: Path) -> None:
    """Images truncated behind their header are found in testing; the JSON has the number of images tested."""
    for name in ("cat/02.jpg", "dog/04.jpg"):
        truncate(data / "val" / name)
    figures = tmp_path / "sweep.json"
    evaluate(
        EvaluateConfig(
            checkpoint=trained, data=data, test_res="64,96", batch_size=3, json=figures, plot=tmp_path / "p.png"
        )
    )
    content = json.loads(figures.read_text())
    assert [(row["num_images"], row["num_unreadable"]) for row in content["results"]] == [(18, 2), (18, 2)]
    assert [Path(line.partition(": ")[0]).name for line in content["unreadable"]] == ["02.jpg", "04.jpg"]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_a_sweep_counts_the_same_for_every_batch_size(tmp_path: Path, trained: Path, batch_size: int) -> None:
    """An image truncated below its crop box counts as readable, also in a batch with unreadable ones."""
    data = tmp_path / "large"
    for number in range(5):
        folder = data / "val" / ("ant", "bee", "cat", "dog", "dog")[number]
        folder.mkdir(parents=True, exist_ok=True)
        natural_image(np.random.default_rng(number), 512, 512).save(folder / f"{number}.jpg", quality=95)
    for path, share in ((data / "val" / "dog" / "4.jpg", 0.3), (data / "val" / "ant" / "0.jpg", 0.985)):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    figures = tmp_path / "sweep.json"
    evaluate(
        EvaluateConfig(
            checkpoint=trained, data=data, test_res="64,96", batch_size=batch_size, json=figures, plot=tmp_path / "p"
        )
    )
    content = json.loads(figures.read_text())
    assert [(row["num_images"], row["num_unreadable"]) for row in content["results"]] == [(4, 1), (4, 1)]


def test_verify_lists_everything_that_cannot_be_read(data: Path, tmp_path: Path) -> None:
    """Files that are no images and images that are truncated are listed, in a file and as JSON."""
    damages = {f"train/bee/0{number}.jpg": fault for number, fault in enumerate(FAULTS) if fault != "permission"}
    for name, fault in damages.items():
        if fault != "deleted":
            FAULTS[fault][0](data / name)
    truncate(data / "val" / "ant" / "00.jpg")
    expected = sorted([str(data / name) for name, fault in damages.items() if fault != "deleted"])
    expected.append(str(data / "val" / "ant" / "00.jpg"))
    config = VerifyConfig(out=tmp_path / "list.txt", json=tmp_path / "verify.json")
    assert verify(data, config) is True
    listed = (tmp_path / "list.txt").read_text().splitlines()
    assert sorted(line.partition(": ")[0] for line in listed) == expected
    assert sorted(json.loads((tmp_path / "verify.json").read_text())["unreadable"]) == sorted(listed)


def test_verify_finds_nothing_in_good_images(images: Path, tmp_path: Path) -> None:
    """Good data leave no list."""
    assert verify(images, VerifyConfig(out=tmp_path / "list.txt")) is False
    assert not (tmp_path / "list.txt").exists()


def test_a_diverging_run_names_the_step_and_keeps_its_checkpoint(config: TrainConfig) -> None:
    """A learning rate far too high ends the run with the step; what was saved before is finite."""
    wild = replace(config, lr=1e18, checkpoint_every="1steps", epochs=5)
    with pytest.raises(TrainingDivergedError, match=r"not finite (at|by) step [1-9]"):
        train(wild)
    assert config.out is not None
    state = torch.load(config.out / "last.pt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_a_full_disk_leaves_the_checkpoint_before(config: TrainConfig) -> None:
    """If a checkpoint cannot be written, the run ends with an error, and the one before can be resumed."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))

    try:
        with after_step(12, fill_disk), pytest.raises(SaveError, match=r"cannot write .*last\.pt: .*is intact"):
            train(replace(config, checkpoint_every="3steps"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert config.out is not None
    assert sorted(path.name for path in config.out.iterdir() if "partial" in path.name) == []
    assert torch.load(config.out / "last.pt", weights_only=True)["step"] == 10
    train(replace(config, resume=True))
    assert torch.load(config.out / "last.pt", weights_only=True)["step"] == 20


def test_two_runs_cannot_write_one_folder(config: TrainConfig) -> None:
    """A second run is refused while the first runs, with the process that holds the folder."""
    refusals = []

    def second() -> None:
        with pytest.raises(ConfigError) as caught:
            train(replace(config, resume=True))
        refusals.append(str(caught.value))

    with after_step(3, second):
        train(config)
    (refusal,) = refusals
    assert f"{config.out} is being written by process {os.getpid()}" in refusal
