"""Training crops beside test crops: apparent sizes of objects, and what a network makes of them after its pooling."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from dali_fixres.checkpoints import rebuild
from dali_fixres.checkpoints.model_source import StartCheckpoint, build_source, find_source, find_start
from dali_fixres.config import AnalyzeConfig
from dali_fixres.evaluation.apparent_size import SizeComparison, compare_sizes
from dali_fixres.evaluation.evaluate import Evaluator
from dali_fixres.finetuning.features import FeaturePass
from dali_fixres.finetuning.frechet import sample_activations
from dali_fixres.models import Model, find_head
from dali_fixres.models.frechet_distribution import Pooled, describe
from dali_fixres.models.head import run_once
from dali_fixres.runtime.data import Data, open_data
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.precision import choose_precision
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import has_runs
from dali_fixres.runtime.skipped import open_batches
from pipelines import AUGMENTATIONS, TRAIN, VAL, EvalPlan, Resolution
from pipelines.plan.crops import NUM_UNIFORMS
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
        model: The network's name, if there is one.
        start: Its checkpoint, if it comes from one.
    """

    data: Data
    sizes: SizeComparison
    activations: Activations | None
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
    ratio = config.crop_ratio or (start.checkpoint.crop_ratio if start else config.ratio)
    train_res = Resolution(config.train_res or (start.checkpoint.train_res if start else DEFAULT_TRAIN_RES), ratio)
    test_resolutions = parse_resolutions(config.test_res, ratio)
    sizes = _compare(config, data, train_res, test_resolutions)
    if not has_network:
        reporter.line("no --checkpoint, no --model and no runs/: sizes are analysed, activations are not")
        return Analysis(data, sizes, None, None, None)
    name, model = _build(config, start, data, reporter)
    jitter = start.checkpoint.config.get("color_jitter") if start is not None else None
    resolutions = (train_res, *test_resolutions)
    activations = _activations(config, model, data, resolutions, jitter, device, reporter, world)
    return Analysis(data, sizes, activations, name, start)


def _open(config: AnalyzeConfig, start: StartCheckpoint | None, reporter: Reporter, world: World) -> Data:
    """Open the data asked for, or else what the network was trained on. A tree without a split is analysed whole."""
    if config.data is None and start is not None:
        return open_data(start.data, config.val_fraction or start.val_fraction, reporter, world)
    return open_data(config.data, config.val_fraction or (1.0 if config.data else None), reporter, world)


def _compare(
    config: AnalyzeConfig, data: Data, train_res: Resolution, test_resolutions: tuple[Resolution, ...]
) -> SizeComparison:
    dataset = data.dataset
    rows = slice(None, None, -(-len(dataset) // MAX_IMAGES))
    heights, widths = dataset.heights[rows], dataset.widths[rows]
    uniforms = np.random.default_rng(config.seed).random((len(heights), NUM_UNIFORMS))
    return compare_sizes(heights, widths, train_res, test_resolutions, uniforms)


def _build(config: AnalyzeConfig, start: StartCheckpoint | None, data: Data, reporter: Reporter) -> tuple[str, Model]:
    """Build the network. Its classes need not be the data's: what reaches the classifier is analysed."""
    if start is not None:
        built = rebuild(start.checkpoint, start.path)
        return start.checkpoint.model.name, replace(built, normalisation=config.normalisation(built.normalisation))
    if not config.pretrained and config.weights is None:
        reporter.warn("the network has not been trained: its activations mean nothing")
    source = find_source(config, reporter)
    return source.name, build_source(config, source, data.dataset, reporter)[1]


def _activations(
    config: AnalyzeConfig,
    model: Model,
    data: Data,
    resolutions: tuple[Resolution, ...],
    jitter: float | None,
    device: torch.device,
    reporter: Reporter,
    world: World,
) -> Activations:
    """Collect activations of the same images: in training crops at the first resolution, in test crops at the others.

    Colours are jittered as in the network's training, if that is known.
    """
    for resolution in resolutions:
        run_once(model.network, resolution)
    network = model.network.to(device).to(memory_format=torch.channels_last)
    head = find_head(network, resolutions[0])
    split = TRAIN if data.dataset.num_train else VAL
    every = max(1, len(data.dataset.rows(split)) // config.statistics_images)
    tested = EvalPlan(
        data.dataset, config.batch_size, world.rank, world.size, copies=config.copies, split=split, every=every
    )
    as_trained = AUGMENTATIONS["train"]
    if jitter is not None:
        as_trained = replace(as_trained, jitter=jitter)
    trained = replace(tested, augmentation=as_trained, seed=config.seed)
    passes = [FeaturePass(trained, resolutions[0]), *(FeaturePass(tested, one) for one in resolutions[1:])]
    with open_batches(config, data, model.normalisation, device, world, reporter) as batches:
        evaluator = Evaluator(network, batches, tested, world, reporter, precision=config.eval_precision)
        samples = sample_activations(head.classifier, passes, evaluator)
    rectified, pooled = describe(*samples)
    return Activations(head.classifier_name, tested.num_images, rectified, resolutions, pooled)
