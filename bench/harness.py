"""What all benches share: flags, measures that take turns, what a figure was measured on, and where it goes.

A bench is a dictionary of measures. `interleaved` runs every one of them once, and again, so that a noisy machine
disturbs all alike; the first round, which fills caches and starts threads, is not recorded. Read ratios of medians of
one run, not absolute figures.
"""

import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, TypeVar

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError
from matplotlib.figure import Figure
from pictures import bench_images

from dali_fixres.errors import RunError, UserError
from dali_fixres.report.plots import save_figure
from dali_fixres.runtime.environment import environment
from dali_fixres.runtime.progress import Reporter
from pipelines.dataset import OpenedData, open_dataset
from pipelines.processes import loader_threads, usable_cores
from pipelines.resolution import Resolution, parse_resolutions
from pipelines.storage.files import write_json

__all__ = [
    "RESULTS",
    "Effort",
    "Flags",
    "Key",
    "Measure",
    "command_of",
    "in_turns",
    "interleaved",
    "open_bench_data",
    "report",
    "row_of",
    "sources",
    "spread",
    "start",
    "times",
]

K = TypeVar("K")
V = TypeVar("V")

RESULTS = Path(__file__).parent / "results"

Measure = Callable[[], float]
"""One repeat: returns images/s."""


class Key(NamedTuple):
    """What a measure is of: a stage (``loader``, ``train step``, …), whose loader it uses, and at which resolution."""

    stage: str
    loader: str
    res: int


class Effort(NamedTuple):
    """How often a measure is repeated, and how many batches a repeat has."""

    repeats: int
    num_batches: int


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What every bench can be told."""

    data: Path | None = None
    """Data set, as for `dali-fixres train`; images of ImageNet's sizes, made from a seed, if left out."""

    val_fraction: float | None = None
    """As for `dali-fixres train`."""

    res: str = "128,160,224,288,320,384"
    """Pixels of the crops, with commas between."""

    batch_size: int = 64
    """Images per batch."""

    repeats: int | None = None
    """Interleaved repeats, whose medians are shown; 3 if left out, 1 with --quick, 7 with --full."""

    num_batches: int | None = None
    """Timed batches per repeat; 16 if left out, 4 with --quick, 32 with --full."""

    quick: bool = False
    """A first look: short and rough."""

    full: bool = False
    """For figures that are to be kept: long."""

    json: Path | None = None
    """Write the figures here; bench/results/NAME.json if left out. The plot goes beside it."""

    def __post_init__(self) -> None:
        least = {
            "--batch-size": (self.batch_size, 1),
            "--repeats": (self.repeats, 1),
            "--num-batches": (self.num_batches, 2),
        }
        for flag, (found, minimum) in least.items():
            if found is not None and found < minimum:
                raise UserError(f"{flag} must be at least {minimum}; found {found}")
        if self.quick and self.full:
            raise UserError("--quick and --full are opposites; give one of them")

    @property
    def effort(self) -> Effort:
        """Repeats and batches per repeat."""
        usual = Effort(1, 4) if self.quick else Effort(7, 32) if self.full else Effort(3, 16)
        return Effort(self.repeats or usual.repeats, self.num_batches or usual.num_batches)

    @property
    def resolutions(self) -> tuple[Resolution, ...]:
        """What is measured at, ascending."""
        return parse_resolutions(self.res)


def open_bench_data(flags: Flags) -> OpenedData:
    """Open the data set given, or make one."""
    return open_dataset(flags.data or bench_images(), val_fraction=flags.val_fraction)


def in_turns(
    measures: Mapping[K, Callable[[], V]],
    repeats: int,
    reporter: Reporter,
    given: Callable[[K, V], str],
    *,
    warm_up: bool = True,
) -> dict[K, list[V]]:
    """Run every measure once, and again, …; return what each has found, in their order.

    Args:
        measures: Each is one repeat.
        repeats: Recorded rounds.
        reporter: Shows how far it is.
        told: Says what a measure has found.
        warm_up: Whether a round that is not recorded goes before.
    """
    found: dict[K, list[V]] = {key: [] for key in measures}
    rounds = repeats + warm_up
    with reporter.bar("measuring", total=rounds * len(measures)) as bar:
        for number in range(rounds):
            # There and back, so that nothing always follows the same neighbour.
            turns = list(measures.items())[:: 1 if number % 2 == 0 else -1]
            for position, (key, measure) in enumerate(turns, start=1):
                value = measure()
                if number >= rounds - repeats:
                    found[key].append(value)
                bar.update(number * len(measures) + position, given(key, value))
    return found


