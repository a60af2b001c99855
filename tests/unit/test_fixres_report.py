from typing import Any, cast

import pytest
from page import Page

from dali_fixres.report.cost import gain, row_at
from dali_fixres.report.fixres import gains
from dali_fixres.report.html import render
from dali_fixres.report.json_files import Baseline, Figures, ReportFile
from dali_fixres.report.summary import summary

EVIL = '<script>alert("1")</script>&amp;\'{{ title }}'


def row(side: int, top1: float, num_images: int = 10_000) -> Any:
    """Return an accuracy row."""
    return {
        "test_res": side, "crop_ratio": 0.875, "top1": top1, "top5": 99.0, "num_images": num_images,
        "num_unreadable": 0, "seconds": num_images / 100, "top1_low": top1 - 0.9, "top1_high": top1 + 0.9,
    }  # fmt: skip


BEFORE = [row(128, 70.0), row(160, 74.0), row(192, 73.0)]
AFTER = [row(128, 66.0), row(160, 75.0), row(192, 77.0)]
BASELINE: Baseline = {
    "path": "runs/high",
    "trained_at": 192,
    "rows": [row(128, 60.0), row(160, 72.0), row(192, 76.8)],
    "training": {"seconds": 7800.0, "num_images": 50_000, "area_px": 50_000 * 192 * 192},
    "same_images": True,
    "same_machine": True,
}


def figures(**changes: Any) -> Figures:
    """Return the figures of a training at 128 px and fine-tuning for 192 px, with some of them changed."""
    content: dict[str, Any] = {
        "model": "resnet50",
        "data": "/data/birds",
        "synthetic": False,
        "checkpoint": None,
        "trained_at": 128,
        "fixed_for": 192,
        "chosen": False,
        "method": "sgd",
        "before": BEFORE,
        "after": AFTER,
        "costs": {
            "training": {"seconds": 3600.0, "num_images": 50_000, "area_px": 50_000 * 128 * 128},
            "sweep before": {"seconds": 120.0, "num_images": 30_000, "area_px": 1},
            "tuning": {"seconds": 300.0, "num_images": 3000, "area_px": 3000 * 192 * 192},
            "sweep after": None,
        },
        "baseline": None,
        "settings": {"training": "epochs = 5\n"},
        "environments": {"training": {"cpu": "x"}, "tuning": {"cpu": "x"}},
        "fingerprints": {"training": "abc", "tuning": "abc"},
        "unreadable": [],
        "missing": [],
    } | changes
    before, after, baseline = content["before"], content["after"], content["baseline"]
    content["best_before"] = max(before, key=lambda one: one["top1"])["test_res"]
    content["gains"] = list(gains(before, after, content["costs"], 128, 192))
    content["gain_over_baseline"] = baseline and gain(row_at(baseline["rows"], 192), row_at(after, 192))
    return cast("Figures", content)


def page_of(title: str = "A title", plots: dict[str, bytes] | None = None, **changes: Any) -> str:
    """Return the page of these figures."""
    content = figures(**changes)
    report: ReportFile = {"summary": list(summary(content)), **content}
    return render(title, report, plots or {})


def said(**changes: Any) -> str:
    """Return the summary as one text."""
    return " ".join(summary(figures(**changes)))


def test_a_success_is_said_with_its_error() -> None:
    """From 73 to 77 % of 10,000 images: 0.61 points of standard error, and 3 above the best without fine-tuning."""
    text = said()
    assert "trained at 128 px (60.0 minutes, 50000 images forwarded)" in text
    assert "at 160 px, with 74.0 %: +4.0 points (standard error 0.6)." in text
    assert "at 192 px from 73.0 % to 77.0 %: +4.0 points (standard error 0.6)." in text
    assert "with testing at 160 px without fine-tuning: +3.0 points (standard error 0.6)." in text
    assert "chance" not in text
    assert "loss" not in text


@pytest.mark.parametrize("top1", [73.5, 72.5])
def test_a_change_within_chance_is_said(top1: float) -> None:
    """A change within two standard errors is no gain, whichever its sign."""
    text = said(after=[row(128, 66.0), row(160, 75.0), row(192, top1)])
    assert "too little to tell from chance with 10000 test images" in text


def test_a_loss_against_just_testing_is_said() -> None:
    """Fine-tuning may help at its own resolution, and still be worse than testing at the best one."""
    text = said(
        before=[row(128, 70.0), row(160, 74.0), row(192, 60.0)], after=[row(128, 66.0), row(160, 70.0), row(192, 71.0)]
    )
    assert "from 60.0 % to 71.0 %" in text
    assert "-3.0 points (standard error 0.6), a loss." in text


