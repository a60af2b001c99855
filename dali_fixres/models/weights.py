"""Weights files of the field: read without running code, stripped of wrappers, loaded with mismatches listed."""

import pickle
import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from dali_fixres.errors import CheckpointError

__all__ = [
    "Fit",
    "LoadedWeights",
    "StateDict",
    "WeightsFile",
    "compare",
    "fit_or_fail",
    "load_into",
    "read_torch_file",
    "read_weights",
]

StateDict: TypeAlias = dict[str, torch.Tensor]

PARTS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where files of the field have their tensors. Averaged ones first, as timm does: the accuracies told of such files are
theirs."""

PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before each name."""

NUM_AVERAGED = "n_averaged"
"""What torch's AveragedModel, which torchvision saves as model_ema, counts beside the network's tensors."""

_SCALAR: Any = np.float64(0).__reduce__()[0]
HARMLESS: list[Any] = [
    Namespace,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefd"},
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # its name before NumPy 2
]
"""What training scripts save beside the tensors, and what only makes an object when it is loaded: argparse's settings
and NumPy's numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightsFile:
    """What a weights file holds.

    Attributes:
        path: The file.
        state: The network's tensors by name, without wrappers' prefixes.
        part: The part of the file they are from, as ``state_dict_ema``; empty if the file holds nothing else.
        arch: What the file says the network is; None if it does not.
    """

    path: Path
    state: StateDict
    part: str
    arch: str | None

    def __str__(self) -> str:
        return f"{self.path} ({self.part})" if self.part else str(self.path)


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """What became of a state dict.

    Attributes:
        new_head: Names of the classifier's tensors that start at zero, because the classes differ.
        num_tensors: How many tensors were loaded.
    """

    new_head: tuple[str, ...]
    num_tensors: int


def read_torch_file(path: Path) -> Any:
    """Read a file that ``torch.save`` wrote, allowing tensors, plain containers and what is `HARMLESS` only.

    Raises:
        CheckpointError: If there is no such file, it is damaged, or it would run code.
    """
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"no such file: {path}") from error
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        why = f"loading it would run code of {code[1]}" if code else "it is damaged, or loading it would run code"
        raise CheckpointError(
            f"{path} is no plain checkpoint: {why}; save its state_dict with torch.save or safetensors"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a .pth or .safetensors file: {type(error).__name__}: {_first_line(error)}"
        ) from error


def read_weights(path: Path) -> WeightsFile:
    """Read the network's tensors from a .safetensors or .pth file, whatever they are wrapped in.

    Raises:
        CheckpointError: As `read_torch_file`, or if there are no tensors in the file.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = read_torch_file(path)
    state, part = content, ""
    if isinstance(content, dict):
        # A part that is said to be there may be None: an average that was not kept.
        part = next((name for name in PARTS if isinstance(content.get(name), dict)), "")
        state = content[part] if part else content
    if isinstance(state, dict):
        state = {name: tensor for name, tensor in state.items() if name != NUM_AVERAGED}
    if not isinstance(state, dict) or not state or not all(torch.is_tensor(v) for v in state.values()):
        raise CheckpointError(f"{path} holds no state dict, neither bare nor under {' or '.join(map(repr, PARTS))}")
    return WeightsFile(path, strip_prefixes(state), part, _arch(content) if part else None)


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {_first_line(error)}") from error
    return WeightsFile(path, strip_prefixes(state), "", metadata.get("architecture"))


def _arch(content: Mapping[str, Any]) -> str | None:
    """Return the network's name where training scripts put it: beside the tensors, or among their settings."""
    arguments = content.get("args")
    settings = vars(arguments) if isinstance(arguments, Namespace) else {}
    named = (content.get("arch"), settings.get("model"), settings.get("arch"))
    return next((name for name in named if isinstance(name, str)), None)


def strip_prefixes(state: Mapping[str, torch.Tensor]) -> StateDict:
    """Take wrappers' prefixes off all names, in any order and depth."""
    stripped = dict(state)
    while prefix := next((p for p in PREFIXES if stripped and all(name.startswith(p) for name in stripped)), None):
        stripped = {name.removeprefix(prefix): tensor for name, tensor in stripped.items()}
    return stripped


@dataclass(frozen=True, slots=True)
class Fit:
    """How a state dict compares with a network.

    Attributes:
        head: The classifier's tensors, if they are for other classes and nothing else differs in them.
        missing: Tensors that the network has and the state dict lacks.
        unknown: The other way round.
        shapes: Tensors of other shapes, with both.
        num_same: Tensors that agree in name and shape.
    """

    head: frozenset[str]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    shapes: tuple[str, ...]
    num_same: int

    @property
    def holds(self) -> bool:
        """Whether the state dict is this network's."""
        return not (self.missing or self.unknown or self.shapes)


def compare(own: Mapping[str, torch.Tensor], state: StateDict, *, allow_new_head: bool = True) -> Fit:
    """Compare a network's tensors with a state dict's, by names and shapes alone."""
    head = _head_names(own, state) if allow_new_head else frozenset()
    # Batch norm's counters are missing from old files and are not used with a momentum.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    common = [name for name in own if name in state]
    shapes = [name for name in common if name not in head and state[name].shape != own[name].shape]
    return Fit(
        head,
        tuple(missing),
        tuple(name for name in state if name not in own),
        tuple(f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}" for name in shapes),
        len(common) - len(shapes),
    )


def fit_or_fail(own: Mapping[str, torch.Tensor], state: StateDict, source: str, *, allow_new_head: bool = True) -> Fit:
    """Compare as `compare` does.

    Raises:
        CheckpointError: If names are missing, unknown, or of other shapes; the message lists the first of them.
    """
    fit = compare(own, state, allow_new_head=allow_new_head)
    if not fit.holds:
        kinds = (("missing", fit.missing), ("unknown", fit.unknown), ("of another shape", fit.shapes))
        problems = [
            f"{len(names)} {what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
            for what, names in kinds
            if names
        ]
        raise CheckpointError(
            f"{source} does not fit this network: {'; '.join(problems)}; check --model and --model-arg"
        )
    return fit


def load_into(network: nn.Module, state: StateDict, source: str, *, allow_new_head: bool = True) -> LoadedWeights:
    """Load tensors by name; only a classifier for another number of classes may differ.

    Such a classifier starts at zero (as in BiT, arXiv 1912.11370): some networks' own random start is so large that
    the first steps would undo the trunk that was just loaded.

    Args:
        network: Gets the tensors.
        state: Names and tensors.
        source: What errors call the file.
        allow_new_head: Whether a classifier of another size is taken as one for other classes.

    Raises:
        CheckpointError: If names are missing, unknown, or of other shapes; the message lists the first of them.
    """
    own = network.state_dict()
    head = fit_or_fail(own, state, source, allow_new_head=allow_new_head).head
    network.load_state_dict({name: tensor for name, tensor in state.items() if name not in head}, strict=False)
    for name in head:
        own[name].zero_()
    return LoadedWeights(tuple(sorted(head)), len(state) - len(head))


def _head_names(own: Mapping[str, torch.Tensor], state: StateDict) -> frozenset[str]:
    """Return the tensors of the one module that differs in its number of outputs alone, if there is one."""
    differing = [name for name in own if name in state and own[name].shape != state[name].shape]
    modules = {name.rpartition(".")[0] for name in differing}
    if len(modules) != 1:
        return frozenset()
    same_inputs = all(own[name].shape[1:] == state[name].shape[1:] for name in differing)
    return frozenset(differing) if same_inputs else frozenset()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
