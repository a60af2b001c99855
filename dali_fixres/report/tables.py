"""Tables of results for a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from dali_fixres.evaluation.metrics import Accuracy, Interval, best_of

__all__ = ["accuracy_table", "before_after_table", "in_words", "print_table"]

WIDTH_OF_FILES = 100
"""Columns of the widest table, used where the output is not a terminal."""


def accuracy_table(results: Sequence[Accuracy]) -> Table:
    """Return one row per setting, with 95 % intervals; a star marks the best."""
    best, numbers = best_of(results), {result.num_images for result in results}
    caption = f"{'* best top-1; ' if len(results) > 1 else ''}in brackets: 95 % interval"
    table = Table(caption=f"{caption}; {results[0].num_images} images" if len(numbers) == 1 else caption)
    columns: dict[str, list[str]] = {
        "test px": [f"{result.resolution.crop_px}" for result in results],
        "resize px": [f"{result.resolution.resize_px}" for result in results],
        "views": [result.views for result in results],
        "top-1 %": [
            _percent(result.top1, result.top1_interval) + (" *" if result is best and len(results) > 1 else "")
            for result in results
        ],
        "top-5 %": [f"{result.top5:.2f}" for result in results],
        "ReaL top-1 %": ["" if result.real_top1 is None else f"{result.real_top1:.2f}" for result in results],
        "images": [f"{result.num_images}" if len(numbers) > 1 else "" for result in results],
        "images/s": [_rate(result) for result in results],
        "GMACs": ["" if result.gmacs is None else f"{result.gmacs:.3g}" for result in results],
    }
    # Columns that are empty or all `single` are left out.
    shown = {heading: column for heading, column in columns.items() if set(column) - {"", "single"}}
    for heading in shown:
        table.add_column(heading, justify="right", overflow="fold")
    for row in zip(*shown.values(), strict=True):
        table.add_row(*row)
    return table


def _percent(value: float, interval: Interval) -> str:
    # Square brackets would be taken for rich's markup.
    return f"{value:.2f} ({interval[0]:.1f}-{interval[1]:.1f})"


def _rate(result: Accuracy) -> str:
    return f"{result.images_per_s:.0f}" if result.images_per_s >= 10 else f"{result.images_per_s:.2g}"


def in_words(result: Accuracy) -> str:
    """Return setting, accuracy and cost as a phrase."""
    views = "" if result.views == "single" else f", {result.views}"
    cost = "" if result.gmacs is None else f"{result.gmacs:.3g} GMACs, "
    return (
        f"{result.resolution.crop_px} px (crop ratio {result.resolution.crop_ratio:g}{views}) with {result.top1:.2f} % "
        f"at {cost}{_rate(result)} images/s"
    )


def before_after_table(before: Sequence[Accuracy], after: Sequence[Accuracy]) -> Table:
    """Return one row per resolution with the accuracies before and after fine-tuning."""
    table = Table()
    for heading in ("test px", "top-1 before", "top-1 after", "change", "top-5 before", "top-5 after"):
        table.add_column(heading, justify="right")
    for was, now in zip(before, after, strict=True):
        table.add_row(
            f"{was.resolution.crop_px}",
            f"{was.top1:.2f}",
            f"{now.top1:.2f}",
            f"{now.top1 - was.top1:+.2f}",
            f"{was.top5:.2f}",
            f"{now.top5:.2f}",
        )
    return table


def print_table(title: str, table: Table) -> None:
    """Print a table on standard output, under a title that may be wider."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDTH_OF_FILES)
    console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    console.print(table)
