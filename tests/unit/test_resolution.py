import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dali_fixres.errors import ConfigError
from pipelines.resolution import MAX_RESOLUTION_PX, MIN_RESOLUTION_PX, Phase, Resolution, Schedule, parse_resolutions


@pytest.mark.parametrize(
    ("crop_px", "resize_px"),
    [(32, 36), (64, 73), (96, 109), (112, 128), (128, 146), (160, 182), (176, 201), (192, 219), (224, 256),
     (256, 292), (288, 329), (320, 365), (384, 438), (448, 512), (480, 548), (4096, 4681)],
)  # fmt: skip
def test_resize_px_literals(crop_px: int, resize_px: int) -> None:
    """The shorter side is resized to int(256/224 * crop), as the authors do."""
    assert Resolution(crop_px).resize_px == resize_px


def test_resize_px_is_the_authors_formula_at_every_size() -> None:
    """No crop side from 32 to 4096 rounds differently from the authors' int((256 / 224) * side)."""
    sides = range(32, 4097)
    assert [Resolution(side).resize_px for side in sides] == [int((256 / 224) * side) for side in sides]


@pytest.mark.parametrize(
    ("crop_px", "crop_ratio", "resize_px"),
    [(224, 1.0, 224), (300, 0.96, 312), (288, 0.95, 303), (224, 0.9, 248), (99, 0.55, 180), (100, 0.5, 200)],
)
def test_resize_px_of_other_ratios(crop_px: int, crop_ratio: float, resize_px: int) -> None:
    """Any crop ratio divides the crop side, and a quotient that is whole but for rounding errors stays whole."""
    assert Resolution(crop_px, crop_ratio).resize_px == resize_px


def test_a_ratio_of_pixel_counts_gives_them_back() -> None:
    """The ratio C / R resizes to R exactly, though C / (C / R) is often just below R in floating point."""
    pairs = [(crop_px, resize_px) for crop_px in range(32, 400, 7) for resize_px in range(crop_px, 500)]
    assert any(int(crop_px / (crop_px / resize_px)) < resize_px for crop_px, resize_px in pairs)
    assert [Resolution(crop_px, crop_px / resize_px).resize_px for crop_px, resize_px in pairs] == [
        resize_px for _, resize_px in pairs
    ]


@settings(derandomize=True, deadline=None)
@given(st.integers(32, 4096), st.floats(0.01, 1.0))
def test_resize_is_never_below_the_crop(crop_px: int, crop_ratio: float) -> None:
    """A crop always fits into the resized image."""
    assert Resolution(crop_px, crop_ratio).resize_px >= crop_px


@pytest.mark.parametrize("crop_px", [32, 4096])
def test_bounds_are_included(crop_px: int) -> None:
    """The smallest and the largest resolution are allowed."""
    assert (MIN_RESOLUTION_PX, MAX_RESOLUTION_PX) == (32, 4096)
    assert Resolution(crop_px).crop_px == crop_px


@pytest.mark.parametrize("crop_px", [31, 0, -224, 4097])
def test_out_of_bounds(crop_px: int) -> None:
    """A resolution out of bounds is refused with the rule and the value."""
    with pytest.raises(ConfigError, match=rf"from 32 to 4096; found {crop_px}$"):
        Resolution(crop_px)


@pytest.mark.parametrize("crop_ratio", [0.0, -0.5, 1.01, float("nan"), float("inf")])
def test_bad_crop_ratio(crop_ratio: float) -> None:
    """A crop ratio that is no share is refused with the rule and the value."""
    with pytest.raises(ConfigError, match=rf"a crop ratio is above 0 and at most 1; found {crop_ratio}$"):
        Resolution(224, crop_ratio)


def test_resolutions_sort_by_side() -> None:
    """Resolutions are values: equal if they say the same, ordered by their side."""
    assert Resolution(128) == Resolution(128, 224 / 256)
    assert sorted([Resolution(320), Resolution(96), Resolution(224)]) == [
        Resolution(96),
        Resolution(224),
        Resolution(320),
    ]


