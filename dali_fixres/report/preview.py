"""The figure of `preview`: source images with their crop boxes, beside the crops."""

from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from pipelines import BatchPlan, Dataset

__all__ = ["draw_crops"]

PX_PER_INCH = 120


def draw_crops(dataset: Dataset, plans: list[BatchPlan], images: list[NDArray[np.uint8]], titles: list[str]) -> Figure:
    """Draw one row per image; crops are drawn in proportion to their sides in pixels."""
    sides = [plan.resolution.crop_px for plan in plans]
    num_rows = len(plans[0])
    widths = [max(sides) * 1.4, *sides]
    size = (sum(widths) * 1.1 / PX_PER_INCH, (num_rows * max(sides) * 1.1 + 60) / PX_PER_INCH)
    figure = Figure(figsize=size, dpi=PX_PER_INCH, layout="constrained")
    axes = figure.subplots(num_rows, len(widths), width_ratios=widths, squeeze=False)
    for row in range(num_rows):
        _draw_source(axes[row, 0], dataset, plans, row)
        for column, batch in enumerate(images, start=1):
            axes[row, column].imshow(batch[row])
            axes[row, column].set_axis_off()
    for axis, title in zip(axes[0], ["source; crop boxes: train red, test blue", *titles], strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def _draw_source(axes: Axes, dataset: Dataset, plans: list[BatchPlan], row: int) -> None:
    """Draw the source and on it every plan's crop box, the training crop box (the first plan's) in red."""
    sample = int(plans[0].ids[row])
    with Image.open(BytesIO(dataset.read(sample).tobytes())) as image:
        axes.imshow(np.asarray(image.convert("RGB")))
    for number, plan in enumerate(plans):
        y0, x0, y1, x1 = plan.crop_boxes[row]
        colour = "tab:red" if number == 0 else "tab:blue"
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=2))
    axes.set_axis_off()
    name = dataset.classes[dataset.labels[sample]]
    axes.text(0, 0, name, fontsize=8, color="white", backgroundcolor="black", verticalalignment="top")
