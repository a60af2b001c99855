from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from dali_fixres.report.html import render
from dali_fixres.report.ledger import Cost
from dali_fixres.report.story import Against, Story, summary

EVIL = '<script>alert("1")</script>&amp;\'$title'


def row(side: int, top1: float, num_images: int = 10_000) -> dict[str, Any]:
    """Return an accuracy row."""
    return {
        "test_res": side, "crop_ratio": 0.875, "top1": top1, "top5": 99.0, "num_images": num_images,
        "num_unreadable": 0, "seconds": num_images / 100, "top1_low": top1 - 0.9, "top1_high": top1 + 0.9,
    }  # fmt: skip


STORY = Story(
    model="resnet50",
    data="/data/birds",
    synthetic=False,
    checkpoint=None,
    trained_at=128,
    fixed_for=192,
    chosen=False,
    method="sgd",
    before=(row(128, 70.0), row(160, 74.0), row(192, 73.0)),
    after=(row(128, 66.0), row(160, 75.0), row(192, 77.0)),
    ledger={
        "training": Cost(3600.0, 50_000, 50_000 * 128 * 128),
        "sweep before": Cost(120.0, 30_000, 1),
        "tuning": Cost(300.0, 3000, 3000 * 192 * 192),
        "sweep after": None,
    },
    against=None,
    settings={"training": "epochs = 5\n"},
    environments={"training": {"cpu": "x"}, "tuning": {"cpu": "x"}},
    fingerprints={"training": "abc", "tuning": "abc"},
    unreadable=(),
    missing=(),
)

OTHER = Against(
    path="runs/high",
    trained_at=192,
    rows=(row(128, 60.0), row(160, 72.0), row(192, 76.8)),
    training=Cost(7800.0, 50_000, 50_000 * 192 * 192),
    same_images=True,
    same_machine=True,
)


