"""`dali-fixres preview`: training and test crops of a few images, as one figure."""

from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from dali_fixres.config import PreviewConfig
from dali_fixres.report.plots import save_figure
from dali_fixres.runtime.data import open_data
from dali_fixres.runtime.progress import Reporter
from pipelines import Loader
from pipelines.dataset import Dataset
from pipelines.plan.augmentation import AUGMENTATIONS, UNIFORMS_PER_SAMPLE, plan_batch
from pipelines.plan.batch_plan import BatchPlan
from pipelines.plan.colour import Normalisation
from pipelines.resolution import Resolution, parse_resolutions

__all__ = ["preview"]

PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Leaves images in 0-1, so that they can be shown."""

PX_PER_INCH = 120


def preview(config: PreviewConfig) -> None:
    """Draw, for a few images: the source with its crop boxes, the training crop, the test crop at each resolution.

    Raises:
        UserError: If something the user gave cannot be used.
    """
    reporter = Reporter()
    # Without a split images are drawn from all: none has to be held out.
    val_fraction = config.val_fraction or (1.0 if config.data is not None else None)
    data = open_data(config.data, val_fraction, reporter)
    rng = np.random.default_rng(config.seed)
    ids = rng.choice(len(data.dataset), size=min(config.num_images, len(data.dataset)), replace=False)
    uniforms = rng.random((len(ids), UNIFORMS_PER_SAMPLE))
    crops = [("train", Resolution(config.train_res))]
    crops += [("v1", resolution) for resolution in parse_resolutions(config.test_res)]
    plans = [plan_batch(data.dataset, ids, AUGMENTATIONS[name], resolution, uniforms) for name, resolution in crops]
    with Loader(data.dataset, max_batch_size=len(ids), normalisation=PLAIN) as loader:
        images = [batch.images.clamp(0, 1).permute(0, 2, 3, 1).numpy() for batch in loader.run(plans)]
    titles = [f"{'train' if name == 'train' else 'test'} {resolution.crop_px} px" for name, resolution in crops]
    figure = _draw(data.dataset, plans, images, titles)
    figure.suptitle(data.title)
    save_figure(figure, config.out)
    reporter.line(f"preview: {config.out}")


def _draw(dataset: Dataset, plans: list[BatchPlan], images: list[NDArray[np.float32]], titles: list[str]) -> Figure:
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
