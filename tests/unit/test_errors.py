import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

import pipelines
from dali_fixres import errors
from dali_fixres.config import PrepareConfig, TrainConfig
from dali_fixres.config.rules import PARAMETERS, flag_of, with_flags
from dali_fixres.errors import DataError, Interrupted, RunError, UnreadableError, UserError, did_you_mean


@pytest.mark.parametrize("name", ["ConfigError", "DataError", "ModelError", "CheckpointError", "DeviceError"])
def test_what_the_user_can_correct(name: str) -> None:
    """These errors are the user's, so the command line exits with 2 and shows no traceback."""
    assert issubclass(getattr(errors, name), UserError)


@pytest.mark.parametrize("name", ["TrainingDivergedError", "SaveError", "ProcessFailedError"])
def test_what_ends_a_run(name: str) -> None:
    """These errors are not the user's: the command line exits with 1."""
    assert issubclass(getattr(errors, name), RunError)
    assert not issubclass(RunError, UserError)


def test_an_interruption_is_neither() -> None:
    """A run that was asked to stop has not failed."""
    assert not issubclass(Interrupted, UserError | RunError)


def test_unreadable_images_are_named() -> None:
    """The first image is named with what is wrong with it, others are counted, and all are kept by row."""
    one = {7: (Path("/data/a.jpg"), "empty file")}
    error = UnreadableError(one)
    assert str(error) == "cannot decode /data/a.jpg: empty file; repair or remove it and run again"
    both = UnreadableError(one | {3: (Path("/data/b.jpg"), "cut")})
    assert str(both) == "cannot decode /data/a.jpg: empty file (and 1 more); repair or remove it and run again"
    assert both.images == {7: (Path("/data/a.jpg"), "empty file"), 3: (Path("/data/b.jpg"), "cut")}
    assert isinstance(error, DataError)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("`batch_size` must be at least 1; found 0", "--batch-size must be at least 1; found 0"),
        ("no split; give `val_fraction=0.1`", "no split; give --val-fraction 0.1"),
        ("no multiple of `repeats=9`; `batch_size=6` is", "no multiple of --aug-repeats 9; --batch-size 6 is"),
        ("copy them too, without `max_side=None`", "copy them too, without --no-full"),
        ("`max_side` and `train` are not among them", "`max_side` and `train` are not among them"),
        ("/data/batch_size/val_fraction=0.1 is empty", "/data/batch_size/val_fraction=0.1 is empty"),
    ],
)
def test_the_command_line_shows_flags_for_parameters(message: str, shown: str) -> None:
    """Parameters that a message of `pipelines` names become flags; paths and other words stay."""
    assert with_flags(message) == shown


def test_messages_of_the_library_name_parameters() -> None:
    """Each has a flag that a command takes, and no message names a flag itself."""
    trees = [ast.parse(path.read_text()) for path in Path(pipelines.__file__).parent.rglob("*.py")]
    raised = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    texts = [str(part.value) for node in raised for part in ast.walk(node) if isinstance(part, ast.Constant)]
    named = {name for text in texts for name in re.findall(r"`(\w+)", text)}
    assert named == {parameter.partition("=")[0] for parameter in PARAMETERS}
    assert not [text for text in texts if re.search(r"(^|\W)--\w", text)]
    settings = [field.name for config in (TrainConfig, PrepareConfig) for field in fields(config)]
    assert {*PARAMETERS.values()} <= {flag_of(name, value) for name in settings for value in (None, False)}


@pytest.mark.parametrize(
    ("word", "hint"),
    [("resnet5O", "; did you mean 'resnet50'?"), ("xyz", ""), ("resnet50", "; did you mean 'resnet50'?"), ("", "")],
)
def test_did_you_mean(word: str, hint: str) -> None:
    """The nearest known word is suggested, or nothing if none is near."""
    assert did_you_mean(word, ["vgg16", "resnet50", "resnet101"]) == hint
    assert did_you_mean(word, []) == ""
