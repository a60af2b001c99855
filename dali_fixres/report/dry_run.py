"""`--dry-run` of `train` and `finetune`: what they would do, from the same plans and a meta-device model."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.table import Table
from torch import nn

from dali_fixres.checkpoints.model_source import (
    check_classes,
    data_config_of_source,
    data_config_of_start,
    find_source,
    find_start,
)
from dali_fixres.config import CachedFeaturesSettings, FinetuneConfig, FrechetSettings, TrainConfig
from dali_fixres.finetuning.cached_features import passes_for_features
from dali_fixres.finetuning.features import FeaturePass
from dali_fixres.finetuning.frechet import passes_to_fit
from dali_fixres.finetuning.start import (
    announce_target,
    refuse_second_mapping,
    refuse_untrained_head,
    with_checkpoint_settings,
)
from dali_fixres.finetuning.trainable import freeze_network, tuning_plan
from dali_fixres.models import DataConfig, Head, ModelSpec, build_on_meta, fit_or_fail
from dali_fixres.models.build import num_parameters
from dali_fixres.models.head import count_gmacs
from dali_fixres.models.position_embeddings import interpolated
from dali_fixres.report.json_files import DryRunFile, DryRunPass, DryRunPhase
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.data import Data, open_data
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.precision import choose_precisions
from dali_fixres.runtime.progress import Reporter
from dali_fixres.training.optimizer import LearningRate
from dali_fixres.training.setup import announce_drawn_filter, learning_rate, training_plan
from pipelines.dataset import VAL, Dataset
from pipelines.plan import EvalPlan, TrainPlan
from pipelines.processes import num_processes
from pipelines.resolution import Resolution
from pipelines.storage.files import write_json

__all__ = ["dry_run_of_finetune", "dry_run_of_train"]


@dataclass(frozen=True, slots=True)
class _DryRun:
    """A run that is only described.

    Attributes:
        spec: Its network.
        network: The same, on the meta device.
        what_is_trained: In words.
        num_trained: Parameters that train.
        tests: The resolution of each test.
        passes: Images that go through the network once before the first epoch, without training.
        num_epochs: Of training.
        formats: Device and number formats, in words.
        classifier: The only layer that runs in the epochs; None if the whole network does.
    """

    spec: ModelSpec
    network: nn.Module
    what_is_trained: str
    num_trained: int
    tests: tuple[Resolution, ...]
    num_epochs: int
    formats: str
    passes: tuple[FeaturePass, ...] = ()
    classifier: nn.Module | None = None


def dry_run_of_train(config: TrainConfig) -> None:
    """Describe what `train` would do.

    Raises:
        UserError: If something the user gave cannot be used.
    """
    reporter, world = _surroundings()
    formats = _formats(config, reporter)
    data = open_data(config.data, config.val_fraction, reporter)
    spec, network, data_config = _named(config, data.dataset, reporter)
    config = replace(config, crop_ratio=data_config.crop_ratio)
    plan = training_plan(config, data_config, data, "train", config.schedule, world, config.aug_repeats)
    num_trained = num_parameters(network)
    tests = (config.test_resolution,) * config.epochs
    if config.schedule.last != config.test_resolution:
        tests += (config.schedule.last,)
    what_is_trained = f"training all layers: {num_trained} parameters"
    run = _DryRun(spec, network, what_is_trained, num_trained, tests, config.epochs, formats)
    _report(config, data, plan, run, reporter)


def dry_run_of_finetune(config: FinetuneConfig) -> None:
    """Describe what `finetune` would do.

    Raises:
        UserError: If something the user gave cannot be used.
    """
    reporter, world = _surroundings()
    formats = _formats(config, reporter)
    start = find_start(config, "train", reporter)
    if start is not None:
        config = with_checkpoint_settings(config, start)
    data = open_data(config.data, config.val_fraction, reporter)
    if start is not None:
        check_classes(start, data.dataset)
        refuse_second_mapping(config, start)
        spec = start.checkpoint.model
        network = build_on_meta(spec).network
        own = data_config_of_start(start, config, reporter)
    else:
        spec, network, own = _named(config, data.dataset, reporter)
    config = replace(config, crop_ratio=own.crop_ratio)
    announce_target(config, reporter)
    plan = tuning_plan(config, own, data, world)
    head, trainable = freeze_network(config, network)
    tests = sorted({own.test_resolution, config.test_resolution})
    settings = config.settings
    trains = not isinstance(settings, FrechetSettings)
    run = _DryRun(
        spec,
        network,
        trainable.summary,
        num_trained=trainable.num_parameters if trains else 0,
        tests=(*tests, *tests),
        num_epochs=config.epochs if trains else 0,
        formats=formats,
        passes=_passes(config, plan, head, own),
        classifier=head.classifier if isinstance(settings, CachedFeaturesSettings) else None,
    )
    _report(config, data, plan, run, reporter)


def _passes(config: FinetuneConfig, plan: TrainPlan, head: Head, own: DataConfig) -> tuple[FeaturePass, ...]:
    """Return the passes that the method makes before its epochs."""
    evaluation, settings = EvalPlan(plan.dataset, config.batch_size), config.settings
    if isinstance(settings, FrechetSettings):
        return tuple(passes_to_fit(config, settings, evaluation, own))
    if isinstance(settings, CachedFeaturesSettings):
        statistics, views = passes_for_features(settings, evaluation, plan, head)
        plans = views if statistics is None else [statistics, *views]
        return tuple(FeaturePass(one, config.test_resolution) for one in plans)
    return ()


def _surroundings() -> tuple[Reporter, World]:
    """Return reporter and number of processes; no process group is needed."""
    rank = int(os.environ.get("RANK", "0"))
    return Reporter(quiet=rank > 0), World(rank, num_processes())


def _formats(config: TrainConfig | FinetuneConfig, reporter: Reporter) -> str:
    """Say on what device and in which number formats it would run.

    Raises:
        DeviceError: If there is no such device.
        ConfigError: If it lacks a format.
    """
    device = choose_device(config.device)
    precision, eval_precision = choose_precisions(config, device, reporter)
    return f"would run on {device}; network in {precision}, tests in {eval_precision}"


def _named(
    config: TrainConfig | FinetuneConfig, dataset: Dataset, reporter: Reporter
) -> tuple[ModelSpec, nn.Module, DataConfig]:
    """Build a network by name on the meta device, and check that the weights file fits it."""
    named = find_source(config, reporter)
    spec = ModelSpec(named.name, len(dataset.classes), named.model_arg)
    model = build_on_meta(spec)
    network = model.network
    start = "pretrained weights" if config.pretrained else "random weights"
    if named.weights is not None:
        path = str(named.weights.path)
        fit = fit_or_fail(network.state_dict(), interpolated(network, named.weights.state, path), path)
        if isinstance(config, FinetuneConfig):
            refuse_untrained_head(config, named.name, fit.head)
        start = f"weights of {named.weights}"
    reporter.line(f"network: {named.name}, {num_parameters(network) / 1e6:.2f} M parameters, {start}")
    return spec, network, data_config_of_source(config, named, model, reporter)


def _report(
    config: TrainConfig | FinetuneConfig, data: Data, plan: TrainPlan, run: _DryRun, reporter: Reporter
) -> None:
    """Print the description, and write it as JSON if asked for."""
    if plan.rank > 0:
        return
    trained = {plan.schedule.at(epoch) for epoch in range(run.num_epochs)}
    seen = trained.union(run.tests, (one.resolution for one in run.passes))
    gmacs = {one.crop_px: count_gmacs(run.network, one) for one in seen}
    passes: list[DryRunPass] = [
        {"res": side, "images": one.plan.num_images, "gmacs": gmacs[side]}
        for one in run.passes
        for side in (one.resolution.crop_px,)
    ]
    in_training = gmacs
    if run.classifier is not None:  # one multiplication per parameter
        in_training = dict.fromkeys(gmacs, num_parameters(run.classifier) / 1e9)
    phases = _phases(run.num_epochs, plan, learning_rate(config, plan), in_training) if run.num_epochs else []
    announce_drawn_filter(plan, reporter)
    num_tested = len(data.dataset.rows(VAL)) * len(run.tests)
    reporter.line(run.formats)
    reporter.line(run.what_is_trained)
    print_table(f"{run.spec.name} on {data.title}: what would be done", _table(passes, phases))
    sides = ", ".join(f"{side} px" for side in sorted({one.crop_px for one in run.tests}))
    reporter.line(f"tests: {len(run.tests)}, at {sides}, of {num_tested} images in all")
    if config.json is not None:
        content: DryRunFile = {
            "model": run.spec.name,
            "num_classes": run.spec.num_classes,
            "parameters": num_parameters(run.network),
            "trained_parameters": run.num_trained,
            "what_is_trained": run.what_is_trained,
            "processes": plan.world_size,
            "passes": passes,
            "phases": phases,
            "tests": [{"test_res": one.crop_px, "gmacs": gmacs[one.crop_px]} for one in sorted(set(run.tests))],
            "test_images": num_tested,
        }
        write_json(config.json, content)


def _phases(num_epochs: int, plan: TrainPlan, rate: LearningRate, gmacs: dict[int, float]) -> list[DryRunPhase]:
    """Describe the epochs by resolution and batch size, and by learning rate where it falls in steps."""
    falls = {epoch for epoch in range(1, num_epochs) if plan.steps_before(epoch) in (rate.drops or ())}
    firsts = sorted(falls.union(phase.first_epoch for phase in plan.schedule.phases))
    phases: list[DryRunPhase] = []
    for first, end in zip(firsts, [*firsts[1:], num_epochs], strict=True):
        first_step, end_step = plan.steps_before(first), plan.steps_before(end)
        side, batch = plan.schedule.at(first).crop_px, plan.global_batch(first)
        phases.append(
            {
                "epochs": [first + 1, end],
                "res": side,
                "global_batch": batch,
                "steps": end_step - first_step,
                "first_lr": rate.at(first_step),
                "last_lr": rate.at(end_step - 1),
                "images": (end_step - first_step) * batch,
                "gmacs": gmacs[side],
            }
        )
    return phases


def _table(passes: Sequence[DryRunPass], phases: Sequence[DryRunPhase]) -> Table:
    table = Table()
    headings = (
        "epochs",
        "px",
        "global batch",
        "steps",
        "lr, first step",
        "lr, last step",
        "images",
        "GMACs an image",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for one in passes:
        table.add_row("once", str(one["res"]), "", "", "", "", str(one["images"]), f"{one['gmacs']:.4g}")
    for phase in phases:
        first, last = phase["epochs"]
        _, *values = phase.values()
        cells = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
        table.add_row(f"{first}-{last}", *cells)
    return table
