"""`dali-fixres preview`: training and test crops of a few images, as one figure."""

import numpy as np

from dali_fixres.config import PreviewConfig
from dali_fixres.report.plots import save_figure
from dali_fixres.report.preview import draw_crops
from dali_fixres.runtime.data import announce_compiling, open_data
from dali_fixres.runtime.progress import Reporter
from pipelines import Loader
from pipelines.plan.augmentation import AUGMENTATIONS, UNIFORMS_PER_SAMPLE, plan_batch
from pipelines.resolution import Resolution, parse_resolutions

__all__ = ["preview"]


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
    announce_compiling(reporter)
    with Loader(data.dataset, max_batch_size=len(ids), normalisation=None) as loader:
        images = [batch.images.permute(0, 2, 3, 1).numpy() for batch in loader.run(plans)]
    titles = [f"{'train' if name == 'train' else 'test'} {resolution.crop_px} px" for name, resolution in crops]
    figure = draw_crops(data.dataset, plans, images, titles)
    figure.suptitle(data.title)
    save_figure(figure, config.out)
    reporter.line(f"preview: {config.out}")
