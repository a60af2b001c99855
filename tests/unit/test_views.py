import numpy as np
import pytest
from imageless import imageless_dataset

from pipelines.errors import ConfigError
from pipelines.plan import EvalPlan, views_of
from pipelines.plan.crops import corner_crop
from pipelines.plan.views import Setting, Views, parse_views
from pipelines.resolution import Resolution


@pytest.mark.parametrize(
    ("text", "views"),
    [("single", ("single",)), ("ten-crop, single,single", ("single", "ten-crop")), ("flip", ("flip",))],
)
def test_views_are_read(text: str, views: tuple[Views, ...]) -> None:
    """Views are sorted by their number, without repeats."""
    assert parse_views(text) == views


@pytest.mark.parametrize(
    ("text", "found"), [("fliip", "'fliip'; did you mean 'flip'"), ("", "''"), ("single;flip", "'single;")]
)
def test_unknown_views(text: str, found: str) -> None:
    """Other words are refused with the flag and the known names."""
    with pytest.raises(ConfigError, match=rf"^views are single, flip, ten-crop, .*; found {found}"):
        parse_views(text)


def test_settings() -> None:
    """A setting has its number of forward passes, and a name for files."""
    settings = [Setting(Resolution(128, 0.9), views) for views in parse_views("single,flip,ten-crop")]
    assert [setting.num_views for setting in settings] == [1, 2, 10]
    assert [setting.name for setting in settings] == ["128px_0.9_single", "128px_0.9_flip", "128px_0.9_ten-crop"]


def test_corners_in_the_source() -> None:
    """300 x 600 px, resized to 150 x 300, cut at 100 px: corners at 0 and 50, 0 and 200; twice that in the source."""
    sizes, none = (np.array([300]), np.array([600])), np.zeros((1, 0))
    resolution = Resolution(100, crop_ratio=2 / 3)
    corners = [
        corner_crop(*sizes, resolution, none, bottom=bottom, right=right).tolist()[0]
        for bottom in (False, True)
        for right in (False, True)
    ]
    assert corners == [[0, 0, 200, 200], [0, 400, 200, 600], [100, 0, 300, 200], [100, 400, 300, 600]]


def test_views_are_fixed_plans() -> None:
    """Ten-crop is five crop boxes and their mirror images, nothing random; the fifth crop box is the test crop."""
    plan = EvalPlan(imageless_dataset(num_train=5, num_val=3), batch_size=3)
    views = views_of("ten-crop")
    assert not any(view.is_random for view in views)
    (single,) = views_of("single")
    batches = [next(EvalPlan(plan.dataset, 3, augmentation=view).batches(Resolution(96))) for view in views]
    assert [batch.flip.tolist() for batch in batches] == [[False] * 3] * 5 + [[True] * 3] * 5
    assert len({batch.crop_boxes.tobytes() for batch in batches[:5]}) == 5
    for plain, mirrored in zip(batches[:5], batches[5:], strict=True):
        np.testing.assert_array_equal(plain.crop_boxes, mirrored.crop_boxes)
    (crop,) = EvalPlan(plan.dataset, 3, augmentation=single).batches(Resolution(96))
    np.testing.assert_array_equal(batches[4].crop_boxes, crop.crop_boxes)
    assert views_of("flip")[1].flip == 1.0