def test_the_training_resolution_may_be_the_best() -> None:
    """Where no resolution is better than that of training, that is said."""
    text = said(before=[row(128, 75.0), row(160, 74.0), row(192, 73.0)])
    assert "no tested resolution is better than those 128 px" in text


def test_what_limits_the_figures_is_said() -> None:
    """Synthetic images, a resolution chosen on the test images, data that has changed, a checkpoint."""
    text = said(synthetic=True, chosen=True, checkpoint="runs/old", fingerprints={"training": "a", "tuning": "b"})
    limits = ("synthetic", "192 px was chosen on the same test images", "of runs/old was trained", "data changed")
    assert all(part in text for part in limits)
    assert not any(part in said() for part in limits)


def test_the_baseline_is_compared_with() -> None:
    """Accuracy with its error, and time: 3900 of 7800 seconds."""
    text = said(baseline=BASELINE)
    assert "has 76.8 % at 192 px" in text
    assert "is not measurably different at 192 px: +0.2 points (standard error 0.6)" in text
    assert "took 65.0 minutes and training the baseline 130.0 minutes: 0.50 times as long" in text
    rows = [row(128, 60.0), row(160, 72.0), row(192, 80.0)]
    worse = {"rows": rows, "same_machine": False, "same_images": False, "trained_at": 160}
    text = said(baseline={**BASELINE, **worse})
    assert "is worse at 192 px: -3.0 points" in text
    assert "was not trained at 192 px" in text
    assert "accuracies are not comparable" in text
    assert "times are not comparable" in text


def test_gains_are_per_minute_of_what_brought_them() -> None:
    """4 points in 2 minutes of sweeping, 4 in 5 minutes of fine-tuning."""
    assert [(found["points"], found["seconds"]) for found in figures()["gains"]] == [
        (4.0, 120.0),
        (4.0, 300.0),
        (3.0, 300.0),
        (7.0, 300.0),
    ]
    best_at_128 = [row(128, 75.0), row(160, 74.0), row(192, 73.0)]
    assert [found["points"] for found in figures(before=best_at_128)["gains"]] == [4.0, 2.0]


def test_the_page_has_the_figures() -> None:
    """Accuracies with their intervals, changes with errors, costs by pixels, what is not recorded."""
    page = Page(page_of(plots={"Sweeps": b"png"}, baseline=BASELINE))
    assert page.open == []
    for text in ("70.0 (69.1 to 70.9)", "+4.0 ± 0.6", "192 px (fixed for)", "160 px (best before)", "60.00", "+0.80"):
        assert text in page.texts
    assert f"{3000 * 192 * 192 / 128**2:.0f}" in page.texts
    assert "not recorded" in page.texts
    assert "all that is recorded" in page.texts
    assert {"img", "table", "pre"} <= page.names


def test_the_page_needs_nothing_else() -> None:
    """No script, no link, no address; plots are inside."""
    text = page_of(plots={"Sweeps": b"png"})
    assert 'src="data:image/png;base64,cG5n"' in text
    assert not {"script", "link", "iframe", "a"} & Page(text).names
    for outside in ("http", "url(", "@import"):
        assert outside not in text


@pytest.mark.parametrize("field", ["title", "model", "data", "checkpoint", "method"])
def test_texts_are_escaped(field: str) -> None:
    """What comes from outside cannot become markup, nor a placeholder of the page."""
    changes: dict[str, Any] = {field: EVIL}
    page = Page(page_of(**changes))
    assert page.open == []
    assert "script" not in page.names
    assert any(EVIL in cell for cell in page.texts)


def test_containers_are_escaped() -> None:
    """The same for settings, environment, fingerprints, unreadable files, what is missing, and the baseline."""
    text = page_of(
        plots={EVIL: b"png"},
        costs={**figures()["costs"], EVIL: None},
        settings={EVIL: EVIL},
        environments={EVIL: {EVIL: EVIL}},
        fingerprints={EVIL: EVIL, "b": "c"},
        unreadable=[EVIL],
        missing=[EVIL],
        baseline={**BASELINE, "path": EVIL},
    )
    page = Page(text)
    assert page.open == []
    assert "script" not in page.names
    assert sum(EVIL in cell for cell in page.texts) >= 9


def test_many_unreadable_files_are_counted() -> None:
    """Fifty are named, the others counted."""
    page = Page(page_of(unreadable=[f"file {number}" for number in range(53)]))
    assert "53 files could not be read:" in page.texts
    assert "file 49" in page.texts
    assert "file 50" not in page.texts
    assert "and 3 more, listed in the runs' unreadable.txt" in page.texts
