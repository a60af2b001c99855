"""The stages of a `fixres` run: train low, sweep, fine-tune high, sweep again. Finished stages are not repeated."""

from dataclasses import dataclass
from pathlib import Path

import torch

from dali_fixres.config import FixresConfig
from dali_fixres.evaluation.run import run_evaluation
from dali_fixres.finetuning.run import run_finetuning
from dali_fixres.report.finetuning import report_finetuning
from dali_fixres.report.fixres import best_resolution
from dali_fixres.report.fixres_files import FixresFolder
from dali_fixres.report.sweep import report_sweep
from dali_fixres.report.training import report_training
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.signals import StopSignals
from dali_fixres.training.run import run_training

__all__ = ["Stages"]


@dataclass(frozen=True, slots=True, eq=False)
class Stages:
    """The stages of a FixRes run, in one of its processes."""

    config: FixresConfig
    folder: FixresFolder
    trained_at: int
    device: torch.device
    world: World
    signals: StopSignals
    reporter: Reporter

    def run(self) -> int:
        """Do what is not done yet, and return the resolution that the network is fixed for, pixels.

        Raises:
            Interrupted: If a signal asks for it; what is done is saved.
        """
        folder, config = self.folder, self.config
        sides = config.sweep_resolutions(self.trained_at)
        if config.checkpoint is None and self._begins(folder.train.results, f"training at {config.train_res} px"):
            training = config.train_config(folder.train.path, resume=self._exists(folder.train.last))
            run_training(training, self.device, self.world, report_training, self.signals)
        if self._begins(folder.before, f"testing the trained network at {sides} px"):
            self._sweep(folder.trained, sides, folder.before)
        side = self._fixed_for()
        if self._begins(folder.finetune.results, f"fine-tuning for {side} px"):
            resume = self._exists(folder.finetune.last)
            tuning = config.finetune_config(folder.trained, side, folder.finetune.path, resume=resume)
            run_finetuning(tuning, self.device, self.world, report_finetuning, self.signals)
        if self._begins(folder.after, f"testing the fixed network at {sides} px"):
            self._sweep(folder.finetune.path, sides, folder.after)
        if config.baseline is not None and self._begins(folder.baseline, f"testing {config.baseline} at {sides} px"):
            self._sweep(config.baseline, sides, folder.baseline)
        return side

    def _sweep(self, checkpoint: Path, sides: str, json: Path) -> None:
        config = self.config.evaluate_config(checkpoint, sides, json)
        result = run_evaluation(config, self.device, self.world, self.signals)
        if self.world.is_main:
            report_sweep(config, result)

    def _fixed_for(self) -> int:
        """Return the resolution to fix the network for: as asked, or by the sweep before."""
        if self.config.target is not None:
            return self.config.target
        found = best_resolution(self.folder.before, self.trained_at) if self.world.is_main else 0
        return self.world.gather(found)[0]

    def _begins(self, made: Path, what: str) -> bool:
        """Return whether a stage is still to be done, and announce it if so."""
        if self._exists(made):
            return False
        self.reporter.line(f"== {what}")
        return True

    def _exists(self, path: Path) -> bool:
        """Return whether the process that writes has a file; all processes have to ask."""
        return self.world.gather(path.exists())[0]
