"""What `evaluate` says at its end: table, recommendation, JSON and plot."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dali_fixres.config import EvaluateConfig
from dali_fixres.errors import ConfigError
from dali_fixres.evaluation.metrics import Accuracy, best_of, recommended_of
from dali_fixres.evaluation.predictions import Origin
from dali_fixres.report.plots import plot_sweep
from dali_fixres.report.tables import accuracy_table, in_words, print_table
from dali_fixres.runtime.progress import Reporter
from pipelines.storage.files import write_json

__all__ = ["read_before", "report_sweep"]


def read_before(path: Path | None, fingerprint: str) -> list[Accuracy]:
    """Read the results of an earlier call, to draw them beside this one's; none without a path.

    Raises:
        ConfigError: If the file is not what ``evaluate --json`` writes, or is about other data.
    """
    if path is None:
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        results = [Accuracy.from_json(row) for row in content["results"]]
        other = content["fingerprint"]
    except OSError as error:
        raise ConfigError(f"cannot read --before {path}: {error.strerror}") from error
    except KeyError as error:
        raise ConfigError(f"--before {path} is not what evaluate --json writes: it lacks {error}") from error
    except (ValueError, TypeError, AttributeError, ConfigError) as error:
        raise ConfigError(f"--before {path} is not what evaluate --json writes: {error}") from error
    if other != fingerprint:
        raise ConfigError(
            f"--before {path} is of another data set (fingerprint {other[:12]}) than this one ({fingerprint[:12]})"
        )
    return results


def report_sweep(
    config: EvaluateConfig, origin: Origin, results: Sequence[Accuracy], before: Sequence[Accuracy], plot: Path
) -> None:
    """Print the table and which setting is best and which recommended; write JSON and plot."""
    best, recommended = best_of(results), recommended_of(results)
    title = f"{origin.title}{', answers among its classes alone' if config.only_mapped else ''}"
    print_table(title, accuracy_table(results))
    reporter = Reporter()
    if len(results) > 1:
        reporter.line(_recommendation(best, recommended))
    if config.json is not None:
        content: dict[str, Any] = {
            "results": [accuracy.as_json() for accuracy in results],
            "best": best.as_json(),
            "recommended": recommended.as_json(),
            "only_mapped": config.only_mapped,
            "class_outputs": origin.class_map.outputs,
            "model": origin.model,
            "checkpoint": origin.checkpoint,
            "unreadable": list(origin.unreadable),
            "synthetic": origin.synthetic,
            "fingerprint": origin.fingerprint,
            "environment": origin.environment,
        }
        write_json(config.json, content)
    plot_sweep(plot, {"before": before, origin.model: results} if before else {origin.model: results}, origin.title)
    reporter.line(f"plot: {plot}")


def _recommendation(best: Accuracy, recommended: Accuracy) -> str:
    """Say in one line what to test at, and what that costs."""
    low, high = best.top1_interval
    if recommended == best:
        return f"recommended: {in_words(best)}, the best top-1; none that is cheaper comes within its 95 % interval"
    return (
        f"recommended: {in_words(recommended)}, the cheapest within the 95 % interval of the best ({low:.1f} to "
        f"{high:.1f} %), which is {in_words(best)}"
    )
