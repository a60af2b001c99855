"""What a dry run says of images and number formats; the run itself says the same."""

import re
from pathlib import Path

import pytest

from dali_fixres.cli import app


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
