"""`dali-fixres analyze`: training crops beside test crops, in the source and in what a network makes of them."""

from dali_fixres.config import AnalyzeConfig
from dali_fixres.finetuning.analysis import run_analysis
from dali_fixres.report.analysis import report_analysis
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import process_group

__all__ = ["analyze"]


def analyze(config: AnalyzeConfig) -> None:
    """Compare apparent sizes and, where there is a network, its pooled activations; leave plots and figures.

    Raises:
        UserError: If something the user gave cannot be used.
    """
    device = choose_device(config.device)
    with process_group(device) as world:
        analysis = run_analysis(config, device, world)
        if world.is_main:
            report_analysis(config, analysis)
