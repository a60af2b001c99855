"""What a run leaves behind while it runs: checkpoints, records, lines. One process writes; all processes call."""

from dataclasses import dataclass

from dali_fixres.checkpoints import EpochStatistics
from dali_fixres.checkpoints.checkpoint import Checkpoint, save_checkpoint
from dali_fixres.errors import Interrupted
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.json_files import EpochRecord, EvaluationRecord
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import RunFolder
from dali_fixres.training.resume import resume_hint

__all__ = ["RunLog"]


@dataclass(frozen=True, slots=True, eq=False)
class RunLog:
    """Where a run writes.

    Attributes:
        command: ``train`` or ``finetune``.
        folder: The run folder; None in all processes but the first.
        world: All processes.
        reporter: Shows progress and lines.
    """

    command: str
    folder: RunFolder | None
    world: World
    reporter: Reporter

    def save(self, name: str, state: Checkpoint) -> None:
        """Write a checkpoint, and let the other processes wait for it."""
        if self.folder is not None:
            save_checkpoint(self.folder.path / name, state)
        self.world.barrier()

    def record(self, event: str, **values: object) -> None:
        """Append an event to the records."""
        if self.folder is not None:
            self.folder.record(event, **values)

    def record_epoch(self, epoch: int, step: int, train_res: int, lr: float, statistics: EpochStatistics) -> None:
        """Append the result of an epoch (counted from 1)."""
        record: EpochRecord = {
            "epoch": epoch,
            "step": step,
            "train_res": train_res,
            "lr": lr,
            "loss": round(statistics.loss_sum / statistics.num_images, 5),
            "images_per_s": round(statistics.num_images / statistics.seconds, 2),
            "wait_share": round(statistics.waited_s / statistics.seconds, 4),
            "num_images": statistics.num_images,
            "seconds": round(statistics.seconds, 3),
        }
        self.record("epoch", **record)

    def record_evaluation(self, epoch: int, accuracy: Accuracy) -> None:
        """Append an accuracy, measured after some epochs."""
        record: EvaluationRecord = {"epoch": epoch, **accuracy.as_json()}
        self.record("evaluation", **record)

    def stopped(self, signal_name: str, step: int | None) -> Interrupted:
        """Return the error that says what has happened and how to resume; its text is empty in other processes.

        Args:
            signal_name: What has asked for it.
            step: The last one, whose state is saved; None where nothing is kept, as in a pass for features.
        """
        if self.folder is None:
            return Interrupted()
        hint = resume_hint(self.command, self.folder.path, self.world)
        where = "in the pass over the data, which starts again" if step is None else f"after step {step}"
        saved = "" if step is None else ", and saved"
        return Interrupted(f"stopped by {signal_name} {where}{saved}; resume with: {hint}")
