"""Checkpoints: everything needed to resume a run or to use its network, in one file of plain types and tensors."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from dali_fixres.errors import CheckpointError, ConfigError, TrainingDivergedError
from dali_fixres.models import DataConfig, Model, ModelSpec, build_model, load_into
from dali_fixres.models.weights import StateDict, read_torch_file
from dali_fixres.runtime.run_folder import BEST, LAST
from pipelines.resolution import Resolution
from pipelines.storage.atomic import replacing

__all__ = [
    "Checkpoint",
    "CheckpointClock",
    "EpochStatistics",
    "checkpoint_file",
    "load_checkpoint",
    "load_trained",
    "rebuild",
    "save_checkpoint",
]

FORMAT = 5


@dataclass(frozen=True, slots=True)
class EpochStatistics:
    """Sums over the part of an epoch that is done.

    Attributes:
        loss_sum: Over its images.
        num_images: Images trained on.
        seconds: Wall time.
        waited_s: Part of it spent waiting for batches.
    """

    loss_sum: float = 0.0
    num_images: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0

    def __str__(self) -> str:
        """Return mean loss, throughput and share of waiting."""
        speed, waiting = self.num_images / self.seconds, self.waited_s / self.seconds
        return f"loss {self.loss_sum / self.num_images:.3f}  {speed:.0f} img/s  waiting for data {waiting:.0%}"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The state of a run between two steps.

    There is no random state in it: whatever is random is a function of seed, epoch, step and rank.

    Attributes:
        command: ``train`` or ``finetune``.
        model: How to build the network.
        state_dict: Its tensors.
        data_config: The images it takes; tested at `test_res` of it, which for ``finetune`` is what it is fixed for.
        before: The images that a network to be fixed took before; None with ``train``.
        classes: Class names in label order.
        fingerprint: Of the data set it was trained on.
        config: `Config.stored` of the command.
        epoch: Epochs done.
        global_batch: Images of its last step over all processes; 0 before the first.
        num_done: Positions of the next epoch that are done, see `TrainPlan`.
        statistics: Their statistics.
        step: Optimiser steps done, over all epochs.
        optimizer: The optimiser's state.
        scaler: The gradient scaler's state; empty where nothing is scaled.
        unreadable: What is wrong with images that could not be read, by row of the data set.
        top1: Of the last evaluation, percent; None before the first.
        best_top1: The best so far.
    """

    command: str
    model: ModelSpec
    state_dict: StateDict
    data_config: DataConfig
    before: DataConfig | None
    classes: tuple[str, ...]
    fingerprint: str
    config: dict[str, Any]
    epoch: int
    global_batch: int
    num_done: int
    statistics: EpochStatistics
    step: int
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    unreadable: dict[int, str]
    top1: float | None
    best_top1: float | None

    @property
    def train_res(self) -> int:
        """Its (last) training resolution, pixels."""
        return self.data_config.train_res

    @property
    def test_res(self) -> int:
        """The resolution it was tested at, pixels."""
        return self.data_config.test_res

    @property
    def crop_ratio(self) -> float:
        """Of that test."""
        return self.data_config.crop_ratio

    @property
    def tests(self) -> list[Resolution]:
        """Where fine-tuning tests: at the network's own test size and at the one it is fixed for, ascending."""
        return sorted({(self.before or self.data_config).test_resolution, self.data_config.test_resolution})


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in one atomic step: a kill leaves the old file or the new one, never half of one.

    Raises:
        TrainingDivergedError: If a tensor of the network is not finite; a good checkpoint is not replaced by it.
        SaveError: If it cannot be written; the checkpoint before is intact.
    """
    broken = [name for name, tensor in checkpoint.state_dict.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise TrainingDivergedError(
            f"{broken[0]} has numbers that are not finite by step {checkpoint.step}; {path} keeps the last good state; "
            "lower --lr, or limit the gradient with --clip-grad 1"
        )
    content = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    content |= {name: asdict(content[name]) for name in ("model", "statistics")}
    content |= {name: one and one.as_json() for name, one in _data_configs(checkpoint).items()}
    with replacing(path) as file:
        torch.save({"format": FORMAT, **content}, file)


def _data_configs(checkpoint: Checkpoint) -> dict[str, DataConfig | None]:
    return {"data_config": checkpoint.data_config, "before": checkpoint.before}


class CheckpointClock:
    """When the next checkpoint within an epoch is due.

    Args:
        number, unit: Of `OptimizerSettings.checkpoint_interval`.
    """

    def __init__(self, number: float, unit: str) -> None:
        self._number = number
        self._unit = unit
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Return whether one is due after a step; in minutes, time counts from the last that was due."""
        if self._unit == "steps":
            return step % round(self._number) == 0
        if time.monotonic() - self._last < 60 * self._number:
            return False
        self._last = time.monotonic()
        return True


