"""Every bench whose saved result is stale, one after the other, into bench/results; then docs/performance.md.

    uv run python -m bench.run_all
    uv run python -m bench.run_all --only switching,scaling --again

A result is stale if the packages, or the bench, have changed since its commit, or if it was measured on changed files.
A bench that fails is named at the end, and the others run all the same. What needs a data set (`bench.methods`, and
results of other data) is run by hand, with --json bench/results/<bench>-<data>_<machine>_<date>.json.
"""

import subprocess
import sys
from datetime import datetime
from functools import partial

from cyclopts import App

from bench.report import BENCHES, refresh_page
from bench.saved import RESULTS, changed_since, is_stale, machine_name, newest
from dali_fixres.config import Device
from dali_fixres.runtime import Reporter, choose_device, record_environment

PACKAGES = ("dali_fixres", "pipelines", "bench/workloads.py")


def main(*, only: str | None = None, again: bool = False, device: Device = "auto") -> None:
    """Run what is stale, in its long form, and refresh the page.

    Args:
        only: Benches, separated by commas; all if left out.
        again: Run what is not stale, too.
        device: As for `dali-fixres train`.
    """
    reporter, today = Reporter(), datetime.now().astimezone().date().isoformat()
    machine = machine_name(record_environment(), choose_device(device).type)
    saved = {one.what: one for one in newest(RESULTS) if one.machine == machine}
    failed = []
    for name in only.split(",") if only else [name for name in BENCHES if name != "methods"]:
        differs = partial(changed_since, paths=(*PACKAGES, f"bench/{name}.py"))
        if not again and not is_stale(saved.get(name), differs):
            reporter.line(f"{name}: {saved[name].path} is up to date")
            continue
        out = RESULTS / f"{name}_{machine}_{today}.json"
        command = [sys.executable, "-m", f"bench.{name}", f"--device={device}", "--full", f"--json={out}"]
        reporter.line(" ".join(command[1:]))
        if subprocess.run(command, check=False, cwd=RESULTS.parents[1]).returncode != 0:  # noqa: S603 - our own module
            failed.append(name)
    refresh_page()
    if failed:
        sys.exit(f"failed, see above: {', '.join(failed)}")


if __name__ == "__main__":
    App(name="python -m bench.run_all", help=__doc__, help_format="plaintext", default_command=main)()
