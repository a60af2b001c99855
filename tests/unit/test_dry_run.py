"""What a dry run says of images and number formats; the run itself says the same."""

import re
from pathlib import Path

import pytest

from dali_fixres.cli import app
from dali_fixres.errors import ConfigError


def dry_run(capsys: pytest.CaptureFixture[str], command: str, *words: object) -> str:
    """Return what a dry run says."""
    app(
        [command, "--dry-run", "--batch-size", "2", *map(str, words)], exit_on_error=False, result_action="return_value"
    )
    return capsys.readouterr().err


def sizes_in(output: str) -> str:
    """Return the sizes in the line about images."""
    (line,) = re.findall(r"^images: [^;]*; (.*)$", output, re.MULTILINE)
    return str(line)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "trained at 128 px, tested at 128 px (default)"),
        (("--train-res", "96"), "trained at 96 px (flag), tested at 96 px (default)"),
        (("--test-res", "160"), "trained at 128 px (default), tested at 160 px (flag)"),
    ],
)
def test_sizes_that_nobody_gave_are_defaults(
    images: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], said: str
) -> None:
    """A size is the flag's only where the flag is given."""
    output = dry_run(capsys, "train", "--data", images, "--model", "timm/test_resnet", *flags)
    assert sizes_in(output) == said


def test_a_drawn_filter_is_said(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The network's own images name the filter of tests, and another line that training draws it."""
    words = ("--data", images, "--model", "timm/test_resnet", "--interpolation")
    said = "images in training: random of bilinear and bicubic\n"
    assert said in dry_run(capsys, "train", *words, "random")
    assert "images in training" not in dry_run(capsys, "train", *words, "bicubic")


def test_the_size_to_fix_for_is_said(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fine-tuning says which images the network comes with, and then what it is fixed for."""
    words = ("--data", images, "--model", "timm/test_resnet", "--train-res", 96, "--test-res", 128)
    output = dry_run(capsys, "finetune", *words)
    assert sizes_in(output) == "trained at 96 px, tested at 96 px (flag)"
    assert "\nto be fixed for 128 px\n" in output


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_number_formats_are_those_of_the_run(images: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """They are shown, and what the run would refuse is refused."""
    words = ("--data", images, "--model", "timm/test_resnet", "--device", "cpu", "--test-res", 96)
    assert "\nwould run on cpu; network in fp32, tests in bf16\n" in dry_run(
        capsys, command, *words, "--eval-precision", "bf16"
    )
    for flag in ("--precision", "--eval-precision"):
        with pytest.raises(ConfigError, match=f"^{flag} fp16 needs a GPU"):
            dry_run(capsys, command, *words, flag, "fp16")
