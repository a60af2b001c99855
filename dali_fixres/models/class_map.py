"""Which output of a network stands for which class of the data, where the two are not simply the same."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dali_fixres.errors import ConfigError, did_you_mean

__all__ = ["ClassMap", "map_classes", "read_names"]


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Outputs by class.

    Attributes:
        outputs: The network's output for each class of the data, in label order.
        num_outputs: How many outputs the network has.
    """

    outputs: tuple[int, ...]
    num_outputs: int

    @property
    def is_plain(self) -> bool:
        """Whether labels and outputs have the same numbers, and no output is without a class."""
        return self.outputs == tuple(range(self.num_outputs))

    def right_outputs(self, labels: torch.Tensor) -> torch.Tensor:
        """Turn labels of the data into numbers of outputs, (n,) int64 each."""
        return torch.tensor(self.outputs)[labels]

    def without_others(self, logits: torch.Tensor) -> torch.Tensor:
        """Return (n, outputs) logits in which an output without a class is never the answer."""
        others = torch.ones(self.num_outputs, dtype=torch.bool)
        others[list(self.outputs)] = False
        return logits.masked_fill(others, -torch.inf)


def map_classes(names: Sequence[str], classes: Sequence[str], source: str) -> ClassMap:
    """Find each class of the data among a network's outputs, by its name or by a number that is its name.

    Args:
        names: Of the outputs, in their order.
        classes: Of the data, in label order.
        source: Where the names are from, for errors.

    Raises:
        ConfigError: If a class is neither, or two are the same output.
    """
    by_name = {name: number for number, name in enumerate(names)}
    by_number = {str(number): number for number in range(len(names))}
    found = by_number | by_name
    unknown = [name for name in classes if name not in found]
    if unknown:
        raise ConfigError(
            f"{len(unknown)} of the {len(classes)} classes of the data are not outputs by {source}, which names "
            f"{len(names)}: {', '.join(unknown[:3])}{did_you_mean(unknown[0], names)}"
        )
    outputs = tuple(found[name] for name in classes)
    shared = next((number for number, count in Counter(outputs).items() if count > 1), None)
    if shared is not None:
        both = [name for name, number in zip(classes, outputs, strict=True) if number == shared]
        raise ConfigError(
            f"the classes {' and '.join(both)} of the data are both output {shared} by {source}; rename one"
        )
    return ClassMap(outputs, len(names))


def read_names(path: Path) -> tuple[str, ...]:
    """Read the names of a network's outputs, one a line.

    Raises:
        ConfigError: If the file cannot be read, has no names, or has one twice.
    """
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except OSError as error:
        raise ConfigError(f"cannot read --class-map {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--class-map {path} is not text: {error}") from error
    if not names:
        raise ConfigError(f"--class-map {path} is empty; expected the name of one output of the network a line")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"--class-map {path} names {twice[0]!r} twice; each output needs a name of its own")
    return names