@pytest.mark.parametrize(
    ("text", "phases"),
    [
        ("128", ((0, 128),)),
        (" 128 ", ((0, 128),)),
        ("128@0", ((0, 128),)),
        ("96@0,128@8", ((0, 96), (8, 128))),
        ("96@0, 128@8", ((0, 96), (8, 128))),
        ("96-192@0-16", ((0, 96), (6, 128), (11, 160), (16, 192))),
        ("96-128@0-1", ((0, 96), (1, 128))),
        ("96@0,128-192@4-6,256@9", ((0, 96), (4, 128), (5, 160), (6, 192), (9, 256))),
        ("128:batch=4", ((0, 128),)),
        ("160@0,128@3,224@90", ((0, 160), (3, 128), (90, 224))),
    ],
)
def test_schedule_parses(text: str, phases: tuple[tuple[int, int], ...]) -> None:
    """A schedule is a number of pixels, phases with their first epochs, or progressive resizing by 32 pixels."""
    assert [(phase.first_epoch, phase.crop_px) for phase in Schedule.parse(text).phases] == list(phases)


@pytest.mark.parametrize(
    "text",
    ["", "big", "128.5", "-128", "96@0,128", "96,128@8", "96@0,", "96@", "@3", "96@0;128@8", "96 @0",
     "96-128", "96-128@3", "96-128@0-", "128:", "128:batch", "128:batch=", "128:batch=1.5", "128:batch=-1", "128:lr=",
     "128:seed=1", "batch=4", "128 :batch=4"],
)  # fmt: skip
def test_schedule_refuses_other_forms(text: str) -> None:
    """What is not a schedule is refused with all forms and the text."""
    expected = (
        rf"a schedule is a number of pixels \(128\), phases \(96@0,128@8 .* progressive resizing \(96-192@0-16\), "
        rf".*:batch=N.*; found {re.escape(repr(text))}$"
    )
    with pytest.raises(ConfigError, match=expected):
        Schedule.parse(text)


@pytest.mark.parametrize("text", ["128@3", "96@1, 128@8", "96@0, 128@8, 160@8", "96@0, 128@8, 160@4", "96@0, 128@0"])
def test_schedule_refuses_other_orders(text: str) -> None:
    """Phases that start late or do not go up are refused with the flag, the rule and what was said."""
    expected = rf"the phases of a schedule start at epoch 0 and go up, as in 96@0,128@8; found {re.escape(text)}$"
    with pytest.raises(ConfigError, match=expected):
        Schedule.parse(text)


def test_schedule_without_phases() -> None:
    """A schedule without phases is refused."""
    with pytest.raises(ConfigError, match="start at epoch 0"):
        Schedule(())


@pytest.mark.parametrize("text", ["16", "96@0,5000@8"])
def test_schedule_checks_its_sides(text: str) -> None:
    """Each phase has to be a resolution."""
    with pytest.raises(ConfigError, match=r"from 32 to 4096; found (16|5000)"):
        Schedule.parse(text)


def test_schedule_at_each_epoch() -> None:
    """A phase begins exactly at its epoch and the last one has no end."""
    schedule = Schedule.parse("96@0,128@3,160@5")
    assert [schedule.at(epoch).crop_px for epoch in range(8)] == [96, 96, 96, 128, 128, 160, 160, 160]
    assert schedule.at(10_000).crop_px == 160
    assert schedule.last.crop_px == 160


def test_schedule_keeps_the_crop_ratio() -> None:
    """Every resolution of a schedule has its crop ratio."""
    schedule = Schedule((Phase(0, 96), Phase(2, 128)), crop_ratio=0.5)
    assert [schedule.at(0), schedule.at(2), schedule.last] == [
        Resolution(96, 0.5),
        Resolution(128, 0.5),
        Resolution(128, 0.5),
    ]


def test_phases_have_their_own_batch_and_learning_rate() -> None:
    """Options belong to their own phase, in any order, and to all phases of progressive resizing."""
    assert Schedule.parse("96@0:batch=128:lr=0.2,128@8:lr=1e-3,160@9").phases == (
        Phase(0, 96, batch_size=128, lr=0.2),
        Phase(8, 128, batch_size=None, lr=0.001),
        Phase(9, 160, batch_size=None, lr=None),
    )
    assert Schedule.parse("64-128@0-4:lr=2:batch=8").phases == (
        Phase(0, 64, batch_size=8, lr=2.0),
        Phase(2, 96, batch_size=8, lr=2.0),
        Phase(4, 128, batch_size=8, lr=2.0),
    )


