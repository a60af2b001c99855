"""docs/performance.md from results files: the prose is in performance.md.in, every figure comes from bench/results.

    python bench/run_all.py --page

The template has two kinds of places. `{{table NAME}}`, on a line of its own, becomes what a results file of that name
shows, of each machine the newest one, under its command, machine and versions; or a line that says that it has not been
measured. `{{NAME:KEY.KEY|FORMAT}}` becomes one figure of the newest file of that name.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import finetune_cost
import freed_memory
import limits
import parity
import scaling
import switching
import throughput_tables
from harness import RESULTS, spread, times
from kept import Kept, kept_in
from rich.table import Table

from dali_fixres.errors import UserError

__all__ = ["PAGE", "page"]

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
TEMPLATE = HERE / "performance.md.in"

PREPARED = "prepared"

_NAMES = {"torchvision": "torchvision, originals", "ffcv": "FFCV"}

Tables = Mapping[str, Table]
"""By their titles."""


class Shown(NamedTuple):
    """How results of a bench are shown.

    Attributes:
        command: That gives them.
        tables: From a file's content, and what `limits.py` has found on the same machine.
    """

    command: str
    tables: Callable[[Any, list[Any]], Tables]


def page(results: Path = RESULTS, template: str | None = None) -> str:
    """Return the page that a folder of results files and a template give.

    Raises:
        UserError: If the template names what is not known.
    """
    kept = kept_in(results)
    text = template if template is not None else TEMPLATE.read_text(encoding="utf-8")
    text = re.sub(r"\{\{table ([\w-]+)\}\}", lambda match: _section(match[1], kept), text)
    text = text.replace("{{gpus}}", _gpus(kept))
    return re.sub(r"\{\{([\w-]+):([^|}]+)\|([^}]*)\}\}", lambda match: _figure(match, kept), text)


def _section(name: str, kept: list[Kept]) -> str:
    """Return the tables of a bench, one machine after the other."""
    if name not in SHOWN:
        raise UserError(f"{TEMPLATE} names {name}, which is none of {', '.join(SHOWN)}")
    shown = SHOWN[name]
    # A bench's results on other data stand here too, unless the template has another place for them.
    found = [one for one in kept if one.what == name or (one.what not in SHOWN and one.what.startswith(f"{name}-"))]
    found.sort(key=lambda one: one.what != name)  # the usual one first
    if not found:
        return f"Not measured yet; `{shown.command}` does."
    parts = []
    for one in found:
        of_machine = [
            other.content for other in kept if other.content.get("bench") == "limits" and other.machine == one.machine
        ]
        tables = shown.tables(one.content, of_machine)
        parts.append(f"### {one.what}, {one.machine}\n\n{_about(one)}" if len(found) > 1 else _about(one))
        parts += [f"{title[:1].upper()}{title[1:]}:\n\n{_markdown(table)}" for title, table in tables.items()]
    return "\n\n".join(parts)


def _about(kept: Kept) -> str:
    """Return what was run on which machine with which versions, and where the file is."""
    env, command = kept.content["environment"], kept.content["command"]
    sources = f" ({kept.content['sources']})" if kept.content.get("sources") else ""
    machine = f"{env['usable_cores']} cores of {env['cpu']}" + (f" and {env['gpu']}" if env["gpu"] else "")
    versions = ("torch", "torchvision", "nvidia-dali-cuda120", "timm", "pillow", "python")
    named = ", ".join(f"{name.removesuffix('-cuda120')} {env[name]}" for name in versions)
    folder = "../bench/results/" if kept.path.parent.resolve() == RESULTS.resolve() else ""
    link = f"[{kept.path.name}]({folder}{kept.path.name})"
    data = kept.content.get("data", {})
    pictures = data if isinstance(data, str) else data.get("name") or data.get("title") or "none"
    told = ", ".join(_peer(name, about) for name, about in kept.content.get("peers", {}).items())
    others = f"; beside it {told}" if told else ""
    ours = f"dali-fixres {env['dali-fixres']}{sources}"
    note = f" Of this file: {kept.content['note'].rstrip('.')}." if kept.content.get("note") else ""
    return f"`{command}` on {machine}, {kept.date}; pictures: {pictures}; {ours}, {named}{others}; {link}.{note}"


def _peer(name: str, about: Mapping[str, Any]) -> str:
    """Name a peer, its version, and how many workers suited it, or say that it has failed."""
    package = next((one for one in about if one in name.split("-")), None)
    version = f" {about[package]}" if package else ""
    return f"{name} (failed)" if "failed" in about else f"{name}{version} ({about['workers']} workers)"


def _gpus(kept: list[Kept]) -> str:
    gpus = sorted({one.content["environment"]["gpu"] for one in kept if one.content.get("environment", {}).get("gpu")})
    return f"GPUs that were measured: {', '.join(gpus)}." if gpus else "The GPU path has not been measured yet."


def _figure(place: re.Match[str], kept: list[Kept]) -> str:
    """Return one figure of the newest file of a bench."""
    name, keys, form = place.groups()
    found = sorted((one for one in kept if one.what == name), key=lambda one: one.date)
    if not found:
        return "(not measured yet)"
    value = found[-1].content
    try:
        for key in keys.split("."):
            value = value[int(key) if isinstance(value, list) else key]
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f"{found[-1].path} has no {keys}, which {TEMPLATE} asks for") from error
    return format(value, form)


def _markdown(table: Table) -> str:
    """Return a table of rich as Markdown."""
    headings = [str(column.header) for column in table.columns]
    rows = zip(*(list(column.cells) for column in table.columns), strict=True)
    lines = [headings, ["---"] * len(headings), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(*headings)
    for row in rows:
        table.add_row(*row)
    return table


def _prepared(content: Any, limits: list[Any]) -> Tables:
    """Return images/s of loaders by resolution, with ratios and physical limits below."""
    rows = {(row["loader"], row["res"]): row for row in content["results"]}
    sides = sorted({res for _, res in rows})
    loaders = list(dict.fromkeys(loader for loader, _ in rows))
    speeds = ((one, [rows[one, res] for res in sides]) for one in loaders)
    lines = [
        [_NAMES.get(one, one), *(f"{row['images_per_s']:.0f} ({spread(row)})" for row in of)] for one, of in speeds
    ]
    for other in loaders:
        if other != PREPARED:
            cells = (times(rows[PREPARED, res]["repeats"], rows[other, res]["repeats"]) for res in sides)
            lines.append([f"{PREPARED} ÷ {_NAMES.get(other, other).partition(',')[0]}", *cells])
    lines += _loader_limits(content, limits, sides)
    title = "images/s and ratios of the same round, medians and spread of the repeats, resolutions in px"
    return {title: _table(["", *map(str, sides)], lines)}


def _throughput(content: Any, limits: list[Any]) -> Tables:
    """Return what the bench shows, with physical limits below."""
    speeds = throughput_tables.SPEEDS
    tables = throughput_tables.tables(content)
    for line in _loader_limits(content, limits, [verdict["res"] for verdict in content["verdicts"]]):
        tables[speeds].add_row(*line)
    if (beside := _beside_arithmetic(content, limits)) is not None:
        tables["train steps beside what arithmetic allows"] = beside
    split = f"{content['loader_threads']} loader threads, {content['torch_threads']} of torch"
    settings = f"{content['model']}, batches of {content['environment']['batch_size']}, {split}"
    return {f"{title}; {settings}" if title == speeds else title: table for title, table in tables.items()}


def _loader_limits(content: Any, limits: list[Any], sides: list[int]) -> list[list[str]]:
    """Return what memory allows, and beside it decoding the same pictures whole, if that was measured."""
    same = [one for one in limits if one["data"]["fingerprint"] == content["data"]["fingerprint"]]
    if not same:
        return []
    decode = same[0]["results"][0]["images_per_s"] * same[0]["environment"]["usable_cores"]
    memory = 1e9 * same[0]["memory_gb_per_s"]["most"]
    return [
        ["*for comparison:* whole pictures decoded by Pillow, one core x cores", *(f"{decode:.0f}" for _ in sides)],
        # Three bytes of a pixel are read, and three floats written.
        ["*limit:* memory, to read bytes and write float32", *(f"{memory / (15 * res**2):.0f}" for res in sides)],
    ]


def _steps_beside_limits(content: Any, limits: list[Any]) -> Tables:
    """Return the tables of the FixRes stage's cost, and how near a train step is to what arithmetic allows."""
    tables = finetune_cost.tables(content)
    beside = _beside_arithmetic(content, limits)
    return {**tables, "train steps beside what arithmetic allows": beside} if beside else tables


