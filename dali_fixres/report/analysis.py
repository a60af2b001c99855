"""Tables, plots and figures of `analyze`: apparent sizes of objects, and activations after the pooling."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table

from dali_fixres.config import AnalyzeConfig
from dali_fixres.evaluation.apparent_size import SizeComparison
from dali_fixres.finetuning.analysis import Activations, Analysis
from dali_fixres.report.json_files import ActivationsPart, ActivationsRow, AnalysisFile, CropSizes, SizesPart
from dali_fixres.report.plots import save_figure
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.environment import environment
from dali_fixres.runtime.progress import Reporter
from pipelines.storage.files import write_json

__all__ = ["report_analysis"]

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)

SHOWN_QUANTILES = (0.5, 0.75, 0.99)
"""Quantiles that fit into a table of 80 columns."""

NUM_BINS = 60

SHOWN = 0.995
"""Share of the values that histograms cover; the largest lie above."""

Floats = NDArray[np.float64]


def _edges(samples: Iterable[Floats]) -> Floats:
    """Return the bin edges that histograms of several samples share, (NUM_BINS + 1,)."""
    samples = list(samples)
    return np.linspace(
        min(sample.min() for sample in samples), max(np.quantile(sample, SHOWN) for sample in samples), NUM_BINS + 1
    )


def _sizes_table(sizes: SizeComparison) -> Table:
    """Return one row for the training crops and one per test resolution."""
    table = Table(caption="pixels that an object as large as its image has in the network's input")
    for heading in ("crops", "mean", "median", "5 %", "95 %", "mean of train"):
        table.add_column(heading, justify="right")
    views = {f"train {sizes.train_res.crop_px} px": sizes.trained}
    views |= {f"test {resolution.crop_px} px": tested for resolution, tested in sizes.tested.items()}
    for name, values in views.items():
        low, median, high = np.quantile(values, (0.05, 0.5, 0.95))
        ratio = values.mean() / sizes.trained.mean()
        table.add_row(
            name, f"{values.mean():.1f}", f"{median:.1f}", f"{low:.1f}", f"{high:.1f}", f"{ratio:.3f}"
        )  # fmt: skip
    return table


def _sizes_line(sizes: SizeComparison) -> str:
    """Return in one line which test resolution matches training."""
    return (
        f"objects appear as large as in training at {sizes.train_res.crop_px} px (mean) at {sizes.matching_px:.0f} px; "
        f"the nearest multiple of 32 is {sizes.matching_multiple_px} px"
    )


def _sizes_json(sizes: SizeComparison) -> SizesPart:
    """Return `sizes` of analysis.json."""
    edges = _edges([sizes.trained, *sizes.tested.values()])

    def row(values: Floats) -> CropSizes:
        return {
            "mean_px": round(float(values.mean()), 3),
            "median_px": round(float(np.median(values)), 3),
            "histogram": _shares(values, edges),
        }

    return {
        "num_images": len(sizes.trained),
        "edges_px": _rounded(edges),
        "train": {"train_res": sizes.train_res.crop_px, **row(sizes.trained)},
        "test": [
            {"test_res": resolution.crop_px, "crop_ratio": resolution.crop_ratio, **row(values)}
            for resolution, values in sizes.tested.items()
        ],
        "matching_res": round(sizes.matching_px, 2),
        "matching_multiple": sizes.matching_multiple_px,
    }


def _activations_json(activations: Activations) -> ActivationsPart:
    """Return `activations` of analysis.json."""
    edges = _edges(activations.fitted_values)
    rows: list[ActivationsRow] = [
        {
            "res": resolution.crop_px,
            "zeros": view.zeros,
            "mean": float(view.values.mean()),
            "quantiles": dict(zip(map(str, QUANTILES), np.quantile(view.values, QUANTILES).tolist(), strict=True)),
            "fitted": {
                "location": view.fitted.location,
                "scale": view.fitted.scale,
                "shape": view.fitted.shape,
            },
            "histogram": _shares(values, edges),
        }
        for resolution, view, values in zip(
            activations.resolutions, activations.pooled, activations.fitted_values, strict=True
        )
    ]
    return {
        "classifier": activations.classifier_name,
        "num_images": activations.num_images,
        "rectified": activations.rectified,
        "edges": _rounded(edges),
        "train": rows[0],
        "test": rows[1:],
    }


def _shares(values: Floats, edges: Floats) -> list[float]:
    """Return the share of all values in each bin; the largest lie above the last."""
    return _rounded(_densities(values, edges) * np.diff(edges))


def _densities(values: Floats, edges: Floats) -> Floats:
    """Return the density of all values in each bin."""
    return np.histogram(values, edges)[0] / len(values) / np.diff(edges)


def _rounded(values: Floats) -> list[float]:
    return [round(value, 6) for value in values.tolist()]


def _activations_table(activations: Activations) -> Table:
    """Return one row per view."""
    table = Table(
        caption="of all channels; the fit is of those above zero" if activations.rectified else "of all channels"
    )
    for heading in ("crops", "zeros", *(f"{share:.0%}" for share in SHOWN_QUANTILES), "location", "scale", "shape"):
        table.add_column(heading, justify="right")
    for name, view in zip(activations.names, activations.pooled, strict=True):
        fitted = (view.fitted.location, view.fitted.scale, view.fitted.shape)
        numbers = [*np.quantile(view.values, SHOWN_QUANTILES), *fitted]
        table.add_row(name, f"{view.zeros:.1%}", *(f"{number:.3f}" for number in numbers))
    return table


def _plot_sizes(path: Path, sizes: SizeComparison, title: str) -> None:
    """Plot histograms of apparent sizes, that of training filled, and their means."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    edges = _edges([sizes.trained, *sizes.tested.values()])
    label = f"train crops, {sizes.train_res.crop_px} px"
    heights = _densities(sizes.trained, edges)
    axes.stairs(heights, edges, fill=True, color="lightgrey", label=label)
    axes.axvline(float(sizes.trained.mean()), color="grey", linestyle=":")
    for number, (resolution, tested) in enumerate(sizes.tested.items()):
        colour = f"C{number}"
        label = f"test crops, {resolution.crop_px} px"
        axes.stairs(_densities(tested, edges), edges, color=colour, label=label)
        axes.axvline(float(tested.mean()), color=colour, linestyle=":")
    axes.set(xlabel="apparent size of an object as large as its image, px (dotted: means)", ylabel="density, 1/px")
    axes.set_ylim(0, 4 * float(np.max(heights)))  # images of one shape all have one test size: an unbounded peak
    axes.legend(title=f"means match at {sizes.matching_px:.0f} px")
    figure.suptitle(title)
    save_figure(figure, path)


