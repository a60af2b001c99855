"""Running an evaluation: which network, which data, which settings; or counting saved outputs again."""

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dali_fixres.checkpoints.model_source import StartCheckpoint, build_to_test, find_start
from dali_fixres.config import EvaluateConfig
from dali_fixres.errors import ConfigError, DataError
from dali_fixres.evaluation.evaluate import Evaluator
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.evaluation.predictions import Origin, SavedOutputs, find_outputs, new_folder, save_origin
from dali_fixres.evaluation.real import RealLabels, read_real
from dali_fixres.evaluation.sweep import Sweep, costs_of, folder_of
from dali_fixres.models import DataConfig
from dali_fixres.models.class_map import map_classes, read_names
from dali_fixres.runtime.data import Data, open_data
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.environment import environment
from dali_fixres.runtime.precision import choose_precision
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.signals import StopSignals
from dali_fixres.runtime.skipped import open_batches, unreadable_lines
from pipelines import VAL, Dataset, EvalPlan
from pipelines.plan.views import Setting, parse_views
from pipelines.resolution import parse_ratios, parse_resolutions

__all__ = ["EvaluationResult", "count_saved_outputs", "run_evaluation"]


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Result of an evaluation.

    Attributes:
        origin: What was tested on which data.
        results: One accuracy for each setting.
        before: Results of an earlier call, to draw beside these.
        plot: Where the plot goes.
    """

    origin: Origin
    results: list[Accuracy]
    before: list[Accuracy]
    plot: Path


def run_evaluation(
    config: EvaluateConfig, device: torch.device, world: World, signals: StopSignals | None = None
) -> EvaluationResult:
    """Test a network as one of the processes of `world`.

    Args:
        config: What is tested.
        device: Of this process.
        world: All processes.
        signals: Those of the run that this is a part of; without any, signals end the process.

    Raises:
        UserError: If something the user gave cannot be used.
        Interrupted: If a signal asks to stop.
    """
    reporter = Reporter(quiet=not world.is_main)
    warns = reporter if signals is None else None  # the run that this is a part of has warned
    precision = choose_precision(config.eval_precision, device, "--eval-precision", warns)
    torch.manual_seed(config.seed)
    start = find_start(config, None, reporter)
    data, val_fraction = _open(config, start, reporter, world)
    dataset = data.dataset
    before = _read_before(config.before, dataset.fingerprint)
    name, model, class_map = build_to_test(config, start, dataset, reporter)
    costs = costs_of(model.network, _settings(config, model.data_config))
    plan = EvalPlan(dataset, config.batch_size, world.rank, world.size, copies=config.copies)
    real = _real(config, dataset, class_map.num_outputs)
    network = model.network.to(device).to(memory_format=torch.channels_last)
    saves = config.save_outputs is not None
    with (
        new_folder(config.save_outputs) if config.save_outputs and world.is_main else nullcontext() as save_to,
        open_batches(config, data, model.normalisation, device, world, reporter) as batches,
    ):
        reporter.line(f"testing {name} on {device} in {precision}")
        evaluator = Evaluator(network, batches, plan, world, reporter, signals, precision)
        results = Sweep(evaluator, model.data_config, costs, class_map, config.only_mapped, real).run(
            save_to, saves=saves
        )
        origin = Origin(
            title=f"{start.title if start else name}, on {data.title}",
            model=name,
            checkpoint=str(start.path) if start else None,
            eval_precision=precision,
            val_fraction=val_fraction,
            classes=dataset.classes,
            class_map=class_map,
            data_config=model.data_config,
            fingerprint=dataset.fingerprint,
            synthetic=data.synthetic,
            unreadable=tuple(unreadable_lines(dataset, batches.skipped.reasons)),
            environment=environment(),
        )
        if save_to is not None:
            for accuracy in results:
                save_origin(folder_of(save_to, accuracy.setting, tuple(costs)), origin, accuracy)
    return EvaluationResult(origin, results, before, _plot_path(config, start))


def count_saved_outputs(config: EvaluateConfig, folder: Path) -> EvaluationResult:
    """Count saved outputs again, without a network.

    Raises:
        UserError: If they cannot be read, or something the user gave does not fit them.
    """
    reporter = Reporter()
    found = find_outputs(folder)
    origin = found[0].origin
    if config.data is not None:
        data = open_data(config.data, config.val_fraction or origin.val_fraction or 1.0, reporter)
        if data.dataset.fingerprint != origin.fingerprint:
            raise DataError(
                f"{folder} holds outputs of another data set (fingerprint {origin.fingerprint[:12]}) than "
                f"{config.data} ({data.dataset.fingerprint[:12]}); leave --data out, or run evaluate on it"
            )
    if config.class_map is not None:
        class_map = map_classes(read_names(config.class_map), origin.classes, str(config.class_map))
        if class_map.num_outputs != origin.class_map.num_outputs:
            raise DataError(
                f"--class-map {config.class_map} names {class_map.num_outputs} outputs, and those in {folder} are "
                f"{origin.class_map.num_outputs}"
            )
        origin = replace(origin, class_map=class_map)
    before = _read_before(config.before, origin.fingerprint)
    results = [_count(config, saved, origin) for saved in found]
    return EvaluationResult(origin, results, before, config.plot or folder / "evaluation.png")


def _read_before(path: Path | None, fingerprint: str) -> list[Accuracy]:
    """Read the results of an earlier call, to draw them beside this one's; none without a path.

    Raises:
        ConfigError: If the file is not what ``evaluate --json`` writes, or is about other data.
    """
    if path is None:
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        results = [Accuracy.from_json(row) for row in content["results"]]
        other = content["fingerprint"]
    except OSError as error:
        raise ConfigError(f"cannot read --before {path}: {error.strerror}") from error
    except KeyError as error:
        raise ConfigError(f"--before {path} is not what evaluate --json writes: it lacks {error}") from error
    except (ValueError, TypeError, AttributeError, ConfigError) as error:
        raise ConfigError(f"--before {path} is not what evaluate --json writes: {error}") from error
    if other != fingerprint:
        raise ConfigError(
            f"--before {path} is of another data set (fingerprint {other[:12]}) than this one ({fingerprint[:12]})"
        )
    return results


def _count(config: EvaluateConfig, saved: SavedOutputs, origin: Origin) -> Accuracy:
    outputs, real = saved.read(), None
    if config.real is not None:
        real = read_real(config.real, outputs.paths.tolist(), origin.class_map.num_outputs)
    counts = outputs.counts(origin.class_map, only_mapped=config.only_mapped, real=real)
    top1, top5, _, real_top1, real_images = counts.tolist()
    return replace(saved.accuracy, num_top1=top1, num_top5=top5, num_real_top1=real_top1, num_real_images=real_images)


def _open(
    config: EvaluateConfig, start: StartCheckpoint | None, reporter: Reporter, world: World
) -> tuple[Data, float | None]:
    """Open the data asked for (all of it, if it has no split of its own), or else what the run was trained on.

    Returns:
        It, and what share of it is tested on, where it does not say itself.
    """
    data, val_fraction = config.data, config.val_fraction
    if start is not None and (data is None or _same(data, start.data)):
        # Never test on what the run was trained on, however its folder is spelt.
        data, val_fraction = start.data, val_fraction or start.val_fraction
    else:
        val_fraction = val_fraction or (1.0 if data is not None else None)
    return open_data(data, val_fraction, reporter, world), val_fraction


def _same(one: Path, other: Path | None) -> bool:
    return other is not None and one.resolve() == other.resolve()


def _settings(config: EvaluateConfig, data_config: DataConfig) -> tuple[Setting, ...]:
    """Return all combinations of what is asked for, by resolution, crop ratio and number of views.

    Raises:
        ConfigError: If views are asked for that the network's test crop does not have.
    """
    ratios = parse_ratios(config.crop_ratio) if config.crop_ratio else (data_config.crop_ratio,)
    sides, all_views = config.test_res or str(data_config.test_res), parse_views(config.views or "single")
    if data_config.crop_mode == "squash" and "ten-crop" in all_views:
        raise ConfigError("--views ten-crop crops corners, and this network's images are squashed; take single or flip")
    resolutions = {resolution for ratio in ratios for resolution in parse_resolutions(sides, ratio)}
    settings = [Setting(resolution, views) for resolution in resolutions for views in all_views]
    return tuple(sorted(settings, key=lambda setting: setting.order))


def _real(config: EvaluateConfig, dataset: Dataset, num_outputs: int) -> RealLabels | None:
    if config.real is None:
        return None
    return read_real(config.real, [dataset.relative_path(row) for row in dataset.rows(VAL).tolist()], num_outputs)


def _plot_path(config: EvaluateConfig, start: StartCheckpoint | None) -> Path:
    """Return where the plot goes: as asked, into the run, or into the current folder."""
    if config.plot is not None:
        return config.plot
    folder = Path() if start is None else start.path if start.path.is_dir() else start.path.parent
    return folder / "evaluation.png"
