"""What `evaluate` reports at its end: table, recommendation, JSON and plot."""

from dali_fixres.config import EvaluateConfig
from dali_fixres.evaluation.metrics import Accuracy, best_of, recommended_of
from dali_fixres.evaluation.run import EvaluationResult
from dali_fixres.report.plots import plot_sweep
from dali_fixres.report.tables import accuracy_table, in_words, print_table
from dali_fixres.runtime.json_files import EvaluateFile
from dali_fixres.runtime.progress import Reporter
from pipelines.storage.files import write_json

__all__ = ["report_sweep"]


def report_sweep(config: EvaluateConfig, result: EvaluationResult) -> None:
    """Print the table and the recommended setting; write JSON and plot."""
    origin, results = result.origin, result.results
    best, recommended = best_of(results), recommended_of(results)
    title = f"{origin.title}{', answers among its classes alone' if config.only_mapped else ''}"
    print_table(title, accuracy_table(results))
    reporter = Reporter()
    if len(results) > 1:
        reporter.line(_recommendation(best, recommended))
    if config.json is not None:
        content: EvaluateFile = {
            "results": [accuracy.as_json() for accuracy in results],
            "best": best.as_json(),
            "recommended": recommended.as_json(),
            "only_mapped": config.only_mapped,
            "class_outputs": list(origin.class_map.outputs),
            "data_config": origin.data_config.as_json(),
            "model": origin.model,
            "checkpoint": origin.checkpoint,
            "eval_precision": origin.eval_precision,
            "unreadable": list(origin.unreadable),
            "synthetic": origin.synthetic,
            "fingerprint": origin.fingerprint,
            "environment": origin.environment,
        }
        write_json(config.json, content)
    series = {"before": result.before, origin.model: results} if result.before else {origin.model: results}
    plot_sweep(result.plot, series, origin.title)
    reporter.line(f"plot: {result.plot}")


def _recommendation(best: Accuracy, recommended: Accuracy) -> str:
    """Return in one line what to test at, and what that costs."""
    low, high = best.top1_interval
    if recommended == best:
        return f"recommended: {in_words(best)}, the best top-1; no cheaper one is within its 95 % interval"
    return (
        f"recommended: {in_words(recommended)}, the cheapest within the 95 % interval of the best ({low:.1f} to "
        f"{high:.1f} %), which is {in_words(best)}"
    )