def interleaved(measures: Mapping[Key, Measure], repeats: int, reporter: Reporter) -> list[dict[str, Any]]:
    """Run every measure once, and again, …; return one row per measure, in their order."""
    samples = in_turns(measures, repeats, reporter, _told)
    return [row_of(key, values) for key, values in samples.items()]


def _told(key: Key, speed: float) -> str:
    return f"{key.stage}, {key.loader} at {key.res} px: {speed:.0f} img/s"


def row_of(key: Key, repeats: list[float]) -> dict[str, Any]:
    """Return a row of ``results``: ``stage``, ``loader``, ``res``, ``images_per_s`` (the median) and ``repeats``."""
    median = round(statistics.median(repeats), 1)
    return {**key._asdict(), "images_per_s": median, "repeats": [round(value, 1) for value in repeats]}


def spread(row: Mapping[str, Any]) -> str:
    """Return the least and the most of a row's repeats."""
    return f"{min(row['repeats']):.0f}-{max(row['repeats']):.0f}"


def times(some: Sequence[float], others: Sequence[float]) -> str:
    """Return how many times as fast one was as another in the same round: median, least and most over the rounds."""
    ratios = [one / other for one, other in zip(some, others, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def report(
    name: str,
    flags: Flags,
    opened: OpenedData,
    content: Mapping[str, Any],
    figure: Figure | None = None,
    about_data: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write what a bench has found, with what it was measured on, and its plot; return the JSON file.

    Args:
        name: Of the bench.
        flags: As given.
        opened: The data set.
        content: ``results`` (a list of rows) and whatever else was measured.
        figure: The plot.
        about_data: What else there is to say of the data set.
    """
    dataset = opened.dataset
    machine = {"workers": usable_cores(), "threads": loader_threads(), "batch_size": flags.batch_size}
    data = {
        "name": dataset.root.name,
        "synthetic": flags.data is None,
        "num_images": len(dataset),
        "mean_kb": round(float(dataset.num_bytes.mean()) / 1000, 1),
        "mean_px": [round(float(side.mean())) for side in (dataset.heights, dataset.widths)],
        "fingerprint": dataset.fingerprint,
        **about_data,
    }
    out = flags.json or RESULTS / f"{name}.json"
    head = {
        "bench": name,
        "command": command_of(name, flags),
        "sources": sources(),
        "environment": {**environment(), **machine},
    }
    write_json(out, {**head, "data": data, **content})
    if figure is not None:
        save_figure(figure, out.with_suffix(".png"))
    return out


def sources() -> str | None:
    """Return which sources were measured: the commit, with ``-dirty`` behind it if they differ; None outside of git."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(RESULTS.parent), "describe", "--always", "--dirty", "--exclude=*"]
    asked = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - a fixed command
    return asked.stdout.strip() if asked.returncode == 0 else None


def command_of(name: str, flags: Any) -> str:
    """Return the command that gives these figures, as anyone could type it: folders by their last name."""
    words = [f"uv run python bench/{name}.py"]
    for field in fields(flags):
        value = getattr(flags, field.name)
        flag = f"--{field.name.replace('_', '-')}"
        if value == field.default or field.name == "json":
            continue
        words.append(_word(flag, value))
    return " ".join(words)


def _word(flag: str, value: object) -> str:
    if isinstance(value, bool):
        return flag if value else f"--no-{flag[2:]}"
    return f"{flag} {_shown(value)}" if value != "" else f"{flag}="


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    if isinstance(value, Path):
        return f"bench/{value.name}" if value.resolve().parent == RESULTS.parent else value.name
    return re.sub(r"([\w-]+)=[^,]*/bin/python[^,]*", _python_of, str(value))


def _python_of(peer: re.Match[str]) -> str:
    """Return a peer with a Python of an environment that is named like it: ffcv and ffcv-raw50 have the same."""
    name = peer[1]
    return f"{name}={name.partition('-')[0].upper()}_ENV/bin/python"


def start(app: App) -> None:
    """Run a bench with the flags of the command line; exit with 2 if it cannot use them or the data, 1 if it fails."""
    try:
        app(exit_on_error=False, print_error=False)
    except (CycloptsError, UserError) as error:
        _end(error, 2)
    except RunError as error:
        _end(error, 1)


def _end(error: Exception, code: int) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
