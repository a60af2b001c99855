"""`dali-fixres fixres`: train low, sweep, fine-tune high, sweep again, report."""

from dali_fixres.config import FixresConfig
from dali_fixres.errors import Interrupted
from dali_fixres.fixres.begin import complete_settings, hold_folder
from dali_fixres.fixres.stages import Stages
from dali_fixres.report.fixres import write_report
from dali_fixres.report.fixres_files import FixresFolder
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import process_group
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import FIXRES
from dali_fixres.runtime.signals import obeying_signals
from dali_fixres.training.resume import resume_hint

__all__ = ["fixres"]


def fixres(config: FixresConfig) -> None:
    """Train low, sweep, fine-tune high, sweep again; leave a folder with a report.

    Raises:
        UserError: If something the user gave cannot be used; what can be known beforehand is found before training.
        RunError: If a stage cannot continue.
        Interrupted: If a signal has stopped it; it can be resumed.
    """
    device = choose_device(config.device)
    with process_group(device) as world:
        reporter = Reporter(quiet=not world.is_main)
        config, trained_at = complete_settings(config, device, reporter, world)
        with hold_folder(config, world) as path, obeying_signals(world) as signals:
            stages = Stages(config, FixresFolder(path, config), trained_at, device, world, signals, reporter)
            try:
                fixed_for = stages.run()
            except Interrupted as stopped:
                hint = resume_hint(FIXRES, path, world)
                text = f"stopped by a signal; what is done is saved; resume with: {hint}" if world.is_main else ""
                raise Interrupted(text) from stopped
            if world.is_main:
                write_report(stages.folder, trained_at, fixed_for, reporter)
