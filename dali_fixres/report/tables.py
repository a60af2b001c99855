"""Tables of results for a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from dali_fixres.metrics import Accuracy

__all__ = ["SYNTHETIC", "accuracy_table", "before_after_table", "print_table"]

SYNTHETIC = "synthetic demo data"


def accuracy_table(results: Sequence[Accuracy]) -> Table:
    """Return one row per resolution; a star marks the best."""
    table = Table(caption="* best top-1" if len(results) > 1 else None)
    for heading in ("test res, px", "shorter side, px", "top-1 %", "top-5 %", "images", "images/s"):
        table.add_column(heading, justify="right")
    best = max(result.top1 for result in results)
    for result in results:
        table.add_row(
            f"{result.resolution.crop_px}",
            f"{result.resolution.resize_px}",
            f"{result.top1:.2f}{' *' if result.top1 == best and len(results) > 1 else ''}",
            f"{result.top5:.2f}",
            f"{result.num_images}",
            f"{result.num_images / result.seconds:.0f}",
        )
    return table


def before_after_table(before: Sequence[Accuracy], after: Sequence[Accuracy]) -> Table:
    """Return one row per resolution with the accuracies before and after fine-tuning."""
    table = Table()
    for heading in ("test res, px", "top-1 before", "top-1 after", "change", "top-5 before", "top-5 after"):
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
    """Print a table on standard output, under a title that may be wider than it."""
    console = Console()
    console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    console.print(table)