def _beside_arithmetic(content: Any, limits: list[Any]) -> Table | None:
    """Return how near the train steps of a bench come to the machine's matrix products, if that was measured."""
    same = [one for one in limits if one["device"] == content["device"]]
    network = [row for row in same[0]["network"] if row["model"] == content["model"]] if same else []
    if not network:
        return None
    gflop = {row["res"]: row["step_gflop"] for row in network}
    peak = same[0]["matmul_gflop_per_s"]["most"]
    rows = [row for row in content["results"] if row["stage"] == finetune_cost.TRAIN and row["res"] in gflop]
    lines = [
        [f"{row['res']}", f"{row['images_per_s']:.0f}", f"{peak / gflop[row['res']]:.0f}",
         f"{row['images_per_s'] * gflop[row['res']] / peak:.0%}"]
        for row in rows
    ]  # fmt: skip
    return (
        _table(["res, px", "train step, images/s", "*limit:* matrix products, images/s", "share"], lines)
        if lines
        else None
    )


def _operators(content: Any, _: Any) -> Tables:
    rows = content["milliseconds"]
    lines = [[name, *(f"{row[name]:.2f}" for row in rows)] for name in rows[0] if name != "res"]
    headings = ["resolution, px", *(str(row["res"]) for row in rows)]
    return {"CPU milliseconds per picture": _table(headings, lines)}


