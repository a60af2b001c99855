"""ImageNet-ReaL: several right answers for an image of ImageNet's validation set (Beyer et al., arXiv 2006.07159)."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dali_fixres.errors import DataError

__all__ = ["RealLabels", "read_real"]

NUM_OFFICIAL = 50_000
"""Images of ImageNet's validation set, and so sets of labels in the official file."""

_NUMBER = re.compile(rb"ILSVRC2012_val_(\d{8})")


@dataclass(frozen=True, slots=True)
class RealLabels:
    """The classes that are right for each image, by its official number.

    Attributes:
        sets: That of number 1 first; an empty one where no class was found to be right.
    """

    sets: tuple[frozenset[int], ...]

    def of(self, image: bytes) -> frozenset[int]:
        """Return the right classes of an image, by its path."""
        return self.sets[_number_of(image) - 1]


def read_real(path: Path, images: Sequence[bytes], num_outputs: int) -> RealLabels:
    """Read a JSON list of lists of class numbers, and make sure that it is about these images.

    Args:
        path: The official real.json, or one of the same form.
        images: Paths of the test images; they say the official numbers.
        num_outputs: Of the network; class numbers are below it.

    Raises:
        DataError: If it is not such a list, is of another length, or an image has no official number.
    """
    try:
        sets = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read --real {path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"--real {path} is not JSON: {error}") from error
    if not isinstance(sets, list) or not all(isinstance(numbers, list) for numbers in sets):
        raise DataError(f"--real {path} is not a list of lists of class numbers; expected ImageNet-ReaL's real.json")
    largest = max(map(_number_of, images))
    if len(sets) not in {largest, NUM_OFFICIAL} or len(sets) < largest:
        raise DataError(
            f"--real {path} has labels of {len(sets)} images, and those of the data are numbered up to {largest}; "
            f"expected {largest}, or the {NUM_OFFICIAL} of ImageNet's whole validation set"
        )
    for number, numbers in enumerate(sets, start=1):
        if not all(type(label) is int and 0 <= label < num_outputs for label in numbers):
            raise DataError(
                f"--real {path} gives image {number} the labels {numbers}; expected class numbers below "
                f"{num_outputs}, the number of the network's outputs"
            )
    return RealLabels(tuple(map(frozenset, sets)))


def _number_of(image: bytes) -> int:
    match = _NUMBER.search(image.rpartition(b"/")[2])
    if match is None or int(match[1]) == 0:
        raise DataError(
            f"{os.fsdecode(image)} has no number of ImageNet's validation set in its name, which --real needs; "
            "expected names such as ILSVRC2012_val_00000001.JPEG"
        )
    return int(match[1])
