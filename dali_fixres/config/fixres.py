"""What `fixres` can be told, and what that tells the commands it is made of."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from dali_fixres.config.checks import check, flag_context
from dali_fixres.config.network import EvaluateConfig, NetworkConfig
from dali_fixres.config.stages import FinetuneConfig, Policy, TrainConfig, TrainingConfig
from dali_fixres.errors import ConfigError
from pipelines.resolution import MAX_RESOLUTION_PX, STRIDE_PX, Resolution, parse_resolutions

__all__ = ["BEST_OF_SWEEP", "FixresConfig"]

BEST_OF_SWEEP = "best"


def _names(config: type[NetworkConfig]) -> set[str]:
    return {field.name for field in fields(config)}


ONE_CALL = {"config", "json", "out", "resume"}
"""About one call of one command."""

BEFORE_A_CHECKPOINT = {"model", "pretrained", "weights", "model_arg"}
"""What makes a network that a checkpoint holds already."""

EVERYWHERE = _names(NetworkConfig) - ONE_CALL - BEFORE_A_CHECKPOINT

IN_RUNS = EVERYWHERE | {"crop_ratio", "sync_bn", "checkpoint_every", "accept_changed_data"}

IN_TRAINING = _names(TrainingConfig) - ONE_CALL


@dataclass(frozen=True, kw_only=True, slots=True)
class FixresConfig(TrainingConfig):
    """Flags of `dali-fixres fixres`: those of training, and what comes after it.

    Settings of the data, the machine and the batch are for all stages. Those of learning are for training; tuning has
    its own epochs and learning rate, and `finetune`'s defaults for the rest.
    """

    test_res: str = BEST_OF_SWEEP
    """Pixels to fix the network for; or best, the resolution at which the trained network tests best in the sweep, and
    at least that of training."""

    sweep: str | None = None
    """Pixels to test at before and after tuning, with commas between; multiples of 32 from the training resolution to
    twice that if left out. Those of training and of tuning are always among them."""

    checkpoint: Path | None = None
    """Run folder or checkpoint file to begin with, instead of training."""

    against: Path | None = None
    """Folder of a finished `train` run at the test resolution, to compare with."""

    method: Literal["one-pass", "sgd"] | None = None
    """How tuning learns: the network runs over the images once (one-pass), or in every epoch (sgd). Left out: as for
    `finetune`."""

    policy: Policy | None = None
    """What tuning tunes, as for `finetune`."""

    augmentation: Literal["v1", "v2", "train"] = "v2"
    """What tuning learns from, as for `finetune`."""

    finetune_epochs: int = 8
    """Passes of tuning over the training images, or over their features."""

    finetune_lr: float | None = None
    """Learning rate of tuning at its peak, as it is; `finetune`'s own if left out."""

    def __post_init__(self) -> None:
        super(FixresConfig, self).__post_init__()
        if self.dry_run:
            raise ConfigError("--dry-run is of train and finetune, one stage at a time; leave it out")
        with flag_context("--test-res"):
            if self.test_res != BEST_OF_SWEEP:
                rule = f"a number of pixels, or {BEST_OF_SWEEP}"
                check(self.test_res.isdecimal(), "--test-res", rule, repr(self.test_res))
                Resolution(int(self.test_res), self.ratio)
        with flag_context("--sweep"):
            self.swept(self.schedule.last.crop_px)
        rate = self.finetune_lr
        check(self.finetune_epochs >= 1, "--finetune-epochs", "at least 1", self.finetune_epochs)
        check(rate is None or 0 < rate < math.inf, "--finetune-lr", "above 0", rate)
        self.tuning(Path(), self.schedule.last.crop_px, Path(), resume=False)
        if self.checkpoint is not None:
            training = [field for field in fields(TrainingConfig) if field.name in IN_TRAINING - IN_RUNS]
            said = [field.name for field in training if getattr(self, field.name) != field.default]
            if said:
                flags = ", ".join(f"--{name.replace('_', '-')}" for name in said)
                raise ConfigError(
                    f"--checkpoint takes the place of training, which {flags} would be for; leave that out"
                )

    @property
    def target(self) -> int | None:
        """The resolution to fix the network for, pixels; None for the best of the sweep."""
        return None if self.test_res == BEST_OF_SWEEP else int(self.test_res)

    def swept(self, trained_at: int) -> str:
        """Return the resolutions to test at, for a network trained at `trained_at` pixels, as `evaluate` takes them."""
        sides = {trained_at, *([self.target] if self.target else [])}
        if self.sweep is None:
            first = math.ceil(trained_at / STRIDE_PX) * STRIDE_PX
            sides |= set(range(first, min(2 * trained_at, MAX_RESOLUTION_PX) + 1, STRIDE_PX))
        else:
            sides |= {resolution.crop_px for resolution in parse_resolutions(self.sweep, self.ratio)}
        return ",".join(map(str, sorted(sides)))

    def training(self, out: Path, *, resume: bool) -> TrainConfig:
        """Return what `train` is told."""
        return TrainConfig(**self._values(IN_TRAINING), out=out, resume=resume)

    def sweeping(self, checkpoint: Path, test_res: str, json: Path) -> EvaluateConfig:
        """Return what `evaluate` is told."""
        return EvaluateConfig(
            **self._values(EVERYWHERE),
            crop_ratio=None if self.crop_ratio is None else f"{self.crop_ratio}",
            checkpoint=checkpoint,
            test_res=test_res,
            json=json,
            plot=json.with_suffix(".png"),
        )

    def tuning(self, checkpoint: Path, test_res: int, out: Path, *, resume: bool) -> FinetuneConfig:
        """Return what `finetune` is told."""
        return FinetuneConfig(
            **self._values(IN_RUNS | {"method", "policy", "augmentation"}),
            checkpoint=checkpoint,
            test_res=test_res,
            epochs=self.finetune_epochs,
            lr=self.finetune_lr,
            out=out,
            resume=resume,
        )

    def _values(self, names: set[str]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}
