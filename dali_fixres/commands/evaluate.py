"""`dali-fixres evaluate`: accuracy at one or several test resolutions."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dali_fixres.commands.dataset import Dataset, open_dataset, open_loader
from dali_fixres.commands.network import Start, build_named, build_start, find_named, find_start
from dali_fixres.commands.stream import Stream, Test
from dali_fixres.commands.unreadable import Unreadable
from dali_fixres.config import EvaluateConfig
from dali_fixres.devices import choose_device
from dali_fixres.distributed import World, joined
from dali_fixres.evaluation import evaluate as count_answers
from dali_fixres.evaluation import total
from dali_fixres.metrics import Accuracy
from dali_fixres.models import BuiltModel
from dali_fixres.models.anatomy import run_once
from dali_fixres.plan import EvaluationPlan
from dali_fixres.report.environment import environment
from dali_fixres.report.plots import plot_sweep
from dali_fixres.report.progress import Reporter
from dali_fixres.report.tables import accuracy_table, print_table
from dali_fixres.resolution import Resolution, parse_resolutions
from dali_fixres.runs import write_json

__all__ = ["evaluate"]

USUAL_TEST_RES = "224"


def evaluate(config: EvaluateConfig) -> None:
    """Sweep over test resolutions: one graph, one stream of plans, every test picture once per resolution.

    Raises:
        UserError: If something the user gave cannot be used.
    """
    device = choose_device(config.device)
    with joined(device) as world:
        _evaluate(config, device, world)


def _evaluate(config: EvaluateConfig, device: torch.device, world: World) -> None:
    reporter = Reporter(quiet=not world.is_main)
    torch.manual_seed(config.seed)
    start = find_start(config, None, reporter)
    dataset = _open(config, start, reporter, world)
    if start is not None:
        name, built = start.checkpoint.model.name, build_start(start, config, dataset.index)
    else:
        named = find_named(config, reporter)
        name, built = named.name, build_named(config, named, dataset.index, reporter)[1]
        if built.new_head or (not config.pretrained and config.weights is None):
            reporter.warn("the classifier has not been trained: the accuracies mean nothing, only the timing does")
    resolutions = _resolutions(config, start)
    for resolution in resolutions:
        run_once(built.network, resolution)
    unreadable = Unreadable(dataset, {}, strict=config.strict, reporter=reporter, listed_in=None)
    results = _sweep(config, built, dataset, resolutions, device, reporter, world, unreadable)
    unreadable.summarise()
    if not world.is_main:
        return
    content: dict[str, Any] = {
        "results": [accuracy.as_json() for accuracy in results],
        "model": name,
        "checkpoint": str(start.path) if start else None,
        "unreadable": unreadable.lines(),
        "synthetic": dataset.synthetic,
        "fingerprint": dataset.index.fingerprint,
        "environment": environment(),
    }
    title = f"{start.title if start else name}, on {dataset.title}"
    print_table(title, accuracy_table(results))
    if config.json is not None:
        write_json(config.json, content)
    plot = _plot_path(config, start)
    plot_sweep(plot, {name: results}, title)
    reporter.line(f"plot: {plot}")


def _open(config: EvaluateConfig, start: Start | None, reporter: Reporter, world: World) -> Dataset:
    """Open the data asked for (all of it, if it has no split of its own), or else what the run was trained on."""
    data, val_fraction = config.data, config.val_fraction
    if start is not None and (data is None or _same(data, start.data)):
        # Never test on what the run was trained on, however its folder is spelt.
        return open_dataset(start.data, val_fraction or start.val_fraction, reporter, world)
    return open_dataset(data, val_fraction or (1.0 if data is not None else None), reporter, world)


def _same(one: Path, other: Path | None) -> bool:
    return other is not None and one.resolve() == other.resolve()


def _resolutions(config: EvaluateConfig, start: Start | None) -> tuple[Resolution, ...]:
    if start is None:
        return parse_resolutions(config.test_res or USUAL_TEST_RES, config.ratio)
    ratio = config.crop_ratio or start.checkpoint.crop_ratio
    return parse_resolutions(config.test_res or str(start.checkpoint.test_res), ratio)


def _sweep(
    config: EvaluateConfig,
    built: BuiltModel,
    dataset: Dataset,
    resolutions: tuple[Resolution, ...],
    device: torch.device,
    reporter: Reporter,
    world: World,
    unreadable: Unreadable,
) -> list[Accuracy]:
    network = built.network.to(device).to(memory_format=torch.channels_last)
    plan = EvaluationPlan(dataset.index, config.batch_size, world.rank, world.size, copies=config.copies)
    results = []
    with open_loader(config, dataset, built.normalisation, device) as loader:
        stream = Stream(loader, [Test(plan, resolution) for resolution in resolutions], unreadable)
        for resolution in resolutions:
            started = time.perf_counter()
            with reporter.bar(f"testing at {resolution.crop_px} px", plan.num_rounds) as bar:
                counts = count_answers(network, stream.part(), plan.num_rounds, bar)
            readable = replace(plan, unreadable=unreadable.rows)
            results.append(total(counts, readable, resolution, world, started))
            stream.share(world)
    return results


def _plot_path(config: EvaluateConfig, start: Start | None) -> Path:
    """Return where the plot goes: as asked, into the run, or into the current folder."""
    if config.plot is not None:
        return config.plot
    folder = Path() if start is None else start.path if start.path.is_dir() else start.path.parent
    return folder / "evaluation.png"
