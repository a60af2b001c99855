"""A fine-tuning run: a network is fixed for a higher test resolution (FixRes), and tested before and after."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from dali_fixres.checkpoints import Checkpoint, CheckpointClock
from dali_fixres.checkpoints.model_source import build_source, build_start, find_source, find_start
from dali_fixres.config import CachedFeaturesSettings, FinetuneConfig, FrechetSettings, SgdSettings
from dali_fixres.errors import CheckpointError
from dali_fixres.evaluation.evaluate import Evaluator
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.finetuning.cached_features import tune_on_cached_features
from dali_fixres.finetuning.frechet import map_activations
from dali_fixres.finetuning.start import (
    announce_target,
    refuse_second_mapping,
    refuse_untrained_head,
    with_checkpoint_settings,
)
from dali_fixres.finetuning.trainable import freeze_network, tuning_plan
from dali_fixres.models import Model
from dali_fixres.models.head import run_once
from dali_fixres.runtime.data import Data, open_data
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.precision import choose_precisions
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import BEST, LAST, RunFolder
from dali_fixres.runtime.signals import StopSignals, obeying_signals
from dali_fixres.runtime.skipped import open_batches
from dali_fixres.training.loop import train
from dali_fixres.training.resume import resume, resumed_run, run_folder
from dali_fixres.training.run import evaluate_after
from dali_fixres.training.run_log import RunLog
from dali_fixres.training.setup import announce, build_setup, evaluation_plan, initial_state, move_network
from pipelines import Resolution

__all__ = ["FinetuningResult", "run_finetuning"]


@dataclass(frozen=True, slots=True, eq=False)
class FinetuningResult:
    """Result of a fine-tuning run.

    Attributes:
        config: Its settings.
        folder: The run folder; None in all processes but the first.
        data: What it was tuned on.
        state: At the end.
        num_trained: Trained parameters; 0 if nothing is trained.
        before, after: Accuracies at the network's own test resolution and at the one it is fixed for.
    """

    config: FinetuneConfig
    folder: RunFolder | None
    data: Data
    state: Checkpoint
    num_trained: int
    before: list[Accuracy]
    after: list[Accuracy]


def run_finetuning(
    config: FinetuneConfig,
    device: torch.device,
    world: World,
    report: Callable[[FinetuningResult], None],
    outer_signals: StopSignals | None = None,
) -> None:
    """Fine-tune as one of the processes of `world`; test before and after; leave a run folder.

    Args:
        config: Its settings.
        device: Of this process.
        world: All processes.
        report: Called at the end in all processes, while the run folder is held and signals are obeyed.
        outer_signals: Those of the run that this is a part of.

    Raises:
        UserError: If something the user gave cannot be used.
        RunError: If the run cannot continue.
        Interrupted: If a signal has stopped it; it can be resumed.
    """
    settings = config.settings
    reporter = Reporter(quiet=not world.is_main)
    warns = reporter if outer_signals is None else None  # the run that this is a part of has warned
    precision, eval_precision = choose_precisions(config, device, warns)
    config = replace(config, precision=precision)
    torch.manual_seed(config.seed)
    with resumed_run(config, "finetune", world) as resumed:
        if resumed:
            data = open_data(config.data, config.val_fraction, reporter, world)
            config, data, model, start = resume(resumed, config, data, reporter)
        else:
            config, data, model, start = _begin(config, reporter, world)
        announce_target(config, reporter)
        plan = tuning_plan(config, model.data_config, data, world)
        eval_plan = evaluation_plan(config, model.data_config, data, world)
        tested = start.tests
        for resolution in tested:
            run_once(model.network, resolution)
        network = move_network(model.network, device, sync_bn=config.sync_bn)
        head, trainable = freeze_network(config, network)
        with (
            run_folder(config, "finetune", resumed, start, data, world) as folder,
            open_batches(
                config, data, model.normalisation, device, world, reporter, known=start.unreadable,
                listed_in=folder.unreadable if folder else None,
            ) as batches,
            obeying_signals(world, outer_signals) as signals,
        ):  # fmt: skip
            setup = build_setup(config, network, plan, start, trainable.set_mode, world, device, precision)
            log = RunLog("finetune", folder, world, reporter)
            evaluator = Evaluator(network, batches, eval_plan, world, reporter, signals, eval_precision)
            fitting = replace(evaluator, precision=precision)
            num_epochs = 0 if isinstance(settings, FrechetSettings) else settings.epochs
            announce(log, setup, plan, num_epochs, device, eval_precision, start)
            reporter.line(trainable.summary)
            before = _before(log, evaluator, resumed, tested, start)
            match settings:
                case FrechetSettings():
                    state = map_activations(config, settings, head, fitting, start, log)
                case CachedFeaturesSettings():
                    state = tune_on_cached_features(settings, setup, plan, head, fitting, start, log)
                case SgdSettings():
                    clock = CheckpointClock(*settings.checkpoint_interval)
                    state, _ = train(setup, batches, plan, settings.epochs, start, log, signals, clock)
            after = [evaluate_after(log, evaluator, resolution, state) for resolution in tested]
            top1 = next(accuracy.top1 for accuracy in after if accuracy.resolution == config.test_resolution)
            state = replace(state, top1=top1, best_top1=top1)
            log.save(LAST, state)
            log.save(BEST, state)
            num_trained = 0 if isinstance(settings, FrechetSettings) else trainable.num_parameters
            report(FinetuningResult(config, folder, data, state, num_trained, before, after))


def _begin(config: FinetuneConfig, reporter: Reporter, world: World) -> tuple[FinetuneConfig, Data, Model, Checkpoint]:
    """Find checkpoint, data and network of a new run, and the state before its first epoch."""
    start = find_start(config, "train", reporter)
    if start is not None:
        config = with_checkpoint_settings(config, start)
    data = open_data(config.data, config.val_fraction, reporter, world)
    if start is not None:
        spec, model = start.checkpoint.model, build_start(start, config, data.dataset, reporter)
        refuse_second_mapping(config, start)
    else:
        source = find_source(config, reporter)
        config = replace(config, model=source.name, model_arg=source.model_arg)
        spec, model = build_source(config, source, data.dataset, reporter)
        refuse_untrained_head(config, source.name, model.new_head)
        if source.weights is None and not config.pretrained:
            reporter.warn("a network that has not been trained is fixed; give --weights, --pretrained or --checkpoint")
    own = model.data_config
    config = replace(config, crop_ratio=own.crop_ratio)
    model = replace(model, data_config=own.given("flag", {"test_res": config.test_res}))
    return config, data, model, initial_state("finetune", config, spec, model, data.dataset, own)


def _before(
    log: RunLog, evaluator: Evaluator, resumed: RunFolder | None, tested: list[Resolution], start: Checkpoint
) -> list[Accuracy]:
    """Return the accuracies before the first epoch: those that a resumed run has recorded, or new ones."""
    records = resumed.records() if resumed else []
    rows = [row for row in records if row["event"] == "evaluation" and row["epoch"] == 0]
    known = {accuracy.resolution: accuracy for accuracy in map(Accuracy.from_json, rows)}
    if known.keys() >= set(tested):
        return [known[resolution] for resolution in tested]
    if resumed is not None and (start.step > 0 or start.epoch > 0):
        raise CheckpointError(f"the records of {resumed.path} lack the evaluations before tuning; start a new run")
    return [evaluate_after(log, evaluator, resolution, start) for resolution in tested]
