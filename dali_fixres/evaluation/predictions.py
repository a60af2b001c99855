"""A network's outputs, image by image: counted, saved and read back.

A folder of outputs:

    logits.npy      (n, outputs) float32
    features.npy    (n, channels) float32, what the classifier was given
    labels.npy      (n,) int64, classes of the data
    rows.npy        (n,) int64, rows of the data set
    paths.npy       (n,) bytes, of the images, below the data's folder
    outputs.json    what they are the outputs of
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from dali_fixres.config import Precision
from dali_fixres.errors import ConfigError, DataError, SaveError
from dali_fixres.evaluation.metrics import Accuracy, count_correct
from dali_fixres.evaluation.real import RealLabels
from dali_fixres.models import DataConfig
from dali_fixres.models.class_map import ClassMap
from dali_fixres.runtime.environment import Environment
from dali_fixres.runtime.json_files import OutputsFile
from pipelines.storage.atomic import replacing
from pipelines.storage.files import write_json

__all__ = ["Origin", "Outputs", "SavedOutputs", "find_outputs", "merge", "new_folder", "save_arrays", "save_origin"]

ABOUT = "outputs.json"


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """A network's outputs for n images, in the order of the data set.

    Attributes:
        rows: Rows of the data set, (n,) int64.
        paths: Relative paths of the images, (n,) bytes.
        labels: Classes of the data, (n,) int64.
        logits: (n, outputs) float32; of several views of an image the logarithm of the mean of their softmax.
        features: What the classifier was given, (n, channels) float32, of several views the mean; None if not kept.
    """

    rows: NDArray[np.int64]
    paths: NDArray[np.bytes_]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    features: NDArray[np.float32] | None

    def counts(self, class_map: ClassMap, *, only_mapped: bool, real: RealLabels | None) -> torch.Tensor:
        """Count correct predictions.

        Returns:
            Images right in the first and in the first five answers, all images; images right by ReaL's labels,
            and all that have some; (5,) int64.
        """
        if len(self.labels) == 0:
            return torch.zeros(5, dtype=torch.int64)
        logits = torch.from_numpy(self.logits)
        if only_mapped:
            logits = class_map.without_others(logits)
        by_label = count_correct(logits, class_map.right_outputs(torch.from_numpy(self.labels)))
        sets = [real.of(path) for path in self.paths.tolist()] if real is not None else []
        answers = logits.argmax(dim=1).tolist()
        right = [answer in labels for answer, labels in zip(answers, sets, strict=False) if labels]
        return torch.tensor([*by_label.tolist(), len(self.labels), sum(right), len(right)])


def merge(parts: Sequence[Outputs]) -> Outputs:
    """Put the outputs of all processes into the order of the data set."""
    parts = [part for part in parts if len(part.rows)]
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Outputs)}
    order = np.argsort(np.concatenate(columns["rows"]))
    whole: dict[str, Any] = {
        name: None if column[0] is None else np.concatenate(column)[order] for name, column in columns.items()
    }
    return Outputs(**whole)


@dataclass(frozen=True, slots=True)
class Origin:
    """What answered, and to which data: all that a report says beside the figures.

    Attributes:
        title: The network and the data, for tables and plots.
        model: The network's name.
        checkpoint: Where it was read from; None where it was given by name.
        eval_precision: What it ran in.
        val_fraction: What the data was divided with; None where it has a split of its own.
        classes: Of the data.
        class_map: Their outputs.
        data_config: What images the network takes.
        fingerprint: Of the index.
        synthetic: Whether the data is the demo's.
        unreadable: Files that could not be read, a line for each.
        environment: What it ran on.
    """

    title: str
    model: str
    checkpoint: str | None
    eval_precision: Precision
    val_fraction: float | None
    classes: tuple[str, ...]
    class_map: ClassMap
    data_config: DataConfig
    fingerprint: str
    synthetic: bool
    unreadable: tuple[str, ...]
    environment: Environment

    def as_json(self, accuracy: Accuracy) -> OutputsFile:
        """Return the content of outputs.json, given the accuracy of the outputs."""
        return {
            "accuracy": accuracy.as_json(),
            "title": self.title,
            "model": self.model,
            "checkpoint": self.checkpoint,
            "eval_precision": self.eval_precision,
            "val_fraction": self.val_fraction,
            "classes": list(self.classes),
            "class_outputs": list(self.class_map.outputs),
            "num_outputs": self.class_map.num_outputs,
            "data_config": self.data_config.as_json(),
            "fingerprint": self.fingerprint,
            "synthetic": self.synthetic,
            "unreadable": list(self.unreadable),
            "environment": self.environment,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read back what `as_json` wrote.

        Raises:
            KeyError: If it lacks a part; TypeError if one is of another kind.
        """
        parts = {field.name: values[field.name] for field in fields(cls) if field.name != "class_map"}
        parts["data_config"] = DataConfig.from_json(parts["data_config"])
        parts |= {name: tuple(parts[name]) for name in ("classes", "unreadable")}
        return cls(**parts, class_map=ClassMap(tuple(values["class_outputs"]), values["num_outputs"]))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to write into; at the end, and only if all went well, it takes its name.

    Raises:
        ConfigError: If there is something in that place already, or it cannot be made.
        SaveError: If it cannot take its name.
    """
    folder = folder.resolve()
    try:
        if folder.exists() and (not folder.is_dir() or next(folder.iterdir(), None)):
            raise ConfigError(f"--save-outputs {folder} is there already and not empty; give another folder")
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # what a killed process has left
        partial.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"cannot make --save-outputs {folder}: {error.strerror}; give another folder") from error
    try:
        yield partial
        _rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError as error:
        raise SaveError(f"cannot write {folder}: {error.strerror}") from error


def save_arrays(folder: Path, outputs: Outputs) -> None:
    """Write all arrays.

    Raises:
        SaveError: If that is not possible.
    """
    folder.mkdir(exist_ok=True)
    for field in fields(outputs):
        array = getattr(outputs, field.name)
        if array is not None:
            with replacing(folder / f"{field.name}.npy") as file:
                np.save(file, array)


def save_origin(folder: Path, origin: Origin, accuracy: Accuracy) -> None:
    """Write what the arrays of a folder are, and what they came to.

    Raises:
        ConfigError: If that is not possible.
    """
    write_json(folder / ABOUT, origin.as_json(accuracy))


@dataclass(frozen=True, slots=True)
class SavedOutputs:
    """A folder of outputs.

    Attributes:
        folder: Where its arrays are.
        origin: What they are the outputs of.
        accuracy: What was counted when they were saved.
    """

    folder: Path
    origin: Origin
    accuracy: Accuracy

    def read(self) -> Outputs:
        """Read the arrays, features excepted.

        Raises:
            DataError: If they cannot be read, or do not go together.
        """
        arrays: dict[str, Any] = {}
        for name in ("rows", "paths", "labels", "logits"):
            path = self.folder / f"{name}.npy"
            try:
                arrays[name] = np.load(path, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise DataError(f"cannot read {path}: {error}") from error
        num_images, num_outputs = self.accuracy.num_images, self.origin.class_map.num_outputs
        shapes = dict.fromkeys(arrays, (num_images,)) | {"logits": (num_images, num_outputs)}
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise DataError(
                    f"{self.folder / name}.npy has the shape {arrays[name].shape}, and by {ABOUT} it is {shape}; "
                    "save the outputs again"
                )
        return Outputs(**arrays, features=None)


def find_outputs(folder: Path) -> list[SavedOutputs]:
    """Find what `--save-outputs` has written: one folder of outputs, or one for each setting.

    Raises:
        DataError: If there is nothing, it cannot be read, or is of more than one data set.
    """
    paths = [path for path in (folder / ABOUT, *sorted(folder.glob(f"*/{ABOUT}"))) if path.is_file()]
    if not paths:
        raise DataError(f"{folder} holds no outputs; give a folder that evaluate --save-outputs has made")
    found = []
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found.append(SavedOutputs(path.parent, Origin.from_json(content), Accuracy.from_json(content["accuracy"])))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise DataError(f"{path} is not as evaluate --save-outputs writes it: {error!r}") from error
    origins = [(one.origin.fingerprint, one.origin.model, one.origin.checkpoint, one.origin.class_map) for one in found]
    if any(origin != origins[0] for origin in origins):
        raise DataError(f"{folder} holds outputs of several networks or data sets; give one of its folders")
    return sorted(found, key=lambda saved: saved.accuracy.setting.order)
