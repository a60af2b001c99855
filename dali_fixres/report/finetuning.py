"""What `finetune` reports at its end: table, results.json, plots, and the next command."""

from dali_fixres.finetuning.run import FinetuningResult
from dali_fixres.report.plots import plot_curves, plot_sweep
from dali_fixres.report.tables import before_after_table, print_table
from dali_fixres.runtime.environment import environment
from dali_fixres.runtime.json_files import FinetuneFile
from dali_fixres.runtime.progress import Reporter
from pipelines.storage.files import write_json

__all__ = ["report_finetuning"]


def report_finetuning(result: FinetuningResult) -> None:
    """Print the table, write results.json and the plots, and name the next command; in the process that writes."""
    config, folder, data, state = result.config, result.folder, result.data, result.state
    before, after = result.before, result.after
    if folder is None:
        return
    seconds = sum(record["seconds"] for record in folder.records() if record["event"] in {"pass", "epoch"})
    content: FinetuneFile = {
        "before": [accuracy.as_json() for accuracy in before],
        "after": [accuracy.as_json() for accuracy in after],
        "seconds": round(seconds, 1),
        "trained_parameters": result.num_trained,
        "data_config": state.data_config.as_json(),
        "checkpoint": str(config.checkpoint) if config.checkpoint else None,
        "precision": config.precision,
        "eval_precision": config.eval_precision,
        "synthetic": data.synthetic,
        "fingerprint": data.dataset.fingerprint,
        "environment": environment(),
    }
    if config.method == "frechet":
        fits = next(record for record in folder.records() if record["event"] == "pass")
        content["frechet"] = {"trained": fits["trained"], "tested": fits["tested"]}
    title = f"{state.model.name} fixed for {config.test_res} px on {data.title}"
    print_table(title, before_after_table(before, after))
    write_json(folder.results, content)
    if config.json is not None:
        write_json(config.json, content)
    plot_curves(folder.curves, folder.records(), title)
    plot_sweep(folder.path / "before_after.png", {"before": before, "after": after}, title)
    Reporter().line(f"fine-tuning took {seconds / 60:.1f} minutes; checkpoints, records and plots in {folder.path}")
    sides = ",".join(str(config.test_res + more) for more in (0, 32, 64))
    Reporter().line(f"next: dali-fixres evaluate --checkpoint {folder.path} --test-res {sides} for other resolutions")