def checkpoint_file(path: Path) -> Path:
    """Return the checkpoint that a path stands for: of a run folder its best one, or else its last.

    Raises:
        CheckpointError: If a folder has neither.
    """
    if not path.is_dir():
        return path
    inside = [path / name for name in (BEST, LAST) if (path / name).is_file()]
    if not inside:
        raise CheckpointError(f"{path} holds neither {BEST} nor {LAST}; give a run folder or a checkpoint file")
    return inside[0]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of ours; a run folder stands for its best one.

    Raises:
        CheckpointError: If it is missing, damaged, or a weights file of another kind.
    """
    path = checkpoint_file(path)
    content = read_torch_file(path)
    _check_format(content, path)
    try:
        fields = {name: content[name] for name in Checkpoint.__dataclass_fields__}
        _check_types(fields)
        model, before = fields["model"], fields["before"]
        return Checkpoint(
            **fields
            | {
                "model": ModelSpec(
                    str(model["name"]), int(model["num_classes"]), tuple(model["args"]), model["frechet"]
                ),
                "data_config": DataConfig.from_json(fields["data_config"]),
                "before": None if before is None else DataConfig.from_json(before),
                "classes": tuple(fields["classes"]),
                "statistics": EpochStatistics(**fields["statistics"]),
            }
        )
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"{path} lacks a part of a checkpoint, or has it in a wrong form: {error}") from error


def _check_format(content: Any, path: Path) -> None:
    """Raise CheckpointError unless a file is a checkpoint of ours that this version reads."""
    found = content.get("format") if isinstance(content, dict) else None
    if found == FORMAT:
        return
    if isinstance(found, int) and "fingerprint" in content:
        raise CheckpointError(
            f"{path} is a dali-fixres checkpoint of format {found}, and this version reads format {FORMAT}; train "
            f"again, use the version that wrote it, or start from its weights: --model NAME --weights {path}"
        )
    raise CheckpointError(
        f"{path} is not a dali-fixres checkpoint; for other weights files give --model NAME --weights {path}"
    )


def load_trained(path: Path) -> Checkpoint:
    """Read a checkpoint whose network is to be used.

    Raises:
        CheckpointError: As `load_checkpoint`, or if not one epoch is finished.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.epoch == 0:
        raise CheckpointError(f"{path} has not finished its first epoch; resume it, or name another --checkpoint")
    return checkpoint


def _check_types(fields: dict[str, Any]) -> None:
    """Raise TypeError or ValueError unless every part is what is relied on later, far from the file."""
    for name, expected in _TYPES.items():
        if not isinstance(fields[name], expected):
            raise TypeError(f"{name} is {type(fields[name]).__name__}")
    if min(fields[name] for name in ("epoch", "num_done", "step")) < 0:
        raise ValueError("epoch, num_done and step cannot be below 0")
    model = fields["model"]
    parts: dict[str, tuple[dict[Any, Any], type, Any]] = {
        "state_dict": (fields["state_dict"], str, torch.Tensor),
        "unreadable": (fields["unreadable"], int, str),
        "statistics": (fields["statistics"], str, (int, float)),
        "config": (fields["config"], str, object),
        "classes": (dict.fromkeys(fields["classes"]), str, object),
        "model": ({model["name"]: model["num_classes"], **dict.fromkeys(model["args"], 0)}, str, int),
        "model's mapping": ({model["frechet"]: None}, str, NoneType),
    }
    for name, (content, keys, values) in parts.items():
        if not all(isinstance(key, keys) and isinstance(value, values) for key, value in content.items()):
            raise TypeError(f"{name} holds other things than it should")


_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("command", "fingerprint"), str),
    **dict.fromkeys(("epoch", "global_batch", "num_done", "step"), int),
    **dict.fromkeys(
        ("state_dict", "config", "optimizer", "scaler", "unreadable", "statistics", "model", "data_config"), dict
    ),
    **dict.fromkeys(("top1", "best_top1"), (float, int, NoneType)),
    "before": (dict, NoneType),
    "classes": (tuple, list),
}


def rebuild(checkpoint: Checkpoint, source: Path) -> Model:
    """Build a checkpoint's network and fill it with its tensors.

    Raises:
        CheckpointError: If the tensors do not fit the network it names.
    """
    built = build_model(checkpoint.model)
    load_into(built.network, checkpoint.state_dict, str(source), allow_new_head=False)
    return Model(built.network, replace(checkpoint.data_config, fixed_size=built.data_config.fixed_size))
