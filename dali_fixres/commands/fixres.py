"""`dali-fixres fixres`: train low, sweep, fine-tune high, sweep again, report; each stage is a command of its own.

OUT/
    config.toml     settings
    train/          run folder of `train`, unless the run starts from a checkpoint
    before.json     `evaluate --json` of the trained network
    finetune/       run folder of `finetune`
    after.json      `evaluate --json` of the fixed network
    baseline.json   `evaluate --json` of the network to compare with
    report.html     the report, and report.json its figures

Finished stages are not repeated, so a run that was stopped resumes where it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from dali_fixres.checkpoints.checkpoint import load_checkpoint
from dali_fixres.checkpoints.model_source import StartCheckpoint, find_source, find_start
from dali_fixres.config import EvaluateConfig, FixresConfig, read_toml
from dali_fixres.errors import CheckpointError, ConfigError, Interrupted, ModelError
from dali_fixres.evaluation.run import run_evaluation
from dali_fixres.finetuning.run import run_finetuning
from dali_fixres.finetuning.trainable import freeze_network
from dali_fixres.models import ModelSpec, build_model
from dali_fixres.models.head import run_once
from dali_fixres.report.finetuning import report_finetuning
from dali_fixres.report.fixres import FixresFolder, best_resolution, write_report
from dali_fixres.report.sweep import report_sweep
from dali_fixres.report.training import report_training
from dali_fixres.runtime.data import open_data
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import World, process_group
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import FIXRES, RunFolder, create_run, reopen_run, run_to_resume
from dali_fixres.runtime.signals import StopSignals, obeying_signals
from dali_fixres.training.resume import resume_hint
from dali_fixres.training.run import DEFAULT_MODEL, run_training
from pipelines.dataset import Dataset
from pipelines.resolution import parse_resolutions

__all__ = ["fixres"]

CHANGEABLE = {"checkpoint_every", "data", "device", "strict", "workers"}
"""Settings that may change when a run is resumed: no result of a finished stage depends on them."""


def fixres(config: FixresConfig) -> None:
    """Train low, sweep, fine-tune high, sweep again; leave a folder with a report.

    Raises:
        UserError: If something the user gave cannot be used; what can be known beforehand is found before training.
        RunError: If a stage cannot continue.
        Interrupted: If a signal has stopped it; it can be resumed.
    """
    device = choose_device(config.device)
    with process_group(device) as world:
        reporter = Reporter(quiet=not world.is_main)
        start = _start(config, reporter)
        config = _complete(config, start, reporter)
        trained_at = start.checkpoint.train_res if start else config.schedule.last.crop_px
        _check(config, start, trained_at, reporter, world)
        with _held(config, world) as folder, obeying_signals(world) as signals:
            stages = Stages(config, FixresFolder(folder, config), trained_at, device, world, signals, reporter)
            try:
                fixed_for = stages.run()
            except Interrupted as stopped:
                how = resume_hint(FIXRES, folder, world)
                said = f"stopped by a signal; what is done is saved; resume with: {how}" if world.is_main else ""
                raise Interrupted(said) from stopped
            if world.is_main:
                write_report(stages.folder, trained_at, fixed_for, reporter)


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
        recognised = config.model is None and config.weights is not None
        model = find_source(config, reporter).name if recognised else config.model
        return replace(config, crop_ratio=config.ratio, model=model)
    config = replace(config, crop_ratio=config.crop_ratio or start.checkpoint.crop_ratio)
    if config.data is None:
        config = replace(config, data=start.data, val_fraction=config.val_fraction or start.val_fraction)
    return config


def _check(
    config: FixresConfig, start: StartCheckpoint | None, trained_at: int, reporter: Reporter, world: World
) -> None:
    """Find out before training what would end a later stage.

    Raises:
        CheckpointError: If what is to be compared with is no finished training on these classes.
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
        raise CheckpointError(f"--baseline {baseline} knows other classes than {dataset.root} has")


@contextmanager
def _held(config: FixresConfig, world: World) -> Iterator[Path]:
    """Hold the folder of a run, new or begun, in the one process that writes it; all of them are told which it is."""
    run: RunFolder | None = None
    try:
        if world.is_main:
            run = _go_on(config) if config.resume else _new_run(config)
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


def _go_on(config: FixresConfig) -> RunFolder:
    """Hold a run that was begun, if its settings are still the same.

    Raises:
        CheckpointError: If there is none in ``--out``.
        ConfigError: If a setting is changed that finished stages depend on.
    """
    run = run_to_resume(FIXRES, config.out)
    was = read_toml(run.config, {field.name for field in fields(FixresConfig)})
    now = config.stored()
    changed = sorted(key for key in (was.keys() | now.keys()) - CHANGEABLE if was.get(key) != now.get(key))
    if changed:
        said = ", ".join(f"{key} = {was.get(key, 'unset')}" for key in changed)
        raise ConfigError(f"{run.path} was begun with {said}; a resumed run keeps that, so begin a new one")
    run = reopen_run(run.path)
    run.write_config(FIXRES, now)
    return run


@dataclass(frozen=True, slots=True, eq=False)
class Stages:
    """The stages of a FixRes run, in one of its processes."""

    config: FixresConfig
    folder: FixresFolder
    trained_at: int
    device: torch.device
    world: World
    signals: StopSignals
    reporter: Reporter

    def run(self) -> int:
        """Do what is not done yet, and return the resolution that the network is fixed for, pixels.

        Raises:
            Interrupted: If a signal asks for it; what is done is saved.
        """
        folder, config = self.folder, self.config
        sides = config.sweep_resolutions(self.trained_at)
        if config.checkpoint is None and self._begins(folder.train.results, f"training at {config.train_res} px"):
            training = config.train_config(folder.train.path, resume=self._exists(folder.train.last))
            report_training(run_training(training, self.device, self.world, self.signals))
        if self._begins(folder.before, f"testing the trained network at {sides} px"):
            self._sweep(folder.trained, sides, folder.before)
        side = self._fixed_for()
        if self._begins(folder.finetune.results, f"fine-tuning for {side} px"):
            resume = self._exists(folder.finetune.last)
            tuning = config.finetune_config(folder.trained, side, folder.finetune.path, resume=resume)
            report_finetuning(run_finetuning(tuning, self.device, self.world, self.signals))
        if self._begins(folder.after, f"testing the fixed network at {sides} px"):
            self._sweep(folder.finetune.path, sides, folder.after)
        if config.baseline is not None and self._begins(folder.baseline, f"testing {config.baseline} at {sides} px"):
            self._sweep(config.baseline, sides, folder.baseline)
        return side

    def _sweep(self, checkpoint: Path, sides: str, json: Path) -> None:
        config = self.config.evaluate_config(checkpoint, sides, json)
        result = run_evaluation(config, self.device, self.world, self.signals)
        if self.world.is_main:
            report_sweep(config, result)

    def _fixed_for(self) -> int:
        """Return the resolution to fix the network for: as asked, or by the sweep before."""
        if self.config.target is not None:
            return self.config.target
        found = best_resolution(self.folder.before, self.trained_at) if self.world.is_main else 0
        return self.world.gather(found)[0]

    def _begins(self, made: Path, what: str) -> bool:
        """Return whether a stage is still to be done, and announce it if so."""
        if self._exists(made):
            return False
        self.reporter.line(f"== {what}")
        return True

    def _exists(self, path: Path) -> bool:
        """Return whether the process that writes has a file; all processes have to ask."""
        return self.world.gather(path.exists())[0]