class Reader(HTMLParser):
    """Reads a page: its elements, which have to be closed in turn, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.cells: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - as in the base
        """Note an element."""
        self.names.add(tag)
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the one that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.cells.append(data)


def said(story: Story) -> str:
    """Return the summary as one text."""
    return " ".join(summary(story))


def test_a_success_is_said_with_its_error() -> None:
    """From 73 to 77 % of 10,000 images: 0.61 points of standard error, and 3 above the best without tuning."""
    text = said(STORY)
    assert "was trained at 128 px (60.0 minutes, 50000 images forwarded)" in text
    assert "best at 160 px, with 74.0 %: +4.0 points (standard error 0.6)." in text
    assert "took it from 73.0 % to 77.0 % at 192 px: +4.0 points (standard error 0.6)." in text
    assert "Against just testing at 160 px, which costs no tuning, the fixed network is at +3.0 points" in text
    assert "nothing" not in text
    assert "worse" not in text


def test_nothing_added_is_said() -> None:
    """A change within two standard errors is no gain, whichever its sign."""
    for top1 in (73.5, 72.5):
        text = said(replace(STORY, after=(row(128, 66.0), row(160, 75.0), row(192, top1))))
        assert "Fine-tuning added nothing that 10000 test images could show." in text


def test_a_loss_against_just_testing_is_said() -> None:
    """Tuning may help at its own resolution, and still be worse than testing at the best one."""
    story = replace(
        STORY,
        before=(row(128, 70.0), row(160, 74.0), row(192, 60.0)),
        after=(row(128, 66.0), row(160, 70.0), row(192, 71.0)),
    )
    text = said(story)
    assert "took it from 60.0 % to 71.0 %" in text
    assert "-3.0 points (standard error 0.6). Fixing it for this resolution made it worse." in text


def test_the_training_resolution_may_be_the_best() -> None:
    """Where no resolution is better than that of training, that is said."""
    text = said(replace(STORY, before=(row(128, 75.0), row(160, 74.0), row(192, 73.0))))
    assert "none is better for it than the 128 px it was trained at" in text


def test_what_limits_the_figures_is_said() -> None:
    """Synthetic images, a resolution chosen on the test images, data that has changed, a checkpoint."""
    story = replace(
        STORY, synthetic=True, chosen=True, checkpoint="runs/old", fingerprints={"training": "a", "tuning": "b"}
    )
    text = said(story)
    assert text.startswith("These are synthetic demo images")
    assert "192 px was chosen on the same test images" in text
    assert "began with runs/old, trained at 128 px" in text
    assert "The data changed between the stages" in text
    assert not any(part in said(STORY) for part in ("synthetic", "chosen", "began", "changed"))


def test_training_high_is_compared_with() -> None:
    """Accuracy with its error, and time: 3900 of 7800 seconds."""
    text = said(replace(STORY, against=OTHER))
    assert "has 76.8 % at 192 px" in text
    assert "the fixed one is neither better nor worse for certain, +0.2 points (standard error 0.6)" in text
    assert "took 65.0 minutes here, and training 130.0 minutes there: 0.50 times as long" in text
    worse = replace(OTHER, rows=(row(128, 60.0), row(160, 72.0), row(192, 80.0)), same_machine=False, trained_at=160)
    text = said(replace(STORY, against=replace(worse, same_images=False)))
    assert "the fixed one is worse, -3.0 points" in text
    assert "That network was not trained at 192 px" in text
    assert "so accuracies do not compare" in text
    assert "so minutes do not compare" in text


def test_gains_are_per_minute_of_what_brought_them() -> None:
    """4 points in 2 minutes of sweeping, 4 in 5 minutes of tuning."""
    gains = {what: (found.points, seconds) for what, found, seconds in STORY.gains}
    assert gains == {
        "testing at 160 px, the best, not at 128 px": (4.0, 120.0),
        "tuning, at 192 px before and after": (4.0, 300.0),
        "tuning, against the best without it (160 px)": (3.0, 300.0),
        "tuning and testing at 192 px, against testing at 128 px": (7.0, 300.0),
    }


def test_the_page_has_the_figures() -> None:
    """Accuracies with their intervals, changes with errors, costs by pixels, what is not recorded."""
    page = Reader(render(replace(STORY, against=OTHER), {"Sweeps": b"png"}))
    assert page.open == []
    for text in ("70.0 (69.1 to 70.9)", "+4.0 ± 0.6", "192 px (fixed for)", "160 px (best before)", "60.00", "+0.80"):
        assert text in page.cells
    assert f"{3000 * 192 * 192 / 128**2:.0f}" in page.cells
    assert "not recorded" in page.cells
    assert "all that is recorded" in page.cells
    assert {"img", "table", "pre"} <= page.names


def test_the_page_needs_nothing_else() -> None:
    """No script, no link, no address; plots are inside."""
    text = render(STORY, {"Sweeps": b"png"})
    assert 'src="data:image/png;base64,cG5n"' in text
    assert not {"script", "link", "iframe", "a"} & Reader(text).names
    for outside in ("http", "url(", "@import"):
        assert outside not in text


@pytest.mark.parametrize("field", ["model", "data", "checkpoint", "method"])
def test_texts_are_escaped(field: str) -> None:
    """What comes from outside cannot become markup, nor a placeholder of the page."""
    changes: dict[str, Any] = {field: EVIL}
    page = Reader(render(replace(STORY, **changes), {}))
    assert page.open == []
    assert "script" not in page.names
    assert any(EVIL in cell for cell in page.cells)


def test_containers_are_escaped() -> None:
    """The same for settings, environment, fingerprints, unreadable files, what is missing, and the other run."""
    story = replace(
        STORY,
        ledger={**STORY.ledger, EVIL: None},
        settings={EVIL: EVIL},
        environments={EVIL: {EVIL: EVIL}},
        fingerprints={EVIL: EVIL, "b": "c"},
        unreadable=(EVIL,),
        missing=(EVIL,),
        against=replace(OTHER, path=EVIL),
    )
    page = Reader(render(story, {EVIL: b"png"}))
    assert page.open == []
    assert "script" not in page.names
    assert sum(EVIL in cell for cell in page.cells) >= 9


def test_many_unreadable_files_are_counted() -> None:
    """Fifty are named, the others counted."""
    page = Reader(render(replace(STORY, unreadable=tuple(f"file {number}" for number in range(53))), {}))
    assert "53 files could not be read:" in page.cells
    assert "file 49" in page.cells
    assert "file 50" not in page.cells
    assert "and 3 more, listed in the runs' unreadable.txt" in page.cells
