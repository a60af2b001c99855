"""What every bench repeats: flags, interleaved rounds, tables, and the saved result.

A bench is a dictionary of measurements. `in_rounds` runs each of them once per round, so that a noisy machine disturbs
all alike, and the first round, which fills caches and starts threads, is not recorded. Compare ratios of medians of one
run, not absolute figures: machines differ and are shared.
"""

import math
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from bench.images import bench_images
from bench.saved import Content, machine_name, save
from bench.segment import Segment
from dali_fixres.config import Device
from dali_fixres.runtime import Reporter, choose_device, record_environment
from pipelines import Dataset, Resolution, UserError, loader_threads, open_dataset, parse_resolutions, usable_cores

__all__ = [
    "OURS",
    "Bench",
    "DataFlags",
    "Effort",
    "Flags",
    "Key",
    "Table",
    "command_line",
    "in_rounds",
    "ratio_rows",
    "row_of",
    "run_command",
    "segment_row",
]

K = TypeVar("K")
V = TypeVar("V")

OURS = "dali-fixres"

WIDTH = 100
"""Columns that a table may take where output is no terminal."""


class Key(NamedTuple):
    """What is measured: a stage (``loader``, ``train step``, …), whose loader it uses, and at which resolution (px)."""

    stage: str
    loader: str
    res: int

    def __str__(self) -> str:
        """Return it for a line of progress."""
        return f"{self.stage}, {self.loader} at {self.res} px"


