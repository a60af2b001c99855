"""`dali-fixres train`: train at a low resolution."""

from dali_fixres.config import TrainConfig
from dali_fixres.report.dry_run import dry_run_of_train
from dali_fixres.report.training import report_training
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import process_group
from dali_fixres.training.run import resolve_defaults, run_training

__all__ = ["train"]


def train(config: TrainConfig) -> None:
    """Train a network, test it after every epoch, and leave a run folder.

    Raises:
        UserError: If something the user gave cannot be used.
        RunError: If the run cannot continue.
        Interrupted: If a signal has stopped it; it can be resumed.
    """
    if config.dry_run:
        dry_run_of_train(resolve_defaults(config))
        return
    device = choose_device(config.device)
    with process_group(device) as world:
        run_training(config, device, world, report_training)
