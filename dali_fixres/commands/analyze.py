"""`dali-fixres analyze`: training crops beside test crops, in the source and in what a network makes of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dali_fixres.apparent_size import SizeComparison, compare_sizes
from dali_fixres.checkpoint import rebuild
from dali_fixres.commands.dataset import Dataset, open_dataset, open_loader
from dali_fixres.commands.frechet import sample_looks
from dali_fixres.commands.network import Start, build_named, find_named, find_start
from dali_fixres.commands.stream import Test
from dali_fixres.commands.unreadable import Unreadable
from dali_fixres.config import AnalyzeConfig
from dali_fixres.devices import choose_device
from dali_fixres.distributed import World, joined
from dali_fixres.frechet import describe
from dali_fixres.index import TRAIN, VAL
from dali_fixres.models import BuiltModel, dissect
from dali_fixres.models.anatomy import run_once
from dali_fixres.plan import AUGMENTATIONS, EvaluationPlan
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
from dali_fixres.report.environment import environment
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import print_table
from dali_fixres.resolution import Resolution, parse_resolutions
from dali_fixres.runs import has_runs, write_json
from dali_fixres.windows import NUM_UNIFORMS

__all__ = ["analyze"]

USUAL_TRAIN_RES = 128

MAX_PICTURES = 100_000
"""Pictures whose windows are looked at; of larger data sets every k-th."""


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
    dataset = _open(config, start, reporter, world)
    ratio = config.crop_ratio or (start.checkpoint.crop_ratio if start else config.ratio)
    train_res = Resolution(config.train_res or (start.checkpoint.train_res if start else USUAL_TRAIN_RES), ratio)
    test_resolutions = parse_resolutions(config.test_res, ratio)
    sizes = _compare(config, dataset, train_res, test_resolutions)
    activations, name = None, None
    if has_network:
        name, built = _build(config, start, dataset, reporter)
        jitter = start.checkpoint.config.get("jitter") if start is not None else None
        resolutions = (train_res, *test_resolutions)
        activations = _activations(config, built, dataset, resolutions, jitter, device, reporter, world)
    else:
        reporter.line("no --checkpoint, no --model and no runs/: sizes are analysed, activations are not")
    if not world.is_main:
        return
    _show(config, dataset, sizes, activations, f"{start.title if start else name}" if has_network else None)
    content: dict[str, Any] = {
        "sizes": sizes_json(sizes),
        "activations": activations_json(activations) if activations else None,
        "model": name,
        "checkpoint": str(start.path) if start else None,
        "synthetic": dataset.synthetic,
        "fingerprint": dataset.index.fingerprint,
        "environment": environment(),
    }
    for path in (config.out / "analysis.json", config.json):
        if path is not None:
            write_json(path, content)
    reporter.line(f"figures and plots: {config.out}")


def _open(config: AnalyzeConfig, start: Start | None, reporter: Reporter, world: World) -> Dataset:
    """Open the data asked for, or else what the network was trained on. A tree without a split is looked at whole."""
    if config.data is None and start is not None:
        return open_dataset(start.data, config.val_fraction or start.val_fraction, reporter, world)
    return open_dataset(config.data, config.val_fraction or (1.0 if config.data else None), reporter, world)


def _compare(
    config: AnalyzeConfig, dataset: Dataset, train_res: Resolution, test_resolutions: tuple[Resolution, ...]
) -> SizeComparison:
    index = dataset.index
    rows = slice(None, None, -(-len(index) // MAX_PICTURES))
    heights, widths = index.heights[rows], index.widths[rows]
    uniforms = np.random.default_rng(config.seed).random((len(heights), NUM_UNIFORMS))
    return compare_sizes(heights, widths, train_res, test_resolutions, uniforms)


def _build(config: AnalyzeConfig, start: Start | None, dataset: Dataset, reporter: Reporter) -> tuple[str, BuiltModel]:
    """Build the network. Its classes need not be the data's: what comes before the classifier is looked at."""
    if start is not None:
        built = rebuild(start.checkpoint, start.path)
        return start.checkpoint.model.name, replace(built, normalisation=config.normalisation(built.normalisation))
    if not config.pretrained and config.weights is None:
        reporter.warn("the network has not been trained: its activations mean nothing")
    named = find_named(config, reporter)
    return named.name, build_named(config, named, dataset.index, reporter)[1]


def _activations(
    config: AnalyzeConfig,
    built: BuiltModel,
    dataset: Dataset,
    resolutions: tuple[Resolution, ...],
    jitter: float | None,
    device: torch.device,
    reporter: Reporter,
    world: World,
) -> Activations:
    """Look at the same pictures as in training, at the first of some resolutions, and as in testing at the others.

    Colours are jittered as strongly as the network has seen it, if that is known.
    """
    for resolution in resolutions:
        run_once(built.network, resolution)
    network = built.network.to(device).to(memory_format=torch.channels_last)
    anatomy = dissect(network, resolutions[0])
    split = TRAIN if dataset.index.num_train else VAL
    every = max(1, len(dataset.index.rows(split)) // config.statistics_images)
    tested = EvaluationPlan(
        dataset.index, config.batch_size, world.rank, world.size, copies=config.copies, split=split, every=every
    )
    as_trained = AUGMENTATIONS["train"]
    if jitter is not None:
        as_trained = replace(as_trained, jitter=jitter)
    trained = replace(tested, augmentation=as_trained, seed=config.seed)
    looks = [Test(trained, resolutions[0]), *(Test(tested, resolution) for resolution in resolutions[1:])]
    unreadable = Unreadable(dataset, {}, strict=config.strict, reporter=reporter, listed_in=None)
    with open_loader(config, dataset, built.normalisation, device, world, reporter) as loader:
        samples = sample_looks(network, anatomy.classifier, looks, loader, unreadable, reporter, world)
    unreadable.summarise()
    rectified, known = describe(*samples)
    return Activations(anatomy.classifier_name, tested.num_pictures, rectified, resolutions, known)


def _show(
    config: AnalyzeConfig, dataset: Dataset, sizes: SizeComparison, activations: Activations | None, network: str | None
) -> None:
    """Print the tables and draw the plots."""
    title = f"apparent sizes in {dataset.title}"
    print_table(title, sizes_table(sizes))
    print(sizes_line(sizes))  # noqa: T201 - the command's result
    plot_sizes(config.out / "sizes.png", sizes, title)
    if activations is not None:
        title = f"what reaches {activations.classifier_name} of {network}"
        print_table(title, activations_table(activations))
        plot_activations(config.out / "activations.png", activations, title)
