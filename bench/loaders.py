"""What `bench.throughput` and `bench.prepared` share: measuring baselines beside ours, and the tables of loaders."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bench.baselines.run import Baseline
from bench.harness import Key, Table, in_rounds, ratio_rows
from bench.segment import Segment
from dali_fixres.runtime import Reporter

__all__ = ["loader_tables", "measured"]


class Measure(NamedTuple):
    """A figure of a row: what tables call it, the keys of its median and of its repeats, and how it is shown."""

    name: str
    median: str
    repeats: str
    shown: str


MEASURES = (
    Measure("images/s", "images_per_s", "repeats", "{:.0f}"),
    Measure("core ms per image", "core_ms", "repeats_core_ms", "{:.2f}"),
)


def measured(
    work: Mapping[Key, Callable[[], Segment]], repeats: int, reporter: Reporter, baselines: Sequence[Baseline]
) -> dict[Key, list[Segment]]:
    """Run every measurement once per round; return what each has found, without baselines that have failed.

    Args:
        work: Measurements of all loaders.
        repeats: Recorded rounds.
        reporter: Shows progress.
        baselines: Those among them.
    """
    found = in_rounds(work, repeats, reporter, str)
    failed = {one.name for one in baselines if one.failed}
    return {key: segments for key, segments in found.items() if key.loader not in failed}


def loader_tables(rows: Sequence[Mapping[str, Any]], ours: Mapping[str, str]) -> list[Table]:
    """Return the figures of all loaders by resolution, and the ratios of ours to the others.

    Args:
        rows: Of ``results``; those of other stages are left out.
        ours: Our loaders, and what titles call them. Each is also compared with those before it.
    """
    loaders = {(row["loader"], row["res"]): row for row in rows if row["stage"] == "loader"}
    names = list(dict.fromkeys(name for name, _ in loaders))
    sides = sorted({res for _, res in loaders})
    headings = ("", *(f"{side} px" for side in sides))

    def figures(name: str, key: str) -> list[Any]:
        """Return a figure at all resolutions; none in results from before core time was measured."""
        return [loaders[name, side][key] for side in sides if key in loaders[name, side]]

    def medians(name: str, measure: Measure) -> list[list[str]]:
        found = figures(name, measure.median)
        return [[name, *map(measure.shown.format, found)]] if found else []

    def ratios(one: str, other: str, measure: Measure) -> list[list[str]]:
        pairs = list(zip(figures(one, measure.repeats), figures(other, measure.repeats), strict=False))
        return ratio_rows(f"{other}, {measure.name}", pairs) if pairs else []

    tables = [
        Table(f"Loaders, {measure.name}, medians", headings, [row for name in names for row in medians(name, measure)])
        for measure in MEASURES
    ]
    for number, (one, title) in enumerate(ours.items()):
        others = [name for name in names if name not in list(ours)[number:]]
        compared = [row for other in others for measure in MEASURES for row in ratios(one, other, measure)]
        tables.append(Table(f"{title} over another, of the same round, medians", headings, compared))
    return [table for table in tables if table.rows]
