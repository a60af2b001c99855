"""Bad input: one line on standard error that says what, where and the next step, and exit code 2."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dali_fixres.cli import main

Refuse = Callable[..., str]

NET = ("--model", "timm/test_resnet")
SMALL = ("--batch-size", "8")


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Return a function that runs a command in an empty folder, and returns its one error message."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> str:
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        lines = capsys.readouterr().err.strip().splitlines()
        assert caught.value.code == 2, lines
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
        return lines[-1]

    return run


def assert_names(message: str, *parts: str) -> None:
    """Fail unless a message has all of `parts`."""
    assert [part for part in parts if part not in message] == [], message


def test_a_process_ends_with_the_code(cli: Any) -> None:
    """The program prints the message, no traceback, and ends with 2."""
    result = cli("train", "--epochs", "0")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: --epochs must be at least 1; found 0\n"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--test-res", "0"), ("from 32 to", "found 0")),
        (("--test-res", "31"), ("from 32 to", "found 31")),
        (("--test-res", "abc"), ("--test-res", "abc")),
        (("--train-res", "128@3"), ("start at epoch 0",)),
        (("--bach-size", "3"), ("--bach-size", "--batch-size")),
        (("--batch-size", "many"), ("--batch-size", "whole number", "many")),
        (("--batch-size", "2.5"), ("--batch-size", "whole number", "2.5")),
        (("--epochs", "1.5"), ("--epochs", "whole number", "1.5")),
        (("--epochs", "0"), ("--epochs", "at least 1")),
        (("--seed", "99999999999999999999"), ("--seed", "2^63 - 1")),
        (("--lr", "fast"), ("--lr", "fast")),
        (("--checkpoint-every", "10"), ("--checkpoint-every", "10min or 500steps", "'10'")),
        (("--checkpoint-every", "0steps"), ("--checkpoint-every", "above 0")),
        (("--train-res", "96-130@0-4"), ("steps of 32 px", "96-130@0-4")),
        (("--train-res", "96@0:lr=big"), ("lr of a phase", "big")),
        (("--aug-repeats", "0"), ("--aug-repeats", "at least 1")),
        (("--device", "gpu"), ("--device", "cuda")),
    ],
)
def test_flags_are_checked(refused: Refuse, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    """A flag's bad value names the flag, the rule and what was found; a typo suggests the flag meant."""
    assert_names(refused("train", *words), *parts)


def test_sweeps_are_checked(refused: Refuse) -> None:
    """One bad resolution in a sweep is found before anything is loaded."""
    assert_names(refused("evaluate", "--test-res", "128,abc"), "--test-res", "abc")
    assert_names(refused("finetune"), "--test-res")


def test_flags_must_fit_the_method(refused: Refuse) -> None:
    """A flag that the method has no use for is named."""
    message = refused("finetune", "--test-res", "128", "--method", "frechet", "--epochs", "3", "--no-norm-stats")
    assert_names(message, "--method frechet trains nothing", "--epochs, --no-norm-stats")


def test_missing_data_is_named(refused: Refuse, tmp_path: Path) -> None:
    """No such folder, no classes, and no split each say what was expected where."""
    assert_names(refused("train", "--data", tmp_path / "nowhere"), "no such folder", str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert_names(refused("train", "--data", tmp_path / "empty"), "no class folders", str(tmp_path / "empty"))


def test_a_tree_without_a_split_is_asked_for_one(refused: Refuse, images: Path) -> None:
    """Training on one class tree needs --val-fraction."""
    assert_names(refused("train", *NET, "--data", images / "train"), "--val-fraction")


def test_classes_must_match(refused: Refuse, images: Path, tmp_path: Path) -> None:
    """A class that only the test images have is named."""
    root = Path(shutil.copytree(images, tmp_path / "data"))
    (root / "val" / "dog").rename(root / "val" / "dgo")
    assert_names(refused("train", *NET, "--data", root), "dgo", "dog")


def test_a_batch_larger_than_the_data_is_refused(refused: Refuse, images: Path) -> None:
    """The message gives both numbers."""
    assert_names(refused("train", *NET, "--data", images, "--batch-size", "41"), "41", "40", "--batch-size")


def test_repeats_must_fit_the_batch(refused: Refuse, images: Path) -> None:
    """Copies of an image that do not divide the batch are refused with both numbers."""
    message = refused("train", *NET, *SMALL, "--data", images, "--aug-repeats", 3)
    assert_names(message, "--aug-repeats 3", "batch of 8", "--batch-size 9 is")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_synchronised_norms_need_gpus(refused: Refuse, images: Path) -> None:
    """--sync-bn on a CPU is refused."""
    assert_names(refused("train", *NET, *SMALL, "--data", images, "--sync-bn"), "--sync-bn needs GPUs")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_said(refused: Refuse, images: Path) -> None:
    """--device cuda without a GPU says what was found."""
    assert_names(refused("train", *NET, "--data", images, "--device", "cuda"), "0 GPUs", "--device cpu")


def test_an_unwritable_out_is_refused(refused: Refuse, images: Path, tmp_path: Path) -> None:
    """A run folder that cannot be made is named."""
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "run"
    assert_names(refused("train", *NET, *SMALL, "--data", images, "--out", out), str(out), "--out")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("bacth_size = 8\n", ("my.toml", "bacth_size", "batch_size")),
        ("batch_size = \n", ("my.toml", "TOML")),
        ('batch_size = "many"\n', ("--batch-size", "many")),
        ("batch_size = 2.5\n", ("--batch-size", "whole number", "2.5")),
        ("epochs = true\n", ("--epochs", "whole number")),
    ],
)
def test_config_files_are_checked(refused: Refuse, tmp_path: Path, content: str, parts: tuple[str, ...]) -> None:
    """A key with a typo and broken TOML name the file, bad values the flag."""
    config = tmp_path / "my.toml"
    config.write_text(content)
    assert_names(refused("train", "--config", config), *parts)


def test_missing_config_files_are_named(refused: Refuse, tmp_path: Path) -> None:
    """A file that does not exist is named with the system's reason."""
    assert_names(refused("train", "--config", tmp_path / "none.toml"), "none.toml", "No such file")


def test_checkpoints_are_checked(refused: Refuse, images: Path, tmp_path: Path) -> None:
    """No run yet, a missing file, text, and another network's weights have errors of their own."""
    assert_names(refused("finetune", "--test-res", 128), "dali-fixres train")
    assert_names(refused("evaluate", "--checkpoint", tmp_path / "none.pt"), "no such file")
    (tmp_path / "text.pt").write_text("no checkpoint")
    assert_names(refused("evaluate", "--checkpoint", tmp_path / "text.pt"), "text.pt")
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    message = refused("evaluate", *NET, "--data", images, "--weights", tmp_path / "other.pth")
    assert_names(message, "does not fit", "missing", "--model")


def test_unknown_networks_suggest_a_name(refused: Refuse, images: Path) -> None:
    """A typo in a network's name gets the nearest one."""
    assert_names(refused("train", *SMALL, "--data", images, "--model", "resnet55"), "resnet55", "did you mean")
