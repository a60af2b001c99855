"""The model card: what an exported network is, how accurate it is, and how to load it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dali_fixres.checkpoints.checkpoint import Checkpoint
from dali_fixres.config import to_toml
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.report.template import TEMPLATES

__all__ = ["model_card"]

PATHS = ("data", "weights", "checkpoint")
"""Settings that are paths on the training machine; the card has only their last part."""


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
        checkpoint: The exported state.
        results: Its accuracies, ascending by resolution; may be empty.
        library: ``timm``, ``torchvision`` or ``dali-fixres``: what loads it by name.
        architecture: Its name there.
        model_args: Arguments of its constructor.
        files: Names of the weights, of the configuration, and of any ONNX file.
    """
    weights, config, *onnx = files
    settings = {name: Path(value).name if name in PATHS else value for name, value in checkpoint.config.items()}
    return TEMPLATES.get_template("card.md").render(
        checkpoint=checkpoint,
        images=checkpoint.data_config,
        fixed=checkpoint.command == "finetune",
        results=results,
        library=library,
        architecture=architecture,
        model_args=model_args,
        weights=weights,
        config=config,
        onnx=onnx,
        settings=to_toml(settings).rstrip(),
    )
