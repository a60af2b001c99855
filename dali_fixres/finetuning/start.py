"""What fine-tuning starts from, and which starts it refuses."""

from collections.abc import Collection
from dataclasses import replace

from dali_fixres.checkpoints.model_source import StartCheckpoint
from dali_fixres.config import FinetuneConfig
from dali_fixres.errors import CheckpointError, ConfigError
from dali_fixres.runtime.progress import Reporter

__all__ = [
    "announce_target",
    "refuse_second_mapping",
    "refuse_untrained_head",
    "with_checkpoint_settings",
]


def announce_target(config: FinetuneConfig, reporter: Reporter) -> None:
    """Say what size the network is to be fixed for: the line about its images has those that it comes with."""
    reporter.line(f"to be fixed for {config.test_res} px")


def with_checkpoint_settings(config: FinetuneConfig, start: StartCheckpoint) -> FinetuneConfig:
    """Return settings with the checkpoint's data, and for frechet what varied its training crops, where left out."""
    config, trained = replace(config, checkpoint=start.path), start.checkpoint.config
    if config.method == "frechet" and config.color_jitter is None:
        config = replace(config, color_jitter=trained.get("color_jitter"))
    if config.method == "frechet" and config.interpolation == "auto" and trained.get("interpolation") == "random":
        config = replace(config, interpolation="random")
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
