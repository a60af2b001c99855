"""A `fixres` run before its first stage: what it starts from, what is checked, and its folder.

OUT/
    config.toml     settings
    train/          run folder of `train`, unless the run starts from a checkpoint
    before.json     `evaluate --json` of the trained network
    finetune/       run folder of `finetune`
    after.json      `evaluate --json` of the fixed network
    baseline.json   `evaluate --json` of the network to compare with
    report.html     the report, and report.json its figures
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

from dali_fixres.checkpoints import load_checkpoint
from dali_fixres.checkpoints.model_source import StartCheckpoint, find_source, find_start
from dali_fixres.config import EvaluateConfig, FixresConfig, read_toml
from dali_fixres.errors import CheckpointError, ConfigError, ModelError
from dali_fixres.finetuning.trainable import freeze_network
from dali_fixres.models import ModelSpec, build_model
from dali_fixres.models.head import run_once
from dali_fixres.runtime.data import open_data
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import FIXRES, RunFolder, create_run, reopen_run, run_to_resume
from dali_fixres.training.run import DEFAULT_MODEL
from pipelines import Dataset, parse_resolutions

__all__ = ["FixresFolder", "complete_settings", "hold_folder"]

CHANGEABLE = {"checkpoint_every", "data", "device", "strict", "workers"}
"""Settings that may change when a run is resumed: no result of a finished stage depends on them."""


@dataclass(frozen=True, slots=True)
class FixresFolder:
    """The files of a `fixres` run."""

    path: Path
    config: FixresConfig

    @property
    def train(self) -> RunFolder:
        """The training run; missing if the network is given as a checkpoint."""
        return RunFolder(self.path / "train")

    @property
    def trained(self) -> Path:
        """The network to fix: a run folder or a checkpoint file."""
        return self.config.checkpoint or self.train.path

    @property
    def training(self) -> RunFolder:
        """The run that trained this network; the folder of a lone checkpoint file may be none."""
        return RunFolder(self.trained if self.trained.is_dir() else self.trained.parent)

    @property
    def finetune(self) -> RunFolder:
        """The fine-tuning run."""
        return RunFolder(self.path / "finetune")

    @property
    def before(self) -> Path:
        """Accuracies of the trained network."""
        return self.path / "before.json"

    @property
    def after(self) -> Path:
        """Accuracies of the fine-tuned network."""
        return self.path / "after.json"

    @property
    def baseline(self) -> Path:
        """Accuracies of the network to compare with."""
        return self.path / "baseline.json"

    @property
    def sweep(self) -> Path:
        """Plot of all accuracies."""
        return self.path / "sweep.png"

    @property
    def page(self) -> Path:
        """The report."""
        return self.path / "report.html"


def complete_settings(config: FixresConfig, reporter: Reporter, world: World) -> tuple[FixresConfig, int]:
    """Return settings in which nothing is left to be found by a stage, and the training resolution, pixels.

    What would end a later stage is found here, before training.

    Raises:
        UserError: If something the user gave cannot be used.
    """
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
    changed = sorted(key for key in (was.keys() | now.keys()) - CHANGEABLE if was.get(key) != now.get(key))
    if changed:
        said = ", ".join(f"{key} = {was.get(key, 'unset')}" for key in changed)
        raise ConfigError(f"{run.path} was begun with {said}; a resumed run keeps that, so begin a new one")
    run = reopen_run(run.path)
    run.write_config(FIXRES, now)
    return run
