"""Plots, written as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from dali_fixres.errors import ConfigError
from dali_fixres.evaluation.metrics import Accuracy

__all__ = ["plot_accuracy", "plot_curves", "plot_sweep", "save_figure"]


def plot_curves(path: Path, records: Sequence[Mapping[str, Any]], title: str) -> None:
    """Plot loss and accuracy by epoch from a run's records."""
    epochs = [record for record in records if record["event"] == "epoch"]
    tests = [record for record in records if record["event"] == "evaluation"]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    loss.plot([record["epoch"] for record in epochs], [record["loss"] for record in epochs], marker=".")
    loss.set(xlabel="epoch", ylabel="training loss")
    for resolution in sorted({test["test_res"] for test in tests}):
        points = [test for test in tests if test["test_res"] == resolution]
        for key, label, style in (("top1", "top-1", "-"), ("top5", "top-5", ":")):
            values = [point[key] for point in points]
            accuracy.plot([p["epoch"] for p in points], values, style, marker=".", label=f"{label} at {resolution} px")
    accuracy.set(xlabel="epoch", ylabel="accuracy, %")
    for axes in (loss, accuracy):
        axes.xaxis.get_major_locator().set_params(integer=True)
    if tests:
        accuracy.legend()
    figure.suptitle(title)
    save_figure(figure, path)


def plot_accuracy(path: Path, series: Mapping[str, Sequence[Accuracy]], title: str) -> None:
    """Plot top-1 accuracy, with its 95 % interval, against test resolution, one line per series."""
    figure = Figure(figsize=(6.7, 4), layout="constrained")
    axes = figure.subplots()
    _draw_by_resolution(axes, _lines(series))
    axes.set(ylabel="top-1 accuracy, % (bars: 95 % interval)", title=title)
    axes.legend()
    save_figure(figure, path)


def plot_sweep(path: Path, series: Mapping[str, Sequence[Accuracy]], title: str) -> None:
    """Plot top-1 accuracy, with its 95 % interval, against test resolution and against speed, one line per series.

    A series of several crop ratios or views has a line for each.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    by_resolution, by_speed = figure.subplots(1, 2, sharey=True)
    lines = _lines(series)
    _draw_by_resolution(by_resolution, lines)
    by_resolution.set(ylabel="top-1, %")
    by_resolution.legend()
    for name, results in lines.items():
        _draw(by_speed, name, results, [result.images_per_s for result in results])
        for result in results:
            place = (result.images_per_s, result.top1)
            by_speed.annotate(f" {result.resolution.crop_px}", place, fontsize="x-small", va="bottom")
    by_speed.set(xlabel="images/s", xscale="log")
    by_speed.xaxis.set_major_formatter(LogFormatter())
    by_speed.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.4)))
    by_speed.grid(alpha=0.3)
    figure.suptitle(title)
    save_figure(figure, path)


def _draw_by_resolution(axes: Axes, lines: Mapping[str, Sequence[Accuracy]]) -> None:
    for name, results in lines.items():
        _draw(axes, name, results, [result.resolution.crop_px for result in results])
    ticks = sorted({result.resolution.crop_px for results in lines.values() for result in results})
    axes.set(xlabel="test resolution, px", xticks=ticks)
    axes.grid(alpha=0.3)


def _draw(axes: Axes, name: str, results: Sequence[Accuracy], at: Sequence[float]) -> None:
    """Draw one line with error bars. Two points are not joined: what lies between them is not known."""
    top1 = [result.top1 for result in results]
    ends = [result.top1_interval for result in results]
    bars = [
        [value - low for value, (low, _) in zip(top1, ends, strict=True)],
        [high - value for value, (_, high) in zip(top1, ends, strict=True)],
    ]
    axes.errorbar(at, top1, bars, label=name, marker="o", capsize=3, linestyle="-" if len(results) > 2 else "")


def _lines(series: Mapping[str, Sequence[Accuracy]]) -> dict[str, list[Accuracy]]:
    """Return the points of each line by its name: of each series, or of each crop ratio and views in it."""
    everything = [result for results in series.values() for result in results]
    several = len({(result.resolution.crop_ratio, result.views) for result in everything}) > 1
    lines: dict[str, list[Accuracy]] = {}
    for name, results in series.items():
        for result in results:
            detail = f", {result.resolution.crop_ratio:g}, {result.views}" if several else ""
            lines.setdefault(name + detail, []).append(result)
    return lines


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, and its folder.

    Raises:
        ConfigError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; name another place") from error
