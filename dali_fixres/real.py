"""ImageNet-ReaL: several right answers for a picture of ImageNet's validation set (Beyer et al., arXiv 2006.07159)."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dali_fixres.errors import DataError

__all__ = ["RealLabels", "read_real"]

NUM_OFFICIAL = 50_000
"""Pictures of ImageNet's validation set, and so sets of labels in the official file."""

_NUMBER = re.compile(rb"ILSVRC2012_val_(\d{8})")


@dataclass(frozen=True, slots=True)
class RealLabels:
    """The classes that are right for each picture, by its official number.

    Attributes:
        sets: That of number 1 first; an empty one where no class was found to be right.
    """

    sets: tuple[frozenset[int], ...]

    def of(self, picture: bytes) -> frozenset[int]:
        """Return the right classes of a picture, by its path."""
        return self.sets[_number_of(picture) - 1]


def read_real(path: Path, pictures: Sequence[bytes], num_outputs: int) -> RealLabels:
    """Read a JSON list of lists of class numbers, and make sure that it is about these pictures.

    Args:
        path: The official real.json, or one of the same form.
        pictures: Paths of the test pictures; they say the official numbers.
        num_outputs: Of the network; class numbers are below it.

    Raises:
        DataError: If it is no such list, is of another length, or a picture has no official number.
    """
    try:
        sets = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read --real {path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"--real {path} is no JSON: {error}") from error
    if not isinstance(sets, list) or not all(isinstance(numbers, list) for numbers in sets):
        raise DataError(f"--real {path} is no list of lists of class numbers; expected ImageNet-ReaL's real.json")
    largest = max(map(_number_of, pictures))
    if len(sets) not in {largest, NUM_OFFICIAL} or len(sets) < largest:
        raise DataError(
            f"--real {path} has labels of {len(sets)} pictures, and those of the data are numbered up to {largest}; "
            f"expected {largest}, or the {NUM_OFFICIAL} of ImageNet's whole validation set"
        )
    for number, numbers in enumerate(sets, start=1):
        if not all(type(label) is int and 0 <= label < num_outputs for label in numbers):
            raise DataError(
                f"--real {path} gives picture {number} the labels {numbers}; expected class numbers below "
                f"{num_outputs}, the number of the network's outputs"
            )
    return RealLabels(tuple(map(frozenset, sets)))


def _number_of(picture: bytes) -> int:
    match = _NUMBER.search(picture.rpartition(b"/")[2])
    if match is None or int(match[1]) == 0:
        raise DataError(
            f"{os.fsdecode(picture)} has no number of ImageNet's validation set in its name, which --real needs; "
            "expected names such as ILSVRC2012_val_00000001.JPEG"
        )
    return int(match[1])
