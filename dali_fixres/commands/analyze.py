"""`dali-fixres analyze`: training crops beside test crops, in the source and in what a network makes of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dali_fixres.config import AnalyzeConfig
from dali_fixres.evaluation.apparent_size import SizeComparison, compare_sizes
from dali_fixres.finetuning.frechet import sample_views
from dali_fixres.models import Model, find_head
from dali_fixres.models.frechet_distribution import describe
from dali_fixres.models.head import run_once
from dali_fixres.report.analysis import (
    Activations,
    activations_json,
    activations_table,
    plot_activations,
    plot_sizes,
    sizes_json,
    sizes_line,
    sizes_table,
)
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.data import Data, open_data, open_loader
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import World, joined
from dali_fixres.runtime.environment import environment
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import has_runs
from dali_fixres.training.checkpoint import rebuild
from dali_fixres.training.model_source import StartCheckpoint, build_source, find_source, find_start
from dali_fixres.training.stream import Test
from dali_fixres.training.unreadable import Unreadable
from pipelines.dataset import TRAIN, VAL
from pipelines.plan import AUGMENTATIONS, EvalPlan
from pipelines.plan.crops import NUM_UNIFORMS
from pipelines.resolution import Resolution, parse_resolutions
from pipelines.storage.files import write_json

__all__ = ["analyze"]

USUAL_TRAIN_RES = 128

MAX_IMAGES = 100_000
"""Images whose crop boxes are looked at; of larger data sets every k-th."""


def analyze(config: AnalyzeConfig) -> None:
    """Compare apparent sizes and, where there is a network, its pooled activations; leave plots and figures.

    Raises:
        UserError: If something the user gave cannot be used.
    """
    device = choose_device(config.device)
    with joined(device) as world:
        _analyze(config, device, world)


def _analyze(config: AnalyzeConfig, device: torch.device, world: World) -> None:
    reporter = Reporter(quiet=not world.is_main)
    torch.manual_seed(config.seed)
    named = config.model is not None or config.weights is not None or config.pretrained
    has_network = named or config.checkpoint is not None or has_runs()
    start = find_start(config, None, reporter) if has_network else None
    data = _open(config, start, reporter, world)
    ratio = config.crop_ratio or (start.checkpoint.crop_ratio if start else config.ratio)
    train_res = Resolution(config.train_res or (start.checkpoint.train_res if start else USUAL_TRAIN_RES), ratio)
    test_resolutions = parse_resolutions(config.test_res, ratio)
    sizes = _compare(config, data, train_res, test_resolutions)
    activations, name = None, None
    if has_network:
        name, built = _build(config, start, data, reporter)
        jitter = start.checkpoint.config.get("jitter") if start is not None else None
        resolutions = (train_res, *test_resolutions)
        activations = _activations(config, built, data, resolutions, jitter, device, reporter, world)
    else:
        reporter.line("no --checkpoint, no --model and no runs/: sizes are analysed, activations are not")
    if not world.is_main:
        return
    _show(config, data, sizes, activations, f"{start.title if start else name}" if has_network else None)
    content: dict[str, Any] = {
        "sizes": sizes_json(sizes),
        "activations": activations_json(activations) if activations else None,
        "model": name,
        "checkpoint": str(start.path) if start else None,
        "synthetic": data.synthetic,
        "fingerprint": data.dataset.fingerprint,
        "environment": environment(),
    }
    for path in (config.out / "analysis.json", config.json):
        if path is not None:
            write_json(path, content)
    reporter.line(f"figures and plots: {config.out}")


def _open(config: AnalyzeConfig, start: StartCheckpoint | None, reporter: Reporter, world: World) -> Data:
    """Open the data asked for, or else what the network was trained on. A tree without a split is looked at whole."""
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
    """Build the network. Its classes need not be the data's: what comes before the classifier is looked at."""
    if start is not None:
        built = rebuild(start.checkpoint, start.path)
        return start.checkpoint.model.name, replace(built, normalisation=config.normalisation(built.normalisation))
    if not config.pretrained and config.weights is None:
        reporter.warn("the network has not been trained: its activations mean nothing")
    named = find_source(config, reporter)
    return named.name, build_source(config, named, data.dataset, reporter)[1]


def _activations(
    config: AnalyzeConfig,
    built: Model,
    data: Data,
    resolutions: tuple[Resolution, ...],
    jitter: float | None,
    device: torch.device,
    reporter: Reporter,
    world: World,
) -> Activations:
    """Look at the same images as in training, at the first of some resolutions, and as in testing at the others.

    Colours are jittered as strongly as the network has seen it, if that is known.
    """
    for resolution in resolutions:
        run_once(built.network, resolution)
    network = built.network.to(device).to(memory_format=torch.channels_last)
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
    views = [Test(trained, resolutions[0]), *(Test(tested, resolution) for resolution in resolutions[1:])]
    unreadable = Unreadable(data, {}, strict=config.strict, reporter=reporter, listed_in=None)
    with open_loader(config, data, built.normalisation, device, world, reporter) as loader:
        samples = sample_views(network, head.classifier, views, loader, unreadable, reporter, world)
    unreadable.summarise()
    rectified, known = describe(*samples)
    return Activations(head.classifier_name, tested.num_images, rectified, resolutions, known)


def _show(
    config: AnalyzeConfig, data: Data, sizes: SizeComparison, activations: Activations | None, network: str | None
) -> None:
    """Print the tables and draw the plots."""
    title = f"apparent sizes in {data.title}"
    print_table(title, sizes_table(sizes))
    print(sizes_line(sizes))  # noqa: T201 - the command's result
    plot_sizes(config.out / "sizes.png", sizes, title)
    if activations is not None:
        title = f"what reaches {activations.classifier_name} of {network}"
        print_table(title, activations_table(activations))
        plot_activations(config.out / "activations.png", activations, title)
