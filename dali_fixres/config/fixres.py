"""Settings of `fixres`, and the settings of the commands it is made of."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from dali_fixres.config.finetuning import FinetuneConfig, TrainableSettings
from dali_fixres.config.network import EvaluateConfig, NetworkConfig
from dali_fixres.config.rules import Count, Parsed, PixelsList, Positive, field_names, given_flags
from dali_fixres.config.training import TrainConfig, TrainingConfig
from dali_fixres.errors import ConfigError
from pipelines.resolution import MAX_RESOLUTION_PX, STRIDE_PX, Resolution, parse_resolutions

__all__ = ["FixresConfig"]

BEST_OF_SWEEP = "best"

ONE_CALL = {"config", "json", "out", "resume"}
"""Fields about one call of one command."""

IN_CHECKPOINTS = {"model", "pretrained", "weights", "model_arg"}
"""Fields that build a network; a checkpoint holds one already."""


OF_ALL_STAGES = field_names(NetworkConfig) - IN_CHECKPOINTS - ONE_CALL

OF_RUNS = OF_ALL_STAGES | {
    "crop_ratio", "interpolation", "precision", "sync_bn", "checkpoint_every", "accept_changed_data",
}  # fmt: skip
"""Fields of training and of fine-tuning alike."""

OF_FINETUNING = {"method"} | field_names(TrainableSettings)

OF_TRAINING = field_names(TrainingConfig) - ONE_CALL


def _target(text: str) -> int | None:
    """Read a number of pixels; None for the best of the sweep."""
    if text == BEST_OF_SWEEP:
        return None
    if not text.isdecimal():
        raise ConfigError(f"--test-res must be a number of pixels, or {BEST_OF_SWEEP}; found {text!r}")
    return Resolution(int(text)).crop_px


@dataclass(frozen=True, kw_only=True)
class FixresConfig(TrainingConfig, TrainableSettings):
    """Settings of `dali-fixres fixres`: those of training, and those of the stages after it.

    Settings of data, machine and batch are for all stages. The other settings of training are for training alone;
    fine-tuning has its own epochs and learning rate, and `finetune`'s defaults for the rest.
    """

    test_res: Annotated[str, Parsed(_target)] = BEST_OF_SWEEP
    """Pixels to fix the network for; or best, the resolution at which the trained network is most accurate in the
    sweep, and at least the training resolution."""

    sweep: PixelsList | None = None
    """Pixels to test at before and after fine-tuning, with commas between. Those of training and fine-tuning are added.
    Left out: multiples of 32 from the training resolution to twice that."""

    checkpoint: Path | None = None
    """Run folder or checkpoint file to start from, instead of training."""

    baseline: Path | None = None
    """Folder of a finished `train` run at the test resolution, to compare with."""

    method: Literal["cached-features", "sgd"] | None = None
    """How to fine-tune, as for `finetune`: run the network over the images once, and train the classifier on the
    features (cached-features); or run it in every epoch (sgd)."""

    finetune_epochs: Count = 8
    """Passes of fine-tuning over the training images, or over their features."""

    finetune_lr: Positive | None = None
    """Peak learning rate of fine-tuning, not scaled; `finetune`'s own if left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.finetune_config(Path(), self.schedule.last.crop_px, Path(), resume=False)  # checks its settings
        if self.checkpoint is not None:
            given = given_flags(self, OF_TRAINING - OF_RUNS)
            if given:
                raise ConfigError(f"--checkpoint replaces training, so there is no use for {', '.join(given)}")

    @property
    def target(self) -> int | None:
        """The resolution to fix the network for, pixels; None for the best of the sweep."""
        return _target(self.test_res)

    def sweep_resolutions(self, trained_at: int) -> str:
        """Return the resolutions to test at, for a network trained at `trained_at` pixels, as `evaluate` takes them."""
        sides = {trained_at, *([self.target] if self.target else [])}
        if self.sweep is None:
            first = math.ceil(trained_at / STRIDE_PX) * STRIDE_PX
            sides |= set(range(first, min(2 * trained_at, MAX_RESOLUTION_PX) + 1, STRIDE_PX))
        else:
            sides |= {resolution.crop_px for resolution in parse_resolutions(self.sweep)}
        return ",".join(map(str, sorted(sides)))

    def train_config(self, out: Path, *, resume: bool) -> TrainConfig:
        """Return the settings of `train`."""
        return TrainConfig(**self._values(OF_TRAINING), out=out, resume=resume)

    def evaluate_config(self, checkpoint: Path, test_res: str, json: Path) -> EvaluateConfig:
        """Return the settings of `evaluate`."""
        return EvaluateConfig(
            **self._values(OF_ALL_STAGES),
            crop_ratio=None if self.crop_ratio is None else f"{self.crop_ratio}",
            interpolation="auto" if self.interpolation == "random" else self.interpolation,
            checkpoint=checkpoint,
            test_res=test_res,
            json=json,
            plot=json.with_suffix(".png"),
        )

    def finetune_config(self, checkpoint: Path, test_res: int, out: Path, *, resume: bool) -> FinetuneConfig:
        """Return the settings of `finetune`."""
        return FinetuneConfig(
            **self._values(OF_RUNS | OF_FINETUNING),
            checkpoint=checkpoint,
            test_res=test_res,
            epochs=self.finetune_epochs,
            lr=self.finetune_lr,
            out=out,
            resume=resume,
        )

    def _values(self, names: set[str]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}