def test_phase_of_each_epoch() -> None:
    """An epoch is in the last phase that has begun."""
    schedule = Schedule.parse("96@0:batch=4,128@3:batch=2")
    assert [schedule.phase(epoch).batch_size for epoch in (0, 2, 3, 4, 99)] == [4, 4, 2, 2, 2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("128:batch=0", "the batch of a phase must be at least 1; found 0"),
        ("128:lr=0", "the lr of a phase must be above 0; found 0.0"),
        ("128:lr=-0.1", "the lr of a phase must be above 0; found -0.1"),
        ("128:lr=nan", "the lr of a phase must be above 0; found nan"),
        ("128:lr=inf", "the lr of a phase must be above 0; found inf"),
        ("96@0,128@8:lr=fast", "the lr of a phase must be a number; found 'fast'"),
    ],
)
def test_schedule_checks_its_options(text: str, reason: str) -> None:
    """An option that nothing can be trained with is refused with the rule and the value."""
    with pytest.raises(ConfigError, match=rf"^{re.escape(reason)}$"):
        Schedule.parse(text)


@pytest.mark.parametrize("text", ["96-100@0-16", "192-96@0-16", "96-96@0-16", "96-192@0-2", "96-192@5-5", "96-192@9-3"])
def test_schedule_refuses_other_progressive_resizing(text: str) -> None:
    """Progressive resizing goes up in whole steps of 32 pixels, and each resolution has an epoch at least."""
    expected = rf"^progressive resizing goes up in steps of 32 px, .*; found {re.escape(repr(text))}$"
    with pytest.raises(ConfigError, match=expected):
        Schedule.parse(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("96-192@1-16", "96@1, 128@6, 160@11, 192@16"),
        ("96-128@0-4,160@4", "96@0, 128@4, 160@4"),
        ("96@0,128-160@0-4", "96@0, 128@0, 160@4"),
    ],
)
def test_progressive_resizing_fits_the_phases_around_it(text: str, found: str) -> None:
    """Progressive resizing that starts late or overlaps another phase is refused with all phases that it stands for."""
    with pytest.raises(ConfigError, match=rf"start at epoch 0 and go up, as in 96@0,128@8; found {found}$"):
        Schedule.parse(text)


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 20), st.integers(0, 40), st.integers(0, 40))
def test_progressive_resizing_is_even(num_steps: int, first: int, extra: int) -> None:
    """Every resolution of progressive resizing but the last has as many epochs as the others, or one more or less."""
    last = first + num_steps + extra
    text = f"{'64@0,' if first else ''}96-{96 + 32 * num_steps}@{first}-{last}"
    phases = [phase for phase in Schedule.parse(text).phases if phase.crop_px >= 96]
    assert [phase.crop_px for phase in phases] == [96 + 32 * step for step in range(num_steps + 1)]
    assert (phases[0].first_epoch, phases[-1].first_epoch) == (first, last)
    lengths = [later.first_epoch - earlier.first_epoch for earlier, later in pairwise(phases)]
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("text", "sides"),
    [("128", [128]), ("160,96,128", [96, 128, 160]), ("128,128, 128", [128]), (" 224 , 96 ", [96, 224])],
)
def test_parse_resolutions(text: str, sides: list[int]) -> None:
    """Test resolutions come ascending and without repeats, each with the crop ratio asked for."""
    assert parse_resolutions(text, 0.5) == tuple(Resolution(side, 0.5) for side in sides)


def test_parse_resolutions_by_default_crops_seven_eighths() -> None:
    """Without a crop ratio it is 224/256."""
    (resolution,) = parse_resolutions("224")
    assert resolution.crop_ratio == 0.875
    assert resolution.resize_px == 256


@pytest.mark.parametrize("text", ["", "96,", "96;128", "a", "96.5", "-96"])
def test_parse_resolutions_errors(text: str) -> None:
    """What is no list of whole numbers is refused with the form and the text."""
    expected = rf"resolutions are whole numbers of pixels with commas between, .*; found {re.escape(repr(text))}$"
    with pytest.raises(ConfigError, match=expected):
        parse_resolutions(text)


def test_parse_resolutions_checks_each() -> None:
    """Each number has to be a resolution."""
    with pytest.raises(ConfigError, match=r"from 32 to 4096; found 8$"):
        parse_resolutions("128,8")
