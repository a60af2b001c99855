"""Weights files of the field: read without running code, stripped of wrappers, loaded with mismatches listed."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from dali_fixres.errors import CheckpointError

__all__ = ["LoadedWeights", "StateDict", "load_into", "read_state_dict", "read_torch_file"]

StateDict: TypeAlias = dict[str, torch.Tensor]

WRAPPERS = ("state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before each name."""


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
    """Read a file that ``torch.save`` wrote, allowing tensors and plain containers only.

    Raises:
        CheckpointError: If there is no such file, it is damaged, or it would run code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"no such file: {path}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is no plain checkpoint: it is damaged, or loading it would run code; "
            "save its state_dict with torch.save or safetensors"
        ) from error
    except Exception as error:
        raise CheckpointError(f"cannot read {path}: {_first_line(error)}") from error


def read_state_dict(path: Path) -> StateDict:
    """Read the network's tensors from a .safetensors or .pth file, whatever they are wrapped in.

    Raises:
        CheckpointError: As `read_torch_file`, or if there are no tensors in the file.
    """
    if path.suffix == ".safetensors":
        try:
            return strip_prefixes(load_file(path))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot read {path}: {_first_line(error)}") from error
    content = read_torch_file(path)
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content or not all(torch.is_tensor(v) for v in content.values()):
        raise CheckpointError(f"{path} holds no state dict, neither bare nor under {' or '.join(map(repr, WRAPPERS))}")
    return strip_prefixes(content)


def strip_prefixes(state: Mapping[str, torch.Tensor]) -> StateDict:
    """Take wrappers' prefixes off all names, in any order and depth."""
    stripped = dict(state)
    while prefix := next((p for p in PREFIXES if stripped and all(name.startswith(p) for name in stripped)), None):
        stripped = {name.removeprefix(prefix): tensor for name, tensor in stripped.items()}
    return stripped


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
    head = _head_names(own, state) if allow_new_head else frozenset()
    # Batch norm's counters are missing from old files and are not used with a momentum.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and name not in head and state[name].shape != own[name].shape
    ]
    if missing or unknown or shapes:
        problems = [
            f"{len(names)} {what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
            for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
            if names
        ]
        raise CheckpointError(
            f"{source} does not fit this network: {'; '.join(problems)}; check --model and --model-arg"
        )
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
