"""Starting a run folder, and resuming one if settings and data have not changed."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from dali_fixres.checkpoints.checkpoint import Checkpoint, load_checkpoint, rebuild, save_checkpoint
from dali_fixres.config import FinetuneConfig, RunConfig, TrainConfig
from dali_fixres.errors import CheckpointError, ConfigError
from dali_fixres.models import Model
from dali_fixres.runtime.data import Data
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import RunFolder, create_run, reopen_run, run_to_resume
from pipelines.dataset.snapshot import compare, load_snapshot, save_snapshot
from pipelines.processes import num_local

__all__ = ["refuse_changed", "resume", "resume_hint", "resumed_run", "run_folder"]

Resumed = TypeVar("Resumed", TrainConfig, FinetuneConfig)

CHANGEABLE = {
    "epochs", "lr", "base_lr", "batch_size", "checkpoint_every", "device", "decode", "strict", "workers", "data",
}  # fmt: skip
"""Settings that a resumed run may change; the others decide which images it has seen and what was trained on them.
Where the data lies may change too, because its fingerprint is compared."""

OTHER_COPIES = "its resized copies are others"
"""What has changed if the snapshots are equal."""


def resume(run: RunFolder, config: Resumed, data: Data, reporter: Reporter) -> tuple[Resumed, Data, Model, Checkpoint]:
    """Return the settings and the data of the resumed run, and the network and the state of its last checkpoint.

    A crop ratio that is left out is the run's.

    Raises:
        CheckpointError: If there is none, or the data has changed since and that is not accepted.
        ConfigError: If a setting is changed that decides which batches have been seen.
    """
    state = load_checkpoint(run.last)
    config = replace(config, crop_ratio=config.crop_ratio or state.crop_ratio)
    settings = config.stored()
    refuse_changed(run.path, state.config, settings, CHANGEABLE)
    if config.epochs < state.epoch + (state.num_done > 0):
        raise ConfigError(
            f"{run.path} has done {state.epoch} epochs{' and a part of the next' if state.num_done else ''}, more than "
            f"--epochs {config.epochs}; give a larger number"
        )
    unreadable = state.unreadable
    if not all(0 <= row < len(data.dataset) for row in unreadable) and state.fingerprint == data.dataset.fingerprint:
        raise CheckpointError(f"{run.last} names unreadable images that the data set does not have")
    if state.fingerprint != data.dataset.fingerprint:
        data, unreadable = _changed_data(run, state, config, data, reporter)
    reporter.line(
        f"resuming {run.path} after step {state.step}: {state.epoch} epochs and {state.num_done} images of the next"
    )
    reporter.line(f"{state.before or state.data_config}")
    state = replace(state, config=settings, fingerprint=data.dataset.fingerprint, unreadable=unreadable)
    return config, data, rebuild(state, run.last), state


def refuse_changed(path: Path, was: Mapping[str, Any], now: Mapping[str, Any], changeable: AbstractSet[str]) -> None:
    """Raise ConfigError if a run is resumed with other settings than it was begun with, `changeable` ones excepted."""
    changed = sorted(key for key in (was.keys() | now.keys()) - changeable if was.get(key) != now.get(key))
    if changed:
        before = ", ".join(f"{key} = {was.get(key, 'unset')}" for key in changed)
        raise ConfigError(f"{path} was begun with {before}; a resumed run keeps that, so start a new one")


def _changed_data(
    run: RunFolder, state: Checkpoint, config: RunConfig, data: Data, reporter: Reporter
) -> tuple[Data, dict[int, str]]:
    """Return the data to resume, and which of its images are unreadable.

    Where nothing has changed but images that the run skips anyway, that is the data as it was.
    """
    old = replace(load_snapshot(run.data, data.dataset.root), left_out=data.dataset.left_out)
    difference = compare(old, data.dataset)
    if old.fingerprint == state.fingerprint and difference.within(map(old.relative_path, state.unreadable)):
        return replace(data, dataset=old), state.unreadable
    what = f"the data in {data.dataset.root} has changed since {run.last} ({str(difference) or OTHER_COPIES})"
    if state.classes != data.dataset.classes:
        raise CheckpointError(f"{what}; its classes are others now, so start a new run")
    if not config.accept_changed_data:
        raise CheckpointError(f"{what}; resume with --accept-changed-data, or start a new run")
    reporter.warn(f"{what}; resuming with it as it is now; images that have changed are checked again")
    row_of = {data.dataset.relative_path(row): row for row in range(len(data.dataset))}
    reasons = {old.relative_path(row): reason for row, reason in state.unreadable.items() if row < len(old)}
    same = reasons.keys() & row_of.keys() - difference.changed
    return data, {row_of[path]: reasons[path] for path in same}


def resume_hint(command: str, folder: Path, world: World) -> str:
    """Return the words that resume a run that was stopped."""
    nodes = world.size // num_local()
    program = "dali-fixres"
    if world.size > 1:
        program = f"torchrun {f'--nnodes {nodes} ' if nodes > 1 else ''}--nproc-per-node {num_local()} -m dali_fixres"
    return f"{program} {command} --resume --out {folder}"


@contextmanager
def resumed_run(config: RunConfig, command: str, world: World) -> Iterator[RunFolder | None]:
    """Hold the run that ``--resume`` asks for; None where a new one is to begin.

    It is locked before its checkpoint is read, by the one process that will write it.

    Raises:
        CheckpointError: If there is none.
        ConfigError: If another process is writing it.
    """
    if not config.resume:
        yield None
        return
    run = run_to_resume(command, config.out)
    if len(set(world.gather(run.path))) > 1:
        raise ConfigError("the processes do not agree on the newest run; name it with --out")
    run = reopen_run(run.path) if world.is_main else run
    try:
        yield run
    finally:
        run.release()


@contextmanager
def run_folder(
    config: RunConfig, command: str, resumed: RunFolder | None, start: Checkpoint, data: Data, world: World
) -> Iterator[RunFolder | None]:
    """Hold the folder of a run, new or resumed, with its first state, its settings and its snapshot of the data.

    So a run killed in its first epoch can be resumed. Processes other than the first get None: they write nothing.

    Raises:
        ConfigError: If it cannot be written, or another process is writing it.
    """
    if not world.is_main:
        yield None
        return
    run = resumed or create_run(config.out, command, config.stored())
    try:
        run.write_config(command, config.stored())
        # In this order: the snapshot is needed only where the checkpoint is of other data.
        save_checkpoint(run.last, start)
        save_snapshot(run.data, data.dataset)
        yield run
    finally:
        run.release()
