"""`dali-fixres finetune`: fix a network for a higher test resolution (FixRes)."""

from dali_fixres.config import FinetuneConfig
from dali_fixres.finetuning.run import run_finetuning
from dali_fixres.report.dry_run import dry_run_of_finetune
from dali_fixres.report.finetuning import report_finetuning
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import process_group

__all__ = ["finetune"]


def finetune(config: FinetuneConfig) -> None:
    """Tune classifier and last norm at the test resolution; test before and after; leave a run folder.

    Raises:
        UserError: If something the user gave cannot be used.
        RunError: If the run cannot continue.
        Interrupted: If a signal has stopped it; it can be resumed.
    """
    if config.dry_run:
        dry_run_of_finetune(config)
        return
    device = choose_device(config.device)
    with process_group(device) as world:
        run_finetuning(config, device, world, report_finetuning)
