"""`dali-fixres finetune`: fix a network for a higher test resolution (FixRes)."""

from dataclasses import replace
from typing import Any

import torch

from dali_fixres.config import FinetuneConfig
from dali_fixres.errors import CheckpointError
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.finetuning.cached_features import tune_in_one_pass
from dali_fixres.finetuning.frechet import adapt_activations
from dali_fixres.models import Head, Model
from dali_fixres.models.head import run_once
from dali_fixres.report.dry_run import dry_run_of_finetune
from dali_fixres.report.plots import plot_curves, plot_sweep
from dali_fixres.report.tables import before_after_table, print_table
from dali_fixres.runtime.data import Data, open_data, open_loader
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import World, joined
from dali_fixres.runtime.environment import environment
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import BEST, LAST, RunFolder
from dali_fixres.runtime.signals import StopSignals, obeying_signals
from dali_fixres.training.checkpoint import Checkpoint, CheckpointClock
from dali_fixres.training.model_source import (
    USUAL_TRAIN_RES,
    build_source,
    build_start,
    find_source,
    find_start,
    refuse_second_mapping,
    refuse_untrained_head,
    trained_at,
    with_checkpoint_settings,
)
from dali_fixres.training.resume import resume, run_folder, run_to_go_on_with
from dali_fixres.training.setup import build_learner, freeze_network, initial_state, prepare, tuning_plan
from dali_fixres.training.stage import Stage, measure, run_stage
from dali_fixres.training.unreadable import Unreadable
from pipelines.plan import EvalPlan
from pipelines.resolution import Resolution
from pipelines.storage.files import write_json

__all__ = ["finetune", "finetune_among"]


def finetune(config: FinetuneConfig) -> None:
    """Tune classifier and last norm at the test resolution; test before and after; leave a run folder.

    Raises:
        UserError: If something the user gave cannot be used.
        RunError: If the run cannot go on.
        Interrupted: If a signal has stopped it; it can be resumed.
    """
    if config.dry_run:
        dry_run_of_finetune(config)
        return
    device = choose_device(config.device)
    with joined(device) as world:
        finetune_among(config, device, world)


def finetune_among(
    config: FinetuneConfig, device: torch.device, world: World, stop_signals: StopSignals | None = None
) -> None:
    """Fine-tune as one of the processes of `world`; `orders` are those of what this is a part of."""
    config = replace(config, method=config.chosen)
    if config.method != "frechet":
        config = replace(config, base_lr=config.rate, policy=config.tuned)
    with run_to_go_on_with(config, "finetune", world) as resumed:
        _finetune(config, resumed, device, world, stop_signals)


def _finetune(
    config: FinetuneConfig, resumed: RunFolder | None, device: torch.device, world: World, outer: StopSignals | None
) -> None:
    reporter = Reporter(quiet=not world.is_main)
    torch.manual_seed(config.seed)
    if resumed:
        data = open_data(config.data, config.val_fraction, reporter, world)
        data, built, start = resume(resumed, config, data, reporter)
    else:
        config, data, built, start = _begin(config, reporter, world)
    plan = tuning_plan(config, data, world)
    evaluation = EvalPlan(data.dataset, config.batch_size, world.rank, world.size, copies=config.copies)
    tested = sorted({Resolution(start.train_res, config.ratio), config.test_resolution})
    for resolution in tested:
        run_once(built.network, resolution)
    network = prepare(built.network, device, sync_bn=config.sync_bn)
    head, tuned, what_learns = freeze_network(config, network)
    with (
        run_folder(config, "finetune", resumed, start, data, world) as run,
        open_loader(config, data, built.normalisation, device, world, reporter) as loader,
        obeying_signals(world, outer) as stop_signals,
    ):
        listed_in = run.unreadable if run else None
        unreadable = Unreadable(data, start.unreadable, strict=config.strict, reporter=reporter, listed_in=listed_in)
        learner = build_learner(config, network, plan, start, tuned.set_mode, world, device)
        num_epochs = 0 if config.method == "frechet" else config.epochs
        stage = Stage(
            "finetune", learner, loader, plan, evaluation, config.test_resolution, num_epochs,
            evaluates=False, unreadable=unreadable, clock=CheckpointClock(*config.checkpoint_interval), stop_signals=stop_signals,
            world=world, run=run, reporter=reporter,
        )  # fmt: skip
        stage.announce(device, start)
        reporter.line(what_learns)
        before = _before(stage, resumed, tested, start)
        state = _tune(stage, config, head, start)
        after = [measure(stage, resolution, state) for resolution in tested]
        top1 = next(accuracy.top1 for accuracy in after if accuracy.resolution == config.test_resolution)
        final = replace(state, top1=top1, best_top1=top1)
        stage.save(LAST, final)
        stage.save(BEST, final)
        unreadable.summarise()
        if run is not None:
            _report(config, run, data, final, tuned.num_parameters, (before, after))


