from pathlib import Path

import pytest

from dali_fixres import errors
from dali_fixres.errors import DataError, Interrupted, RunError, UnreadableError, UserError, did_you_mean


@pytest.mark.parametrize("name", ["ConfigError", "DataError", "ModelError", "CheckpointError", "DeviceError"])
def test_what_the_user_can_mend(name: str) -> None:
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
    assert str(error) == "cannot decode /data/a.jpg: empty file; mend or remove it and run again"
    both = UnreadableError(one | {3: (Path("/data/b.jpg"), "cut")})
    assert str(both) == "cannot decode /data/a.jpg: empty file (and 1 more); mend or remove it and run again"
    assert both.images == {7: (Path("/data/a.jpg"), "empty file"), 3: (Path("/data/b.jpg"), "cut")}
    assert isinstance(error, DataError)


@pytest.mark.parametrize(
    ("word", "hint"),
    [("resnet5O", "; did you mean 'resnet50'?"), ("xyz", ""), ("resnet50", "; did you mean 'resnet50'?"), ("", "")],
)
def test_did_you_mean(word: str, hint: str) -> None:
    """The nearest known word is suggested, or nothing if none is near."""
    assert did_you_mean(word, ["vgg16", "resnet50", "resnet101"]) == hint
    assert did_you_mean(word, []) == ""
