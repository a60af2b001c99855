"""A trained network for use elsewhere: safetensors with configuration and card, and ONNX."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from dali_fixres.checkpoints import Checkpoint, rebuild
from dali_fixres.config import ExportConfig
from dali_fixres.errors import ConfigError, ModelError
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.models import Model, ModelSpec, build_on_meta, compare
from dali_fixres.models.build import RESNEXT_48D, TIMM_PREFIX, parse_argument
from dali_fixres.models.onnx import write_onnx
from dali_fixres.models.weights import StateDict
from dali_fixres.report.card import model_card
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import RunFolder
from pipelines.resolution import Resolution

__all__ = ["write_export"]


@dataclass(frozen=True, slots=True)
class _Loader:
    """What loads a network by name.

    Attributes:
        loads_it: The library that does: ``timm``, ``torchvision`` or ``dali-fixres``.
        architecture: The network's name there.
        args: Arguments of its constructor.
        config: timm's own words on it (first layer, classifier); empty for others.
    """

    loads_it: str
    architecture: str
    args: dict[str, Any]
    config: dict[str, Any]


def write_export(config: ExportConfig, path: Path, checkpoint: Checkpoint, reporter: Reporter) -> None:
    """Write a checkpoint's network as safetensors with a configuration and a model card, and perhaps as ONNX.

    Args:
        config: Which files, and where.
        path: Where the checkpoint was read from.
        checkpoint: The network.
        reporter: Shows what is written.

    Raises:
        ConfigError: If a file is there already or cannot be written.
        ModelError: If the ONNX file differs from the network.
    """
    names = config.names if config.onnx else config.names[:3]
    there = [config.folder / name for name in names if (config.folder / name).exists()]
    if there:
        raise ConfigError(f"{there[0]} is there already; give another --out")
    model = rebuild(checkpoint, path)
    try:
        config.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".export-", dir=config.folder) as folder:
            _write(Path(folder), names, checkpoint, model, _results(path, checkpoint), reporter)
            # Whole files take their names, the card last.
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == names[2]):
                file.replace(config.folder / file.name)
                reporter.line(f"wrote {config.folder / file.name}")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot write {config.folder}: {reason}; give another --out") from error


def _write(
    folder: Path,
    names: tuple[str, ...],
    checkpoint: Checkpoint,
    model: Model,
    results: list[Accuracy],
    reporter: Reporter,
) -> None:
    """Write all files into a folder of their own."""
    weights, configuration, card, *onnx = names
    state = {name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}
    loader = _loader(checkpoint.model, state, getattr(model.network, "dynamic_img_size", False))
    save_file(_unshared(state), folder / weights, metadata={"format": "pt", "architecture": loader.architecture})
    text = json.dumps(_configuration(checkpoint, loader), indent=2, ensure_ascii=False) + "\n"
    (folder / configuration).write_text(text, encoding="utf-8")
    for name in onnx:
        difference = write_onnx(model.network, Resolution(checkpoint.test_res), folder / name)
        reporter.line(f"ONNX agrees with the network to {difference:.1g}")
    files = (weights, configuration, *onnx)
    text = model_card(
        checkpoint,
        results,
        library=loader.loads_it,
        architecture=loader.architecture,
        model_args=loader.args,
        files=files,
    )
    (folder / card).write_text(text, encoding="utf-8")


def _unshared(state: StateDict) -> StateDict:
    """Return tensors of which no two share their memory, as tied weights do and safetensors refuses."""
    seen: set[int] = set()
    unshared = {}
    for name, tensor in state.items():
        unshared[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return unshared


def _loader(spec: ModelSpec, state: StateDict, dynamic: bool) -> _Loader:
    """Return what loads these tensors by name: timm, if it has a network of that name with the same tensors."""
    name = spec.name.removeprefix(TIMM_PREFIX).partition(".")[0]  # behind a dot timm names pretrained weights
    args = dict(map(parse_argument, spec.args))
    try:
        network = build_on_meta(ModelSpec(TIMM_PREFIX + name, spec.num_classes, spec.args)).network
    except ModelError:
        network = None
    if network is not None and compare(network.state_dict(), state, allow_new_head=False).holds:
        cfg: Any = network.pretrained_cfg
        if dynamic:
            args["dynamic_img_size"] = True
        kept = {key: cfg[key] for key in ("first_conv", "classifier", "pool_size") if key in cfg}
        return _Loader("timm", name, args, kept)
    return _Loader("dali-fixres" if name == RESNEXT_48D or args else "torchvision", name, args, {})


def _configuration(checkpoint: Checkpoint, loader: _Loader) -> Mapping[str, Any]:
    """Return config.json, in the form of timm's networks on the Hugging Face hub.

    timm's plain ``resolve_data_config`` takes ``input_size``, so that is the size to test at; the training size is
    beside ``pretrained_cfg``, for which timm knows no such key.
    """
    images = checkpoint.data_config
    return {
        "architecture": loader.architecture,
        "library": loader.loads_it,
        "num_classes": len(checkpoint.classes),
        **({"model_args": loader.args} if loader.args else {}),
        "label_names": list(checkpoint.classes),
        "train_res": images.train_res,
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, images.test_res, images.test_res],
            "fixed_input_size": images.fixed_size,
            "interpolation": images.interpolation,
            "crop_pct": images.crop_ratio,
            "crop_mode": images.crop_mode,
            "mean": list(images.mean),
            "std": list(images.std),
            "num_classes": len(checkpoint.classes),
            **loader.config,
        },
    }


def _results(path: Path, checkpoint: Checkpoint) -> list[Accuracy]:
    """Return the accuracies that the run has recorded of this very state, ascending by resolution."""
    if checkpoint.num_done:  # in the middle of an epoch, where nothing is tested
        return []
    folder = path if path.is_dir() else path.parent
    rows = [row for row in RunFolder(folder).records() if row["event"] == "evaluation"]
    tested = [Accuracy.from_json(row) for row in rows if row["epoch"] == checkpoint.epoch]
    return sorted(tested, key=lambda accuracy: accuracy.resolution)
