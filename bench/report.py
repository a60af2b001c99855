"""The tables of docs/performance.md from saved results; the text around them is edited there.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``, where NAME is a bench, with ``-DATA`` behind it if
it was measured on data of its own: the newest result of each machine is shown, below its command.

    uv run python -m bench.report
    uv run python -m bench.report --results DIR      # prints the tables of other results
"""

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from bench import finetune_cost, methods, parity, precision, prepared, scaling, switching, throughput
from bench.harness import Bench, run_command
from bench.saved import RESULTS, SavedResult, newest
from pipelines import UserError

__all__ = ["BENCHES", "PAGE", "refresh_page", "refreshed"]

PAGE = RESULTS.parents[1] / "docs" / "performance.md"

BENCHES: dict[str, Bench] = {
    module.BENCH.name: module.BENCH
    for module in (throughput, switching, prepared, scaling, precision, finetune_cost, methods, parity)
}
"""In the order in which the page shows them."""

_PLACE = re.compile(r"(<!-- table: (?P<what>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def refreshed(text: str, results: Sequence[SavedResult]) -> str:
    """Return a page with the tables of these results.

    Raises:
        UserError: If it names a bench that there is none of.
    """
    return _PLACE.sub(lambda match: f"{match[1]}\n{_section(match['what'], results)}\n\n{match[3]}", text)


def _section(what: str, results: Sequence[SavedResult]) -> str:
    bench = what.partition("-")[0]
    if bench not in BENCHES:
        raise UserError(f"{PAGE} names {bench}, which is none of {', '.join(BENCHES)}")
    found = [one for one in results if one.what == what]
    if not found:
        return f"Not measured yet; `uv run python -m bench.{bench}` does."
    parts = []
    for one in found:
        parts.append(_wrapped(_about(one)))
        parts += [table.markdown() for table in BENCHES[bench].tables(one.content)]
        if note := one.content.get("note"):
            parts.append(_wrapped(f"Note: {note.rstrip('.')}."))
    return "\n\n".join(parts)


def _wrapped(text: str) -> str:
    return "\n".join(wrap(text, 120, break_long_words=False, break_on_hyphens=False))


def _about(result: SavedResult) -> str:
    """Return the command, the machine and the versions of a result, and where its file is."""
    env = result.content["environment"]
    machine = env["gpu"] if result.content.get("device") == "cuda" else f"{env['usable_cores']} cores of {env['cpu']}"
    versions = f"torch {env['torch']}, DALI {env['nvidia-dali-cuda120']}"
    others = "".join(f", {_baseline(*one)}" for one in result.content.get("baselines", {}).items())
    link = f"[{result.path.name}](../bench/results/{result.path.name})"
    return f"`{result.content['command']}` on {machine}, {result.date}, {versions}{others}; {link}."


def _baseline(name: str, about: dict[str, Any]) -> str:
    """Return a baseline with its version and number of workers, or that it has failed."""
    package = name.partition("-")[0]
    return f"{name} (failed)" if "failed" in about else f"{name} {about[package]} ({about['workers']} workers)"


def refresh_page() -> None:
    """Write the tables of the newest results into docs/performance.md."""
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8"), newest(RESULTS)), encoding="utf-8")


def main(results: Path = RESULTS) -> None:
    """Refresh the tables of docs/performance.md.

    Args:
        results: Folder of saved results; of others than bench/results the tables are printed.
    """
    if results.resolve() == RESULTS.resolve():
        refresh_page()
        return
    for one in newest(results):
        print(f"{_about(one)}\n")  # noqa: T201 - the result
        for table in BENCHES[one.content["bench"]].tables(one.content):
            table.print()


if __name__ == "__main__":
    run_command("report", __doc__, main)