def _plot_activations(path: Path, activations: Activations, title: str) -> None:
    """Plot the histogram of each view, the first filled, and the distribution fitted to it.

    Where activations are rectified, both are of those above zero.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    shown = activations.fitted_values
    edges = _edges(shown)
    points = np.linspace(edges[0], edges[-1], 400)
    for number, (name, view) in enumerate(zip(activations.names, activations.pooled, strict=True)):
        colour = f"C{number}"
        zeros = f" ({view.zeros:.1%} zeros)" if activations.rectified else ""
        axes.stairs(_densities(shown[number], edges), edges, fill=number == 0, color=colour, alpha=0.4)
        axes.plot(points, view.fitted.pdf(points), color=colour, label=f"{name}{zeros}")
    what = "activation above zero" if activations.rectified else "activation"
    axes.set(xlabel=f"{what}, after the pooling", ylabel="density (steps: measured, lines: fitted)")
    axes.legend()
    figure.suptitle(title)
    save_figure(figure, path)


def report_analysis(config: AnalyzeConfig, analysis: Analysis) -> None:
    """Print the tables, draw the plots, write the figures."""
    data, sizes, activations, start = analysis.data, analysis.sizes, analysis.activations, analysis.start
    title = f"apparent sizes in {data.title}"
    print_table(title, _sizes_table(sizes))
    print(_sizes_line(sizes))  # noqa: T201 - the command's result
    _plot_sizes(config.out / "sizes.png", sizes, title)
    if activations is not None:
        title = f"what reaches {activations.classifier_name} of {start.title if start else analysis.model}"
        print_table(title, _activations_table(activations))
        _plot_activations(config.out / "activations.png", activations, title)
    content: AnalysisFile = {
        "sizes": _sizes_json(sizes),
        "activations": _activations_json(activations) if activations else None,
        "data_config": analysis.data_config.as_json() if analysis.data_config else None,
        "model": analysis.model,
        "eval_precision": config.eval_precision if activations else None,
        "checkpoint": str(start.path) if start else None,
        "synthetic": data.synthetic,
        "fingerprint": data.dataset.fingerprint,
        "environment": environment(),
    }
    for path in (config.out / "analysis.json", config.json):
        if path is not None:
            write_json(path, content)
    Reporter().line(f"figures and plots: {config.out}")
