"""The model card: what an exported network is, how good it is, and how to load it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dali_fixres.config import to_toml
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.training.checkpoint import Checkpoint
from pipelines.resolution import Resolution

__all__ = ["model_card"]

PATHS = ("data", "weights", "checkpoint")
"""Settings that are paths of the machine it was trained on; the card has their last part alone."""

TIMM = """
```python
import timm

network = timm.create_model("{architecture}", num_classes={num_classes}, checkpoint_path="{weights}"{extra})
```
"""

TIMM_FOLDER = """
or, with what `config.json` says, classes among it, `timm.create_model("local-dir:FOLDER", pretrained=True)`.
"""

TORCHVISION = """
```python
import torchvision
from safetensors.torch import load_file

network = torchvision.models.get_model("{architecture}", num_classes={num_classes})
network.load_state_dict(load_file("{weights}"))
```
"""

OWN = """
```python
from safetensors.torch import load_file
from dali_fixres.models import ModelSpec, build_model

network = build_model(ModelSpec("{name}", {num_classes}, {args!r})).network
network.load_state_dict(load_file("{weights}"))
```
"""


def model_card(
    checkpoint: Checkpoint,
    results: Sequence[Accuracy],
    *,
    library: str,
    architecture: str,
    model_args: Mapping[str, Any],
    files: Sequence[str],
) -> str:
    """Return the card as Markdown, with the header that the Hugging Face hub reads.

    Args:
        checkpoint: What is exported.
        results: Its accuracies, ascending by resolution; may be empty.
        library: ``timm``, ``torchvision`` or ``dali-fixres``: what loads it by name.
        architecture: Its name there.
        model_args: Arguments of its constructor.
        files: Names of the weights and of the configuration, and perhaps of an ONNX file.
    """
    resolution = Resolution(checkpoint.test_res, checkpoint.crop_ratio)
    fixed = f", fixed for {checkpoint.test_res} px" if checkpoint.command == "finetune" else ""
    facts = {
        "network": f"`{checkpoint.model.name}`",
        "classes": str(len(checkpoint.classes)),
        "trained at": f"{checkpoint.train_res} px",
        "tested at" if not fixed else "fixed for": f"{checkpoint.test_res} px",
        "test images": f"shorter side {resolution.resize_px} px (bilinear, antialiased), central "
        f"{resolution.crop_px} x {resolution.crop_px} px (crop ratio {checkpoint.crop_ratio:.4g})",
        "mean": ", ".join(f"{value:g}" for value in checkpoint.normalisation.mean),
        "standard deviation": ", ".join(f"{value:g}" for value in checkpoint.normalisation.std),
        "epochs": f"{checkpoint.epoch} ({checkpoint.step} steps)",
        "data fingerprint": f"`{checkpoint.fingerprint}`",
    }
    settings = {name: Path(value).name if name in PATHS else value for name, value in checkpoint.config.items()}
    return "\n".join(
        [
            "---",
            f"library_name: {library}",
            "tags: [image-classification, fixres]",
            "---",
            f"# {checkpoint.model.name}, trained at {checkpoint.train_res} px{fixed}",
            "",
            "Written by `dali-fixres export`. The method: Touvron et al., *Fixing the train-test resolution*",
            "*discrepancy*, [arXiv 1906.06423](https://arxiv.org/abs/1906.06423).",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in facts.items()),
            "",
            "## Accuracy",
            "",
            *_accuracy(results),
            "",
            "## Loading",
            _loading(checkpoint, library, architecture, model_args, files),
            "## Settings",
            "",
            f"Of `dali-fixres {checkpoint.command}`:",
            "",
            "```toml",
            to_toml(settings).rstrip(),
            "```",
            "",
        ]
    )


def _accuracy(results: Sequence[Accuracy]) -> list[str]:
    if not results:
        return ["Not recorded."]
    return [
        "| test resolution, px | top-1, % | top-5, % | images |",
        "|---|---|---|---|",
        *(f"| {one.resolution.crop_px} | {one.top1:.2f} | {one.top5:.2f} | {one.num_images} |" for one in results),
    ]


def _loading(
    checkpoint: Checkpoint, library: str, architecture: str, model_args: Mapping[str, Any], files: Sequence[str]
) -> str:
    weights, config, *onnx = files
    values: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": len(checkpoint.classes),
        "weights": weights,
        "name": checkpoint.model.name,
        "args": checkpoint.model.args,
        "extra": "".join(f", {key}={value!r}" for key, value in model_args.items()),
    }
    text = {"timm": TIMM, "torchvision": TORCHVISION, "dali-fixres": OWN}[library].format(**values)
    if library == "timm" and config == "config.json":
        text += TIMM_FOLDER
    for name in onnx:
        shape = f"(n, 3, {checkpoint.test_res}, {checkpoint.test_res})"
        text += f"\n`{name}` takes normalised images `images`, {shape}, and gives `logits`, (n, classes).\n"
    return text
