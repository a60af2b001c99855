"""Training crops beside test crops: apparent sizes of objects, and what a network makes of them after its pooling."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from dali_fixres.checkpoints.model_source import (
    StartCheckpoint,
    build_source,
    find_source,
    find_start,
    rebuild_start,
)
from dali_fixres.config import AnalyzeConfig
from dali_fixres.evaluation.apparent_size import SizeComparison, compare_sizes
from dali_fixres.evaluation.evaluate import Evaluator
from dali_fixres.finetuning.features import FeaturePass
from dali_fixres.finetuning.frechet import sample_activations
from dali_fixres.models import DataConfig, Model, find_head
from dali_fixres.models.frechet_distribution import Pooled, describe
from dali_fixres.models.head import run_once
from dali_fixres.runtime.data import Data, open_data
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.precision import choose_precision
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import has_runs
from dali_fixres.runtime.skipped import open_batches
from dali_fixres.training.setup import evaluation_plan
from pipelines import AUGMENTATIONS, TRAIN, VAL, Augmentation, Resolution
from pipelines.plan.crops import NUM_UNIFORMS
from pipelines.plan.interpolation import TrainInterpolation
from pipelines.resolution import parse_resolutions

__all__ = ["Activations", "Analysis", "run_analysis"]

DEFAULT_TRAIN_RES = 128

MAX_IMAGES = 100_000
"""Images whose crops are compared; of larger data sets every k-th."""


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """What reaches a network's classifier.

    Attributes:
        classifier_name: Its name.
        num_images: Images analysed.
        rectified: Whether zeros are a share of their own, which the fits leave out.
        resolutions: Of the training crops, then of the test crops.
        pooled: What is known at each of these.
    """

    classifier_name: str
    num_images: int
    rectified: bool
    resolutions: tuple[Resolution, ...]
    pooled: tuple[Pooled, ...]

    @property
    def names(self) -> list[str]:
        """Names of the kinds of crop."""
        trained, *tested = (f"{resolution.crop_px} px" for resolution in self.resolutions)
        return [f"train {trained}", *(f"test {px}" for px in tested)]

    @property
    def fitted_values(self) -> list[NDArray[np.float64]]:
        """What each distribution was fitted to."""
        return [one.values[one.values > 0] if self.rectified else one.values for one in self.pooled]


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Result of an analysis.

    Attributes:
        data: The images.
        sizes: Apparent sizes.
        activations: Pooled activations; None without a network.
        data_config: What images the network takes; None without one.
        model: The network's name, if there is one.
        start: Its checkpoint, if it comes from one.
    """

    data: Data
    sizes: SizeComparison
    activations: Activations | None
    data_config: DataConfig | None
    model: str | None
    start: StartCheckpoint | None


def run_analysis(config: AnalyzeConfig, device: torch.device, world: World) -> Analysis:
    """Compare apparent sizes and, where there is a network, its pooled activations.

    Raises:
        UserError: If something the user gave cannot be used.
    """
    reporter = Reporter(quiet=not world.is_main)
    choose_precision(config.eval_precision, device, "--eval-precision", reporter)  # refused before images are read
    torch.manual_seed(config.seed)
    named = config.model is not None or config.weights is not None or config.pretrained
    has_network = named or config.checkpoint is not None or has_runs()
    start = find_start(config, None, reporter) if has_network else None
    data = _open(config, start, reporter, world)
    if not has_network:
        images = DataConfig(train_res=DEFAULT_TRAIN_RES).given("flag", config.data_values())
        reporter.line("no --checkpoint, no --model and no runs/: sizes are analysed, activations are not")
        return Analysis(data, _compare(config, data, images), None, None, None, None)
    name, model = _build(config, start, data, reporter)
    sizes = _compare(config, data, model.data_config)
    as_trained = _as_trained(model.data_config, start)
    activations = _activations(config, model, data, as_trained, device, reporter, world)
    return Analysis(data, sizes, activations, model.data_config, name, start)


def _open(config: AnalyzeConfig, start: StartCheckpoint | None, reporter: Reporter, world: World) -> Data:
    """Open the data asked for, or else what the network was trained on. A tree without a split is analysed whole."""
    if config.data is None and start is not None:
        return open_data(start.data, config.val_fraction or start.val_fraction, reporter, world)
    return open_data(config.data, config.val_fraction or (1.0 if config.data else None), reporter, world)


def _resolutions(config: AnalyzeConfig, data_config: DataConfig) -> tuple[Resolution, tuple[Resolution, ...]]:
    """Return the resolution of the training crops, and those of the test crops."""
    ratio = data_config.crop_ratio
    return Resolution(data_config.train_res, ratio), parse_resolutions(config.test_res, ratio)


def _compare(config: AnalyzeConfig, data: Data, data_config: DataConfig) -> SizeComparison:
    dataset = data.dataset
    rows = slice(None, None, -(-len(dataset) // MAX_IMAGES))
    heights, widths = dataset.heights[rows], dataset.widths[rows]
    uniforms = np.random.default_rng(config.seed).random((len(heights), NUM_UNIFORMS))
    test_crop = data_config.planned(AUGMENTATIONS["v1"]).crop
    return compare_sizes(heights, widths, *_resolutions(config, data_config), uniforms, test_crop)


def _as_trained(data_config: DataConfig, start: StartCheckpoint | None) -> Augmentation:
    """Return how training images were varied, as far as that is known."""
    trained = start.checkpoint.config if start is not None else {}
    drawn: TrainInterpolation | None = "random" if trained.get("interpolation") == "random" else None
    planned = data_config.planned(AUGMENTATIONS["train"], drawn)
    return replace(planned, jitter=trained.get("color_jitter", planned.jitter))


def _build(config: AnalyzeConfig, start: StartCheckpoint | None, data: Data, reporter: Reporter) -> tuple[str, Model]:
    """Build the network. Its classes need not be the data's: what reaches the classifier is analysed."""
    if start is not None:
        return start.checkpoint.model.name, rebuild_start(start, config, reporter)
    if not config.pretrained and config.weights is None:
        reporter.warn("the network has not been trained: its activations mean nothing")
    source = find_source(config, reporter)
    return source.name, build_source(config, source, data.dataset, reporter)[1]


def _activations(
    config: AnalyzeConfig,
    model: Model,
    data: Data,
    as_trained: Augmentation,
    device: torch.device,
    reporter: Reporter,
    world: World,
) -> Activations:
    """Collect activations of the same images: in training crops at the first resolution, in test crops at the others.

    Training crops are varied `as_trained`.
    """
    train_res, test_resolutions = _resolutions(config, model.data_config)
    resolutions = (train_res, *test_resolutions)
    for resolution in resolutions:
        run_once(model.network, resolution)
    network = model.network.to(device).to(memory_format=torch.channels_last)
    head = find_head(network, resolutions[0])
    split = TRAIN if data.dataset.num_train else VAL
    every = max(1, len(data.dataset.rows(split)) // config.statistics_images)
    tested = replace(evaluation_plan(config, model.data_config, data, world), split=split, every=every)
    trained = replace(tested, augmentation=as_trained, seed=config.seed)
    passes = [FeaturePass(trained, resolutions[0]), *(FeaturePass(tested, one) for one in resolutions[1:])]
    with open_batches(config, data, model.normalisation, device, world, reporter) as batches:
        evaluator = Evaluator(network, batches, tested, world, reporter, precision=config.eval_precision)
        samples = sample_activations(head.classifier, passes, evaluator)
    rectified, pooled = describe(*samples)
    return Activations(head.classifier_name, tested.num_images, rectified, resolutions, pooled)
