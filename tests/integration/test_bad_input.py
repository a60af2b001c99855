"""Bad input: one line on standard error that says what, where and the next step, and exit code 2."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

NET = ("--model", "timm/test_resnet")
SMALL = ("--batch-size", "8")


def assert_refused(result: Any, *parts: str) -> None:
    """Fail unless the command ended with 2 and its last line of errors names all of `parts`."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for part in parts:
        assert part in last


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--test-res", "0"), ("from 32 to", "found 0")),
        (("--test-res", "31"), ("from 32 to", "found 31")),
        (("--test-res", "abc"), ("--test-res", "abc")),
        (("--train-res", "128@3"), ("start at epoch 0",)),
        (("--bach-size", "3"), ("--bach-size", "--batch-size")),
        (("--batch-size", "many"), ("--batch-size", "many")),
        (("--epochs", "0"), ("--epochs", "at least 1")),
        (("--checkpoint-every", "10"), ("--checkpoint-every", "10min or 500steps", "'10'")),
        (("--checkpoint-every", "0steps"), ("--checkpoint-every", "above 0")),
        (("--train-res", "96-130@0-4"), ("steps of 32 px", "96-130@0-4")),
        (("--train-res", "96@0:lr=big"), ("lr of a phase", "big")),
        (("--repeats", "0"), ("--repeats", "at least 1")),
        (("--device", "gpu"), ("--device", "cuda")),
    ],
)
def test_flags_are_checked(cli: Any, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    """A flag's bad value names the flag, the rule and what was found; a typo suggests the flag meant."""
    assert_refused(cli("train", *words), *parts)


def test_sweeps_are_checked(cli: Any) -> None:
    """One bad resolution in a sweep is found before anything is loaded."""
    assert_refused(cli("evaluate", "--test-res", "128,abc"), "--test-res", "abc")
    assert_refused(cli("finetune"), "--test-res")


def test_missing_data_is_named(cli: Any, tmp_path: Path) -> None:
    """No such folder, no classes, and no split each say what was expected where."""
    assert_refused(cli("train", "--data", tmp_path / "nowhere"), "no such folder", str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert_refused(cli("train", "--data", tmp_path / "empty"), "no class folders", str(tmp_path / "empty"))


def test_a_tree_without_a_split_is_asked_for_one(cli: Any, images: Path) -> None:
    """Training on one class tree needs --val-fraction."""
    assert_refused(cli("train", *NET, "--data", images / "train"), "--val-fraction")


def test_classes_must_match(cli: Any, images: Path, tmp_path: Path) -> None:
    """A class that only the test images have is named."""
    root = Path(shutil.copytree(images, tmp_path / "data"))
    (root / "val" / "dog").rename(root / "val" / "dgo")
    assert_refused(cli("train", *NET, "--data", root), "dgo", "dog")


def test_a_batch_larger_than_the_data_is_refused(cli: Any, images: Path) -> None:
    """The message gives both numbers."""
    assert_refused(cli("train", *NET, "--data", images, "--batch-size", "41"), "41", "40", "--batch-size")


def test_repeats_must_fit_the_batch(cli: Any, images: Path) -> None:
    """Copies of an image that do not divide the batch are refused with both numbers."""
    assert_refused(
        cli("train", *NET, *SMALL, "--data", images, "--repeats", 3), "--repeats 3", "batch of 8", "--batch-size 9 is"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_synchronised_norms_need_gpus(cli: Any, images: Path, tmp_path: Path) -> None:
    """--sync-bn on a CPU is refused."""
    assert_refused(cli("train", *NET, *SMALL, "--data", images, "--sync-bn", folder=tmp_path), "--sync-bn needs GPUs")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_said(cli: Any, images: Path) -> None:
    """--device cuda without a GPU says what was found."""
    assert_refused(cli("train", *NET, "--data", images, "--device", "cuda"), "0 GPUs", "--device cpu")


def test_an_unwritable_out_is_refused(cli: Any, images: Path, tmp_path: Path) -> None:
    """A run folder that cannot be made is named."""
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "run"
    assert_refused(cli("train", *NET, *SMALL, "--data", images, "--out", out), str(out), "--out")


def test_config_files_are_checked(cli: Any, tmp_path: Path) -> None:
    """A key with a typo, broken TOML, and a missing file each name the file."""
    config = tmp_path / "my.toml"
    config.write_text("bacth_size = 8\n")
    assert_refused(cli("train", "--config", config), str(config), "bacth_size", "batch_size")
    config.write_text("batch_size = \n")
    assert_refused(cli("train", "--config", config), str(config), "TOML")
    assert_refused(cli("train", "--config", tmp_path / "none.toml"), "none.toml", "No such file")
    config.write_text('batch_size = "many"\n')
    assert_refused(cli("train", "--config", config), "many")


def test_checkpoints_are_checked(cli: Any, images: Path, tmp_path: Path) -> None:
    """No run yet, a missing file, text, and another network's weights are told apart."""
    assert_refused(cli("finetune", "--test-res", 128, folder=tmp_path), "dali-fixres train")
    assert_refused(cli("evaluate", "--checkpoint", tmp_path / "none.pt"), "no such file")
    (tmp_path / "text.pt").write_text("no checkpoint")
    assert_refused(cli("evaluate", "--checkpoint", tmp_path / "text.pt"), "text.pt")
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    command = ("evaluate", *NET, "--data", images, "--weights", tmp_path / "other.pth")
    assert_refused(cli(*command), "does not fit", "missing", "--model")


def test_unknown_networks_suggest_a_name(cli: Any, images: Path) -> None:
    """A typo in a network's name gets the nearest one."""
    assert_refused(cli("train", *SMALL, "--data", images, "--model", "resnet55"), "resnet55", "did you mean")
