"""`dali-fixres export`: a trained network for use elsewhere."""

from dali_fixres.checkpoints.checkpoint import checkpoint_file, load_trained
from dali_fixres.config import ExportConfig
from dali_fixres.errors import CheckpointError
from dali_fixres.models.onnx import require_onnx
from dali_fixres.report.export import write_export
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import newest_run

__all__ = ["export"]


def export(config: ExportConfig) -> None:
    """Find the checkpoint, make sure that it can be exported, write the files.

    Raises:
        UserError: If something the user gave cannot be used, or the ONNX file differs from the network.
    """
    reporter = Reporter()
    if config.onnx:
        require_onnx()
    path = config.checkpoint or newest_run().path
    checkpoint = load_trained(path)
    if checkpoint.model.frechet:
        raise CheckpointError(
            f"{path} has a Fréchet mapping, which neither timm nor torchvision has; export a run without"
        )
    reporter.line(f"checkpoint: {checkpoint_file(path)}, of epoch {checkpoint.epoch}")
    reporter.line(f"{checkpoint.data_config.from_checkpoint()}")
    write_export(config, path, checkpoint, reporter)
