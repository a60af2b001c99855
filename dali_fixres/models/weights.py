"""Weights files: read without running code, unwrapped, and loaded, with mismatches listed."""

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
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from dali_fixres.errors import CheckpointError
from dali_fixres.models.position_embeddings import interpolated

__all__ = [
    "Fit",
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
"""Where training scripts save the tensors. EMA weights come first, as in timm: published accuracies are theirs."""

PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before each name."""

NUM_AVERAGED = "n_averaged"
"""A counter in the state dict of torch's AveragedModel, which torchvision saves as model_ema."""

_SCALAR: Any = np.float64(0).__reduce__()[0]
HARMLESS: list[Any] = [
    Namespace,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefd"},
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # its name before NumPy 2
]
"""What training scripts save beside the tensors and what is safe to load: argparse's settings and NumPy's numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightsFile:
    """A network's tensors from a file.

    Attributes:
        path: The file.
        state: Tensors by name, without wrappers' prefixes.
        part: Key in the file that they were under, as ``state_dict_ema``; empty for a bare state dict.
        arch: The network's name, if the file has it.
    """

    path: Path
    state: StateDict
    part: str
    arch: str | None

    def __str__(self) -> str:
        return f"{self.path} ({self.part})" if self.part else str(self.path)


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
            f"{path} is not a plain checkpoint: {why}; save its state_dict with torch.save or safetensors"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a .pth or .safetensors file: {type(error).__name__}: {_first_line(error)}"
        ) from error


def read_weights(path: Path) -> WeightsFile:
    """Read a network's tensors from a .safetensors or .pth file, bare or as training scripts wrap them.

    Raises:
        CheckpointError: As `read_torch_file`, or if there are no tensors in the file.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = read_torch_file(path)
    state, part = content, ""
    if isinstance(content, dict):
        # A key may be there with None: EMA weights that were not kept.
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
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {_first_line(error)}") from error
    return WeightsFile(path, strip_prefixes(state), "", metadata.get("architecture"))


def _arch(content: Mapping[str, Any]) -> str | None:
    """Return the network's name, which training scripts save beside the tensors or among their settings."""
    arguments = content.get("args")
    settings = vars(arguments) if isinstance(arguments, Namespace) else {}
    named = (content.get("arch"), settings.get("model"), settings.get("arch"))
    return next((name for name in named if isinstance(name, str)), None)


def strip_prefixes(state: Mapping[str, torch.Tensor]) -> StateDict:
    """Return the tensors without wrappers' prefixes, in any order and depth.

    A prefix counts only if all names have it: a network may have a part of its own called ``module``.
    """
    stripped = dict(state)
    while prefix := next((p for p in PREFIXES if stripped and all(name.startswith(p) for name in stripped)), None):
        consume_prefix_in_state_dict_if_present(stripped, prefix)
    return stripped


@dataclass(frozen=True, slots=True)
class Fit:
    """How a state dict fits a network.

    Attributes:
        head: Names of the classifier's tensors, if only the number of classes differs in them.
        missing: Names that only the network has.
        unknown: Names that only the state dict has.
        shapes: Names whose shapes differ, with both shapes.
        num_same: Number of tensors that have the same name and shape in both.
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
    """Compare the tensors of a network (`own`) with those of a state dict, by name and shape."""
    head = _head_names(own, state) if allow_new_head else frozenset()
    # Old files lack batch norm's counters, which are not used with a momentum.
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


def load_into(network: nn.Module, state: StateDict, source: str, *, allow_new_head: bool = True) -> tuple[str, ...]:
    """Load tensors by name; only the classifier may differ, in its number of classes.

    Such a classifier starts at zero, as in BiT (arXiv 1912.11370). Some networks initialise it with weights so large
    that the first steps would undo the trunk that was just loaded. Position embeddings for another image size are
    interpolated.

    Args:
        network: Changed in place.
        state: Tensors by name.
        source: Name of the file, for errors.
        allow_new_head: Whether the number of classes may differ.

    Returns:
        Names of the classifier's tensors, if they start at zero.

    Raises:
        CheckpointError: If names are missing, unknown, or of other shapes; the message lists the first of them. Or if
            position embeddings cannot be interpolated.
    """
    own, state = network.state_dict(), interpolated(network, state, source)
    head = fit_or_fail(own, state, source, allow_new_head=allow_new_head).head
    network.load_state_dict({name: tensor for name, tensor in state.items() if name not in head}, strict=False)
    for name in head:
        own[name].zero_()
    return tuple(sorted(head))


def _head_names(own: Mapping[str, torch.Tensor], state: StateDict) -> frozenset[str]:
    """Return the tensors' names of the only module that differs, if it differs in its number of outputs alone."""
    differing = [name for name in own if name in state and own[name].shape != state[name].shape]
    modules = {name.rpartition(".")[0] for name in differing}
    if len(modules) != 1:
        return frozenset()
    same_inputs = all(own[name].shape[1:] == state[name].shape[1:] for name in differing)
    return frozenset(differing) if same_inputs else frozenset()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
