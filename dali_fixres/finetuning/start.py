"""What fine-tuning starts from, and which starts it refuses."""

from collections.abc import Collection
from dataclasses import replace

from dali_fixres.checkpoints.model_source import StartCheckpoint
from dali_fixres.config import FinetuneConfig
from dali_fixres.errors import CheckpointError, ConfigError

__all__ = [
    "USUAL_TRAIN_RES",
    "refuse_second_mapping",
    "refuse_untrained_head",
    "trained_at",
    "with_checkpoint_settings",
]

USUAL_TRAIN_RES = 224
"""What networks with weights from elsewhere were most likely trained at."""


def with_checkpoint_settings(config: FinetuneConfig, start: StartCheckpoint) -> FinetuneConfig:
    """Return settings with the checkpoint's data and crop ratio, and for frechet its colour jitter, where left out."""
    config = replace(config, checkpoint=start.path, crop_ratio=config.crop_ratio or start.checkpoint.crop_ratio)
    if config.method == "frechet" and config.color_jitter is None:
        config = replace(config, color_jitter=start.checkpoint.config.get("color_jitter"))
    if config.data is None:
        config = replace(config, data=start.data, val_fraction=config.val_fraction or start.val_fraction)
    return config


def refuse_untrained_head(config: FinetuneConfig, name: str, new_head: Collection[str]) -> None:
    """Raise ConfigError if activations are to be mapped for a classifier that has not been trained."""
    if config.method == "frechet" and new_head:
        raise ConfigError(
            f"--method frechet trains nothing, and {name} has a new classifier for the classes of this data; train it "
            "first, or use another method"
        )


def refuse_second_mapping(config: FinetuneConfig, start: StartCheckpoint) -> None:
    """Raise CheckpointError if a network that has a Fréchet mapping is to be given another."""
    if config.method == "frechet" and start.checkpoint.model.frechet:
        raise CheckpointError(f"{start.path} has a Fréchet mapping already; start from the network before it")


def trained_at(config: FinetuneConfig, start: StartCheckpoint | None) -> int:
    """Return the pixels that the network to fix was trained at."""
    return config.train_res or (start.checkpoint.train_res if start is not None else USUAL_TRAIN_RES)
