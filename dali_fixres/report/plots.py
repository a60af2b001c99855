"""Plots, written as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from dali_fixres.errors import ConfigError
from dali_fixres.evaluation.metrics import Accuracy

__all__ = ["plot_curves", "plot_sweep", "save_figure"]


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


def plot_sweep(path: Path, series: Mapping[str, Sequence[Accuracy]], title: str) -> None:
    """Plot top-1 accuracy, with its 95 % interval, against test resolution and against speed, one line per series.

    A series of several crop ratios or views has a line for each. Two points are not joined: what lies between them is
    not known.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    by_resolution, by_speed = figure.subplots(1, 2, sharey=True)
    for name, results in _lines(series).items():
        top1 = [result.top1 for result in results]
        low, high = zip(*(result.top1_interval for result in results), strict=True)
        bars = [[value - end for value, end in zip(top1, low, strict=True)],
                [end - value for value, end in zip(top1, high, strict=True)]]  # fmt: skip
        style: dict[str, Any] = {"marker": "o", "capsize": 3, "linestyle": "-" if len(results) > 2 else ""}
        by_resolution.errorbar([result.resolution.crop_px for result in results], top1, bars, label=name, **style)
        by_speed.errorbar([result.images_per_s for result in results], top1, bars, label=name, **style)
        for result in results:
            place = (result.images_per_s, result.top1)
            by_speed.annotate(f" {result.resolution.crop_px}", place, fontsize="x-small", va="bottom")
    ticks = sorted({result.resolution.crop_px for results in series.values() for result in results})
    by_resolution.set(xlabel="test resolution, px", ylabel="top-1, %", xticks=ticks)
    by_speed.set(xlabel="images/s", xscale="log")
    by_speed.xaxis.set_major_formatter(LogFormatter())
    by_speed.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.4)))
    for axes in (by_resolution, by_speed):
        axes.grid(alpha=0.3)
    by_resolution.legend()
    figure.suptitle(title)
    save_figure(figure, path)


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
    """Write a figure as PNG, and the folder it is to lie in.

    Raises:
        ConfigError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; name another place") from error
