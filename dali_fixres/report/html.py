"""The page that `fixres` leaves: one file that needs no other, for a browser or a printer. Pure."""

import base64
from collections.abc import Mapping
from typing import TypeVar

from dali_fixres.report.cost import gain, images_at, is_clear, per_minute, row_at, total_cost, training_and_tuning
from dali_fixres.report.json_files import Gain, ReportFile
from dali_fixres.report.template import TEMPLATES
from dali_fixres.runtime.json_files import AccuracyRow

__all__ = ["render"]

T = TypeVar("T")

MAX_NAMED = 50
"""Unreadable files that the page names; the runs' unreadable.txt have all."""


def render(title: str, report: ReportFile, plots: Mapping[str, bytes]) -> str:
    """Return the page.

    Args:
        title: Its heading.
        report: What it shows.
        plots: PNG files by what they show.
    """
    environments = {stage: tuple(values.items()) for stage, values in report["environments"].items()}
    return TEMPLATES.get_template("report.html").render(
        report,
        title=title,
        marks=_marks(report),
        total=total_cost(cost for cost in report["costs"].values() if cost is not None),
        training_and_tuning=training_and_tuning(report["costs"]),
        plots={what: base64.b64encode(png).decode() for what, png in plots.items()},
        environments={stages: dict(values) for stages, values in _distinct(environments).items()},
        fingerprints=_distinct(report["fingerprints"]),
        max_named=MAX_NAMED,
        row_at=row_at,
        gain=gain,
        is_clear=is_clear,
        per_minute=per_minute,
        images_at=images_at,
        top1=_top1,
        points=_points,
        tested=_tested,
    )


def _marks(report: ReportFile) -> dict[int, str]:
    """Return what is special about a resolution."""
    facts = {"trained at": report["trained_at"], "fixed for": report["fixed_for"], "best before": report["best_before"]}
    return {side: ", ".join(fact for fact, of in facts.items() if of == side) for side in facts.values()}


def _distinct(values: Mapping[str, T]) -> dict[str, T]:
    """Return each value once, under the names of all stages that have it."""
    names: dict[T, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return {"all stages" if len(names) == 1 else ", ".join(those): value for value, those in names.items()}


def _top1(row: AccuracyRow) -> str:
    return f"{row['top1']:.1f} ({row['top1_low']:.1f} to {row['top1_high']:.1f})"


def _points(found: Gain) -> str:
    return f"{found['points']:+.1f} ± {found['standard_error']:.1f}"


def _tested(before: AccuracyRow, after: AccuracyRow) -> str:
    """Return how many images were tested, and how many could not be read."""
    numbers = [(row["num_images"], row["num_unreadable"]) for row in (before, after)]
    texts = [f"{read} ({unreadable} unreadable)" if unreadable else f"{read}" for read, unreadable in numbers]
    return ", then ".join(dict.fromkeys(texts))
