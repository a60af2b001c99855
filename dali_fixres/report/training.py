"""What `train` reports at its end: table, results.json, plot, and the next commands."""

from dali_fixres.checkpoints import load_checkpoint
from dali_fixres.report.plots import plot_curves
from dali_fixres.report.tables import accuracy_table, print_table
from dali_fixres.runtime.environment import environment
from dali_fixres.runtime.json_files import TrainFile
from dali_fixres.runtime.progress import Reporter
from dali_fixres.training.run import TrainingResult
from pipelines.storage.files import write_json

__all__ = ["report_training"]


def report_training(result: TrainingResult) -> None:
    """Print the table, write results.json and the plot, and name the next commands; in the process that writes."""
    config, folder, data, state = result.config, result.folder, result.data, result.state
    if folder is None:
        return
    content: TrainFile = {
        "results": [accuracy.as_json() for accuracy in result.accuracies],
        "best_top1": state.best_top1,
        "data_config": state.data_config.as_json(),
        "seconds": round(result.seconds, 1),
        "precision": config.precision,
        "eval_precision": config.eval_precision,
        "synthetic": data.synthetic,
        "fingerprint": data.dataset.fingerprint,
        "environment": environment(),
    }
    title = f"{state.model.name} trained at {config.train_res} px on {data.title}"
    print_table(title, accuracy_table(result.accuracies))
    write_json(folder.results, content)
    if config.json is not None:
        write_json(config.json, content)
    plot_curves(folder.curves, folder.records(), title)
    reporter = Reporter()
    reporter.line(f"{result.seconds / 60:.1f} minutes; checkpoints, records and plot in {folder.path}")
    best = load_checkpoint(folder.best)
    reporter.line(f"best was epoch {best.epoch} with {best.top1:.2f} %: {folder.best}, which the next commands take")
    low = config.schedule.last.crop_px
    sides = ",".join(str(low + more) for more in (0, 32, 64, 96))
    reporter.line(
        f"next: dali-fixres evaluate --checkpoint {folder.path} --test-res {sides} to find the best resolution"
    )
    reporter.line(f"      dali-fixres finetune --checkpoint {folder.path} --test-res PIXELS to fix it for a higher one")
