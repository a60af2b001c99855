import pytest

from dali_fixres import errors
from dali_fixres.errors import TrainingDivergedError, UserError, did_you_mean


@pytest.mark.parametrize("name", ["ConfigError", "DataError", "ModelError", "CheckpointError", "DeviceError"])
def test_what_the_user_can_mend(name: str) -> None:
    """These errors are the user's, so the command line exits with 2 and shows no traceback."""
    assert issubclass(getattr(errors, name), UserError)


def test_divergence_is_not_the_users_error() -> None:
    """A loss that is no number ends with 1."""
    assert not issubclass(TrainingDivergedError, UserError)


@pytest.mark.parametrize(
    ("word", "hint"),
    [("resnet5O", "; did you mean 'resnet50'?"), ("xyz", ""), ("resnet50", "; did you mean 'resnet50'?"), ("", "")],
)
def test_did_you_mean(word: str, hint: str) -> None:
    """The nearest known word is suggested, or nothing if none is near."""
    assert did_you_mean(word, ["vgg16", "resnet50", "resnet101"]) == hint
    assert did_you_mean(word, []) == ""
