"""Every bench, one after the other, into bench/results/WHAT_MACHINE_DATE.json; and the page made of them.

    uv run python bench/run_all.py --full
    uv run python bench/run_all.py --only switching,scaling --again
    uv run python bench/run_all.py --data DIR --recipe bench/grocery.toml --weights FILE
    uv run python bench/run_all.py --page

A results file of the same name is kept, so a call that was stopped is called again; after midnight, give it the same
--date. What --quick measures is not to be kept and goes to bench/results/quick. A bench that fails is named at the end,
and the others are measured all the same.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cyclopts import App, Parameter
from harness import RESULTS, start
from kept import kept_path, machine_name

from dali_fixres.errors import RunError, UserError
from dali_fixres.runtime.environment import environment
from dali_fixres.runtime.progress import Reporter
from pipelines.storage.files import write_text

HERE = Path(__file__).parent


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Flags."""

    page: bool = False
    """Measure nothing; make docs/performance.md from the newest results, or performance.md in the folder of others."""

    data: Path | None = None
    """Data set of single files; images made from a seed if left out. Its name goes into those of the results."""

    quick: bool = False
    """A first look: short and rough."""

    full: bool = False
    """For figures that are to be kept: long."""

    only: str | None = None
    """Names of benches, with commas between; all if left out."""

    again: bool = False
    """Measure what has a results file, too."""

    date: str | None = None
    """Of the results; today if left out."""

    results: Path | None = None
    """Folder for them; bench/results if left out."""

    checkpoint: Path | None = None
    """A run on --data, for the accuracies of parity.py."""

    peers: str | None = None
    """Other loaders to measure beside ours, as for throughput.py."""

    recipe: Path | None = None
    """For methods.py, which is left out without it; it needs --data, too."""

    weights: Path | None = None
    """For methods.py."""

    def __post_init__(self) -> None:
        if self.quick and self.full:
            raise UserError("--quick and --full are opposites; give one of them")
        if self.recipe is not None and self.data is None:
            raise UserError("--recipe needs --data")
        if unknown := set(self.names) - set(commands(self)):
            raise UserError(f"no bench is called {', '.join(sorted(unknown))}; there are {', '.join(commands(self))}")

    @property
    def names(self) -> list[str]:
        """The benches asked for."""
        return self.only.split(",") if self.only else list(commands(self))

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.results or (RESULTS / "quick" if self.quick else RESULTS)


def commands(bench: Bench) -> dict[str, list[str]]:
    """Return the flags of each bench, all but where its results go."""
    data = [f"--data={bench.data}"] if bench.data else []
    effort = "quick" if bench.quick else "full" if bench.full else ""
    shared = [*data, *([f"--{effort}"] if effort else [])]
    peers = [f"--peers={bench.peers}"] if bench.peers else []
    found = {
        "limits": shared,
        "throughput": [*shared, *peers],
        # The images made from a seed are too few for the batches that --full has.
        "prepared": [*shared, *(["--num-batches=16"] if bench.full else []), *peers],
        "freed_memory": shared,
        "operators": shared,
        "switching": shared,
        "finetune_cost": shared,
        "parity": [*shared, *([f"--checkpoint={bench.checkpoint}"] if bench.checkpoint else [])],
        "scaling": shared,
        "unreadable": shared,
    }
    if bench.recipe is not None:
        weights = [f"--weights={bench.weights}"] if bench.weights else []
        found["methods"] = [*data, f"--recipe={bench.recipe}", *weights]
    return found


def main(bench: Bench) -> None:
    """Measure what is missing, or make the page.

    Raises:
        RunError: If benches have failed.
    """
    reporter = Reporter()
    if bench.page:
        from page import PAGE, page  # noqa: PLC0415 - it imports all benches

        out = PAGE if bench.folder.resolve() == RESULTS.resolve() else bench.folder / PAGE.name
        write_text(out, page(bench.folder))
        reporter.line(f"wrote {out}")
        return
    machine, today = machine_name(environment()), bench.date or datetime.now().astimezone().date().isoformat()
    failed = []
    for name in bench.names:
        what = f"{name}-{bench.data.name}" if bench.data else name
        out = kept_path(bench.folder, what, machine, today)
        if out.exists() and not bench.again:
            command = json.loads(out.read_text(encoding="utf-8"))["command"]
            reporter.line(f"{name}: kept {out}, measured by `{command}`; --again measures it anew")
            continue
        out.parent.mkdir(parents=True, exist_ok=True)
        flags = [*commands(bench)[name], f"--json={out}"]
        reporter.line(f"bench/{name}.py {' '.join(flags)}")
        command = [sys.executable, str(HERE / f"{name}.py"), *flags]
        if subprocess.run(command, check=False).returncode != 0:  # noqa: S603 - our own scripts
            failed.append(name)
            if out.exists():  # figures that came before the failure are not to count as measured
                out.replace(out.with_suffix(".failed"))
    if failed:
        raise RunError(f"failed: {', '.join(failed)}, and have said why above; the same call measures what is missing")


app = App(name="run_all.py", help=__doc__, help_format="plaintext")


@app.default
def _run(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