class Effort(NamedTuple):
    """How often a measurement is repeated, how many batches each repeat times, and for how long at most."""

    repeats: int
    num_batches: int
    seconds: float

    def of_loader(self) -> "Effort":
        """Return it without the limit of time, which a busy machine would reach: baselines have none either."""
        return self._replace(seconds=math.inf)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class DataFlags:
    """Flags of every bench."""

    data: Path | None = None
    """Data set, as for `dali-fixres train`; synthetic images of ImageNet's sizes if left out."""

    val_fraction: float | None = None
    """As for `dali-fixres train`."""

    device: Device = "auto"
    """As for `dali-fixres train`."""

    json: Path | None = None
    """Where to save the result; `runs/bench/<bench>[-<data>]_<machine>_<date>.json` if left out."""

    @property
    def torch_device(self) -> torch.device:
        """The device asked for."""
        return choose_device(self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags(DataFlags):
    """Flags of every bench that measures speed."""

    res: str | None = None
    """Pixels of the crops, separated by commas; 128,224,320 if left out, twice as many with --full."""

    batch_size: int = 64
    """Images per batch."""

    repeats: int | None = None
    """Recorded rounds, whose medians are shown; 3 if left out, 1 with --quick, 7 with --full."""

    num_batches: int | None = None
    """Timed batches per repeat; 16 if left out, 4 with --quick, 32 with --full."""

    quick: bool = False
    """A short and rough first look."""

    full: bool = False
    """The long form."""

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
            raise UserError("--quick and --full exclude each other")

    @property
    def effort(self) -> Effort:
        """Repeats, and how long each may take."""
        usual = Effort(1, 4, 1.0) if self.quick else Effort(7, 32, 5.0) if self.full else Effort(3, 16, 1.5)
        return Effort(self.repeats or usual.repeats, self.num_batches or usual.num_batches, usual.seconds)

    @property
    def resolutions(self) -> tuple[Resolution, ...]:
        """Resolutions, ascending."""
        return parse_resolutions(self.res or ("128,160,224,288,320,384" if self.full else "128,224,320"))


class Table(NamedTuple):
    """A table for a terminal or for Markdown; all columns but the first hold figures."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]

    def print(self) -> None:
        """Print it on standard output."""
        console = Console()
        if not console.is_terminal:
            console.width = WIDTH
        table = RichTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for number, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
        for row in self.rows:
            table.add_row(*row)
        console.print(self.title, style="bold", markup=False, highlight=False, soft_wrap=True)
        console.print(table)

    def markdown(self) -> str:
        """Return it as Markdown, its title before it."""
        rule = ["---", *("---:" for _ in self.headings[1:])]
        lines = (f"| {' | '.join(cells)} |" for cells in (self.headings, rule, *self.rows))
        return f"{self.title}:\n\n" + "\n".join(re.sub(r"\|  (?=\|)", "| ", line) for line in lines)


@dataclass(frozen=True, slots=True)
class Bench:
    """A benchmark: what it measures, and how it shows that.

    Attributes:
        name: Of its module.
        about: Its help.
        flags: Class of its flags.
        measure: Returns ``results``, a list of rows, and whatever else it has found.
        tables: Of a saved result.
        answer: At most three lines that answer its question.
    """

    name: str
    about: str | None
    flags: type[DataFlags]
    measure: Callable[[Any, Dataset, Reporter], dict[str, Any]]
    tables: Callable[[Content], list[Table]]
    answer: Callable[[Content], str] = lambda _: ""

    def run(self, flags: DataFlags, words: Sequence[str] = ()) -> Path:
        """Measure, save the result and print it; return where it is saved.

        Args:
            flags: What is asked for.
            words: The same as words of the command line.
        """
        reporter = Reporter()
        dataset = open_dataset(flags.data or bench_images(), val_fraction=flags.val_fraction)
        machine = record_environment()
        content: dict[str, Any] = {
            "bench": self.name,
            "command": command_line(self.name, words),
            "environment": {
                **machine,
                "workers": usable_cores(),
                "threads": loader_threads(),
                **({"batch_size": flags.batch_size} if isinstance(flags, Flags) else {}),
            },
            "data": _describe(dataset, synthetic=flags.data is None),
            "device": flags.torch_device.type,
        }
        content |= self.measure(flags, dataset, reporter)
        what = f"{self.name}-{flags.data.resolve().name}" if flags.data else self.name
        path = save(content, flags.json, what, machine_name(machine, flags.torch_device.type))
        reporter.line(f"saved {path}")
        for table in self.tables(content):
            table.print()
        if answer := self.answer(content):
            print(answer)  # noqa: T201 - the result
        return path

    def main(self) -> None:
        """Run with the flags of the command line."""

        def command(flags: Any = self.flags()) -> None:  # noqa: B008 - frozen
            self.run(flags, sys.argv[1:])

        command.__annotations__["flags"] = self.flags
        run_command(self.name, self.about, command)


def run_command(name: str, about: str | None, command: Callable[..., None]) -> None:
    """Call a function with the flags of the command line; exit with 2 if these, or the data, cannot be used."""
    app = App(
        name=f"python -m bench.{name}",
        help=about,
        version_flags=[],
        default_command=command,
        default_parameter=Parameter(negative=()),
    )
    try:
        app(exit_on_error=False, print_error=False)
    except (CycloptsError, UserError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def _describe(dataset: Dataset, *, synthetic: bool) -> dict[str, Any]:
    return {
        "name": dataset.root.name,
        "synthetic": synthetic,
        "num_images": len(dataset),
        "mean_kb": round(float(dataset.num_bytes.mean()) / 1000, 1),
        "mean_px": [round(float(side.mean())) for side in (dataset.heights, dataset.widths)],
        "fingerprint": dataset.fingerprint,
    }


def in_rounds(
    measurements: Mapping[K, Callable[[], V]],
    repeats: int,
    reporter: Reporter,
    describe: Callable[[V], str] = "{:.0f} images/s".format,
) -> dict[K, list[V]]:
    """Run every measurement once per round; return what each has found, by round, without the first round.

    Args:
        measurements: Each is one repeat.
        repeats: Recorded rounds.
        reporter: Shows progress.
        describe: Puts what a measurement has found in words.
    """
    found: dict[K, list[V]] = {key: [] for key in measurements}
    with reporter.bar("measuring", total=(repeats + 1) * len(measurements)) as bar:
        for number in range(repeats + 1):
            # Every other round runs backwards, so that nothing always follows the same neighbour.
            order = list(measurements.items())[:: 1 if number % 2 == 0 else -1]
            for position, (key, measure) in enumerate(order, start=1):
                value = measure()
                if number:
                    found[key].append(value)
                bar.update(number * len(measurements) + position, f"{key}: {describe(value)}")
    return found


def row_of(key: Key, speeds: Sequence[float]) -> dict[str, Any]:
    """Return a row of ``results``: ``stage``, ``loader``, ``res``, ``images_per_s`` (the median) and ``repeats``."""
    median = round(statistics.median(speeds), 1)
    return {**key._asdict(), "images_per_s": median, "repeats": [round(value, 1) for value in speeds]}


def segment_row(key: Key, segments: Sequence[Segment]) -> dict[str, Any]:
    """Return a row of ``results``: that of `row_of`, ``core_ms`` (the median) and ``repeats_core_ms``."""
    speeds, core_ms = zip(*segments, strict=True)
    median = round(statistics.median(core_ms), 4)
    return {**row_of(key, speeds), "core_ms": median, "repeats_core_ms": [round(value, 4) for value in core_ms]}


def ratio_rows(name: str, pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[list[str]]:
    """Return how many times as fast one is as another: a row of medians over rounds, and one of their range.

    Args:
        name: Of the first row.
        pairs: Images/s of both by round, for each column.
    """
    columns = [[one / other for one, other in zip(*pair, strict=True)] for pair in pairs]
    return [
        [name, *(f"{statistics.median(column):.2f}" for column in columns)],
        ["minimum-maximum", *(f"{min(column):.2f}-{max(column):.2f}" for column in columns)],
    ]


def command_line(name: str, words: Sequence[str]) -> str:
    """Return the command that gives these figures, without folders, and without where they are saved."""
    shown = (re.sub(r"[^\s=,]*/(?=[^/])", "", word) or "''" for word in words)
    return re.sub(r" --json[ =]\S+", "", " ".join([f"uv run python -m bench.{name}", *shown]))
