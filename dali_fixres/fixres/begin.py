"""A `fixres` run before its first stage: what it starts from, what is checked, and its folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import torch

from dali_fixres.checkpoints import load_checkpoint
from dali_fixres.checkpoints.model_source import StartCheckpoint, find_source, find_start
from dali_fixres.config import EvaluateConfig, FixresConfig, read_toml
from dali_fixres.errors import CheckpointError, ConfigError, ModelError
from dali_fixres.finetuning.trainable import freeze_network
from dali_fixres.models import ModelSpec, build_model
from dali_fixres.models.head import run_once
from dali_fixres.report.fixres_files import FixresFolder
from dali_fixres.runtime.data import open_data
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.precision import choose_precisions
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import FIXRES, RunFolder, create_run, reopen_run, run_to_resume
from dali_fixres.training.resume import refuse_changed
from dali_fixres.training.run import DEFAULT_MODEL
from pipelines import Dataset, parse_resolutions

__all__ = ["complete_settings", "hold_folder"]

CHANGEABLE = {"checkpoint_every", "data", "decode", "device", "strict", "workers"}
"""Settings that may change when a run is resumed: no result of a finished stage depends on them."""


def complete_settings(
    config: FixresConfig, device: torch.device, reporter: Reporter, world: World
) -> tuple[FixresConfig, int]:
    """Return settings in which nothing is left to be found by a stage, and the training resolution, pixels.

    What would end a later stage is found here, before training.

    Raises:
        UserError: If something the user gave cannot be used.
    """
    precision, _ = choose_precisions(config, device, reporter)
    config = replace(config, precision=precision)
    start = _start(config, reporter)
    config = _complete(config, start, reporter)
    trained_at = start.checkpoint.train_res if start else config.schedule.last.crop_px
    _check(config, start, trained_at, reporter, world)
    return config, trained_at


def _start(config: FixresConfig, reporter: Reporter) -> StartCheckpoint | None:
    """Return the checkpoint that takes the place of training, if there is one.

    Raises:
        CheckpointError: If it is of a network that is fixed already.
    """
    if config.checkpoint is None:
        return None
    start = find_start(EvaluateConfig(checkpoint=config.checkpoint), None, reporter)
    if start is not None and start.checkpoint.command != "train":
        raise CheckpointError(
            f"{start.path} is fixed for {start.checkpoint.test_res} px already; give --checkpoint the run of `train` "
            "that it was made from"
        )
    return start


def _complete(config: FixresConfig, start: StartCheckpoint | None, reporter: Reporter) -> FixresConfig:
    """Fill in what the stages will find out of their data and images, so that they are the same when resumed."""
    if start is None:
        if config.weights is None:
            return config
        source = find_source(config, reporter)
        return replace(config, model=source.name, model_arg=source.model_arg)
    if config.data is None:
        config = replace(config, data=start.data, val_fraction=config.val_fraction or start.val_fraction)
    return config


def _check(
    config: FixresConfig, start: StartCheckpoint | None, trained_at: int, reporter: Reporter, world: World
) -> None:
    """Find out before training what would end a later stage.

    Raises:
        CheckpointError: If what is to be compared with is not a finished training on these classes.
        ModelError: If the network takes one of the resolutions not, or cannot be tuned as asked.
    """
    dataset = open_data(config.data, config.val_fraction, reporter, world).dataset
    if config.baseline is not None:
        _check_baseline(config.baseline, dataset)
    spec = ModelSpec(config.model or DEFAULT_MODEL, len(dataset.classes), config.model_arg)
    network = build_model(start.checkpoint.model if start else spec).network
    try:
        for resolution in parse_resolutions(config.sweep_resolutions(trained_at), config.ratio):
            run_once(network, resolution)
    except ModelError as error:
        raise ModelError(f"{error}; name sizes that it takes with --sweep and --test-res") from error
    freeze_network(config.finetune_config(Path(), config.target or trained_at, Path(), resume=False), network)


def _check_baseline(baseline: Path, dataset: Dataset) -> None:
    if not RunFolder(baseline).results.exists():
        raise CheckpointError(f"--baseline takes the folder of a finished `train` run; {baseline} has no results.json")
    other = load_checkpoint(baseline)
    if other.command != "train":
        raise CheckpointError(f"--baseline takes the folder of a `train` run; {baseline} is one of `{other.command}`")
    if other.classes != dataset.classes:
        raise CheckpointError(f"--baseline {baseline} has other classes than {dataset.root}")


@contextmanager
def hold_folder(config: FixresConfig, world: World) -> Iterator[Path]:
    """Hold the folder of a run, new or begun, in the one process that writes it; all of them get its path."""
    run: RunFolder | None = None
    try:
        if world.is_main:
            run = _resume(config) if config.resume else _new_run(config)
        (path, *_) = world.gather(run.path if run else None)
        assert path is not None, "the first process has it"
        yield path
    finally:
        if run is not None:
            run.release()


def _new_run(config: FixresConfig) -> RunFolder:
    """Make and hold the folder of a run, if nothing in it would be taken for one of its stages.

    Raises:
        ConfigError: If there is something, or it cannot be made.
    """
    if config.out is not None:
        stages = FixresFolder(config.out, config)
        places = (stages.train.path, stages.before, stages.finetune.path, stages.after, stages.baseline)
        if there := [path.name for path in places if path.exists()]:
            raise ConfigError(
                f"{config.out} holds {', '.join(there)} already, which would be taken for this run's; give another "
                "--out, or --resume to resume a run"
            )
    return create_run(config.out, FIXRES, config.stored())


def _resume(config: FixresConfig) -> RunFolder:
    """Hold a run that was begun, if its settings are still the same.

    Raises:
        CheckpointError: If there is none in ``--out``.
        ConfigError: If a setting is changed that finished stages depend on.
    """
    run = run_to_resume(FIXRES, config.out)
    was = read_toml(run.config, {field.name for field in fields(FixresConfig)})
    now = config.stored()
    refuse_changed(run.path, was, now, CHANGEABLE)
    run = reopen_run(run.path)
    run.write_config(FIXRES, now)
    return run
