"""Checkpoints: everything a run needs to go on or to be used, in one file of plain types and tensors."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dali_fixres.colour import Normalisation
from dali_fixres.errors import CheckpointError
from dali_fixres.models import BuiltModel, ModelSpec, build_model, load_into
from dali_fixres.models.weights import StateDict, read_torch_file
from dali_fixres.runs import BEST, LAST

__all__ = ["Checkpoint", "load_checkpoint", "rebuild", "save_checkpoint"]

FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The state of a run between two epochs.

    Attributes:
        command: ``train`` or ``finetune``.
        model: How to build the network.
        state_dict: Its tensors.
        normalisation: What its pictures are normalised by.
        classes: Class names in label order.
        fingerprint: Of the index it was trained on.
        train_res: Its (last) training resolution, pixels.
        test_res: The resolution it was tested at, pixels.
        crop_ratio: Of that test.
        config: `Config.stored` of the command.
        epoch: Epochs done.
        step: Optimiser steps done, over all epochs.
        optimizer: The optimiser's state.
        rng: torch's random state, (bytes,) uint8.
        cuda_rng: The same of the GPU; None where there was none.
        top1: Of the last evaluation, percent; None before the first.
        best_top1: The best so far.
    """

    command: str
    model: ModelSpec
    state_dict: StateDict
    normalisation: Normalisation
    classes: tuple[str, ...]
    fingerprint: str
    train_res: int
    test_res: int
    crop_ratio: float
    config: dict[str, Any]
    epoch: int
    step: int
    optimizer: dict[str, Any]
    rng: torch.Tensor
    cuda_rng: torch.Tensor | None
    top1: float | None
    best_top1: float | None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in one atomic step: a kill leaves the old file or the new one, never half of one."""
    content = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    content |= {"model": asdict(checkpoint.model), "normalisation": asdict(checkpoint.normalisation)}
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of ours; a run folder stands for its best one.

    Raises:
        CheckpointError: If it is missing, damaged, or a weights file of another kind.
    """
    if path.is_dir():
        inside = [path / name for name in (BEST, LAST) if (path / name).is_file()]
        if not inside:
            raise CheckpointError(f"{path} holds neither {BEST} nor {LAST}; give a run folder or a checkpoint file")
        path = inside[0]
    content = read_torch_file(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no dali-fixres checkpoint; for other weights files give --model NAME --weights {path}"
        )
    try:
        fields = {name: content[name] for name in Checkpoint.__dataclass_fields__}
        model = fields["model"]
        fields["model"] = ModelSpec(model["name"], model["num_classes"], tuple(model["args"]))
        normalisation = fields["normalisation"]
        fields["normalisation"] = Normalisation(tuple(normalisation["mean"]), tuple(normalisation["std"]))
        fields["classes"] = tuple(fields["classes"])
        return Checkpoint(**fields)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} lacks a part of a checkpoint: {error}") from error


def rebuild(checkpoint: Checkpoint, source: Path) -> BuiltModel:
    """Build a checkpoint's network and fill it with its tensors.

    Raises:
        CheckpointError: If the tensors do not fit the network it names.
    """
    built = build_model(checkpoint.model)
    load_into(built.network, checkpoint.state_dict, str(source), allow_new_head=False)
    return BuiltModel(built.network, checkpoint.normalisation)