def _methods(content: Any, _: Any) -> Tables:
    from methods import accuracy_table, cost_table  # noqa: PLC0415 - its module is a bench of its own

    tables = {"top-1 %, mean ± std over seeds": accuracy_table(content["results"])}
    timed = any("epoch_s" in row for row in content["results"])  # not where the machine had other work
    return {**tables, "cost": cost_table(content["results"])} if timed else tables


def _copies_accuracy(content: Any, _: Any) -> Tables:
    sides = list(dict.fromkeys(row["res"] for row in content["results"]))
    headings = ["trained on", *(heading for side in sides for heading in (f"at {side} px", "mean ± std"))]
    lines = []
    for loader in dict.fromkeys(row["loader"] for row in content["results"]):
        same = [row for row in content["results"] if row["loader"] == loader]
        cells = ((", ".join(map(str, row["top1"])), f"{row['mean']} ± {row['std']}") for row in same)
        lines.append([loader, *(cell for pair in cells for cell in pair)])
    return {"top-1 in %": _table(headings, lines)}


SHOWN: Mapping[str, Shown] = {
    "limits": Shown("uv run python bench/limits.py", lambda content, _: limits.tables(content)),
    "throughput": Shown("uv run python bench/throughput.py", _throughput),
    "prepared": Shown("uv run python bench/prepared.py", _prepared),
    "prepared-grocery": Shown("uv run python bench/prepared.py --data grocery", _prepared),
    "freed_memory": Shown("uv run python bench/freed_memory.py", lambda content, _: freed_memory.tables(content)),
    "operators": Shown("uv run python bench/operators.py", _operators),
    "switching": Shown("uv run python bench/switching.py", lambda content, _: switching.tables(content)),
    "finetune_cost": Shown("uv run python bench/finetune_cost.py", _steps_beside_limits),
    "methods": Shown("uv run python bench/methods.py --data DIR --recipe bench/grocery.toml --weights FILE", _methods),
    "parity": Shown("uv run python bench/parity.py", lambda content, _: parity.tables(content)),
    "parity-grocery": Shown(
        "uv run python bench/parity.py --data grocery --checkpoint RUN", lambda content, _: parity.tables(content)
    ),
    "scaling": Shown("uv run python bench/scaling.py", lambda content, _: scaling.tables(content)),
    "copies-accuracy": Shown("dali-fixres evaluate, as above", _copies_accuracy),
}
