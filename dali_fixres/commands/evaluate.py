"""`dali-fixres evaluate`: accuracy and cost over test resolutions, crop ratios and views of an image."""

from dali_fixres.config import EvaluateConfig
from dali_fixres.evaluation.run import count_saved_outputs, run_evaluation
from dali_fixres.report.sweep import report_sweep
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import process_group

__all__ = ["evaluate"]


def evaluate(config: EvaluateConfig) -> None:
    """Test a network at all settings, or count saved outputs again; report.

    Raises:
        UserError: If something the user gave cannot be used.
    """
    device = choose_device(config.device)
    with process_group(device) as world:
        if config.from_outputs is None:
            result = run_evaluation(config, device, world)
        elif world.is_main:
            result = count_saved_outputs(config, config.from_outputs)
        if world.is_main:
            report_sweep(config, result)
