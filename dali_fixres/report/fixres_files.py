"""The files of a `fixres` run.

OUT/
    config.toml     settings
    train/          run folder of `train`, unless the run starts from a checkpoint
    before.json     `evaluate --json` of the trained network
    finetune/       run folder of `finetune`
    after.json      `evaluate --json` of the fixed network
    baseline.json   `evaluate --json` of the network to compare with
    report.html     the report, and report.json its figures
"""

from dataclasses import dataclass
from pathlib import Path

from dali_fixres.config import FixresConfig
from dali_fixres.runtime.run_folder import RunFolder

__all__ = ["FixresFolder"]


@dataclass(frozen=True, slots=True)
class FixresFolder:
    """The files of a `fixres` run."""

    path: Path
    config: FixresConfig

    @property
    def train(self) -> RunFolder:
        """The training run; missing if the network is given as a checkpoint."""
        return RunFolder(self.path / "train")

    @property
    def trained(self) -> Path:
        """The network to fix: a run folder or a checkpoint file."""
        return self.config.checkpoint or self.train.path

    @property
    def training(self) -> RunFolder:
        """The run that trained this network; the folder of a lone checkpoint file may be none."""
        return RunFolder(self.trained if self.trained.is_dir() else self.trained.parent)

    @property
    def finetune(self) -> RunFolder:
        """The fine-tuning run."""
        return RunFolder(self.path / "finetune")

    @property
    def before(self) -> Path:
        """Accuracies of the trained network."""
        return self.path / "before.json"

    @property
    def after(self) -> Path:
        """Accuracies of the fine-tuned network."""
        return self.path / "after.json"

    @property
    def baseline(self) -> Path:
        """Accuracies of the network to compare with."""
        return self.path / "baseline.json"

    @property
    def sweep(self) -> Path:
        """Plot of all accuracies."""
        return self.path / "sweep.png"

    @property
    def page(self) -> Path:
        """The report."""
        return self.path / "report.html"