def _begin(config: FinetuneConfig, reporter: Reporter, world: World) -> tuple[FinetuneConfig, Data, Model, Checkpoint]:
    """Find checkpoint, data and network of a new run, and the state before its first epoch."""
    source = find_start(config, "train", reporter)
    if source is not None:
        config = with_checkpoint_settings(config, source)
    data = open_data(config.data, config.val_fraction, reporter, world)
    if source is not None:
        spec, built = source.checkpoint.model, build_start(source, config, data.dataset)
        refuse_second_mapping(config, source)
    else:
        named = find_source(config, reporter)
        config = replace(config, model=named.name)
        spec, built = build_source(config, named, data.dataset, reporter)
        refuse_untrained_head(config, named.name, built.new_head)
        if config.train_res is None:
            reporter.line(f"taken to have been trained at {USUAL_TRAIN_RES} px; --train-res says otherwise")
        if named.weights is None and not config.pretrained:
            reporter.warn("a network that has not been trained is fixed; give --weights, --pretrained or --checkpoint")
    state = initial_state("finetune", config, trained_at(config, source), spec, built, data.dataset)
    return config, data, built, state


def _tune(stage: Stage, config: FinetuneConfig, head: Head, start: Checkpoint) -> Checkpoint:
    """Do what the method says; return the state after it."""
    if config.method == "frechet":
        return adapt_activations(stage, config, head, start)
    if config.method == "one-pass":
        return tune_in_one_pass(stage, config, head, start)
    return run_stage(stage, start)[0]


def _before(stage: Stage, resumed: RunFolder | None, tested: list[Resolution], start: Checkpoint) -> list[Accuracy]:
    """Return the evaluations before the first epoch: those that a resumed run has recorded, or new ones."""
    records = resumed.records() if resumed else []
    rows = [row for row in records if row["event"] == "evaluation" and row["epoch"] == 0]
    known = {accuracy.resolution: accuracy for accuracy in map(Accuracy.from_json, rows)}
    if known.keys() >= set(tested):
        return [known[resolution] for resolution in tested]
    if resumed is not None and (start.step > 0 or start.epoch > 0):
        raise CheckpointError(f"the records of {resumed.path} lack the evaluations before tuning; start a new run")
    return [measure(stage, resolution, start) for resolution in tested]


def _report(
    config: FinetuneConfig,
    run: RunFolder,
    data: Data,
    state: Checkpoint,
    num_tuned: int,
    tested: tuple[list[Accuracy], list[Accuracy]],
) -> None:
    """Print the table, write results.json and the plots."""
    before, after = tested
    seconds = sum(record["seconds"] for record in run.records() if record["event"] in {"pass", "epoch"})
    content: dict[str, Any] = {
        "before": [accuracy.as_json() for accuracy in before],
        "after": [accuracy.as_json() for accuracy in after],
        "seconds": round(seconds, 1),
        "tuned_parameters": 0 if config.method == "frechet" else num_tuned,
        "checkpoint": str(config.checkpoint) if config.checkpoint else None,
        "synthetic": data.synthetic,
        "fingerprint": data.dataset.fingerprint,
        "environment": environment(),
    }
    if config.method == "frechet":
        fits = next(record for record in run.records() if record["event"] == "pass")
        content["frechet"] = {view: fits[view] for view in ("trained", "tested")}
    title = f"{state.model.name} fixed for {config.test_res} px on {data.title}"
    print_table(title, before_after_table(before, after))
    write_json(run.results, content)
    if config.json is not None:
        write_json(config.json, content)
    plot_curves(run.curves, run.records(), title)
    plot_sweep(run.path / "before_after.png", {"before": before, "after": after}, title)
    Reporter().line(f"tuning took {seconds / 60:.1f} minutes; checkpoints, records and plots in {run.path}")
    sides = ",".join(str(accuracy.resolution.crop_px) for accuracy in after)
    Reporter().line(f"next: dali-fixres evaluate --checkpoint {run.path} --test-res {sides},… for other resolutions")
