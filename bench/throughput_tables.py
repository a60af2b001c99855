"""What `throughput.py` shows: tables, a plot, and a sentence."""

from collections.abc import Mapping
from typing import Any

from goals import goals_of_throughput, goals_table
from harness import spread, times
from matplotlib.figure import Figure
from rich.table import Table
from stages import OURS
from verdict import CORES, NETWORK, STORAGE

__all__ = ["SPEEDS", "conclusion", "drawn", "tables"]

SPEEDS = "images/s, medians and spread of the repeats"
"""Heading of the table whose rows, with our loader's name, are stages."""

PARTS = "ms of wall time per image, each part by itself"

PARTS_SHARED = f"{PARTS}; cores: core time of loader and network, over the number of cores"

LOADER = "loader"

Content = Mapping[str, Any]
"""Of the JSON file, as documented in docs/architecture.md."""


def tables(content: Content) -> dict[str, Table]:
    """Return what is shown, by heading."""
    working = any("failed" not in about for about in content["peers"].values())
    peers = {"our loader over others, ratios of the same round": _peer_table(content)} if working else {}
    return {
        SPEEDS: _speed_table(content),
        **peers,
        PARTS_SHARED if content["device"] == "cpu" else PARTS: _parts_table(content),
        "loader and step together": _together_table(content),
        "all in all": _summary_table(content),
        "goals": goals_table(goals_of_throughput(content)),
    }


def _speed_table(content: Content) -> Table:
    """Return images/s of each stage, and of the peers' loaders: one row each, a column per resolution."""
    table = _table("", *(f"{verdict['res']} px" for verdict in content["verdicts"]))
    for name, points in _series(content).items():
        table.add_row(name, *(f"{row['images_per_s']:.0f} ({spread(row)})" for row in points.values()))
    return table


def _peer_table(content: Content) -> Table:
    """Return how many times as fast our loader is as each other one: median, least and most over the rounds."""
    table = _table("", *(f"{verdict['res']} px" for verdict in content["verdicts"]))
    loaders = {(row["loader"], row["res"]): row["repeats"] for row in content["results"] if row["stage"] == LOADER}
    for other in dict.fromkeys(name for name, _ in loaders if name != OURS):
        sides = (verdict["res"] for verdict in content["verdicts"])
        table.add_row(other, *(times(loaders[OURS, res], loaders[other, res]) for res in sides))
    return table


def _parts_table(content: Content) -> Table:
    """Return how long each part takes for an image, by itself, and which one limits the training."""
    table = _table("res, px", *content["verdicts"][0]["ms_per_image"], "limit")
    for verdict in content["verdicts"]:
        times = (f"{ms:.2f}" for ms in verdict["ms_per_image"].values())
        table.add_row(str(verdict["res"]), *times, verdict["limit"])
    return table


def _together_table(content: Content) -> Table:
    """Return how well loader and step overlap, what that takes, and what Python takes of a step."""
    on_cpu = content["device"] == "cpu"
    table = _table("res, px", "overlap", "of what cores allow" if on_cpu else "GPU MiB", "cores")
    for heading in ("Python, ms", "of a step", *([] if on_cpu else ["not hidden"])):
        table.add_column(heading, justify="right")
    rows = {(row["stage"], row["res"]): row for row in content["results"] if row["loader"] == OURS}
    for verdict in content["verdicts"]:
        res = verdict["res"]
        together, overhead = rows["together", res], rows["overhead", res]
        table.add_row(
            str(res),
            f"{verdict['overlap_efficiency']:.2f}",
            f"{verdict['shared_efficiency']:.2f}" if on_cpu else str(together["device_mib"]),
            f"{together['cores']:.2f}",
            f"{overhead['ms_per_step']:.2f}",
            f"{overhead['share_of_step']:.2%}",
            *([] if on_cpu else [f"{overhead['not_hidden_share']:.2%}"]),
        )
    return table


def _summary_table(content: Content) -> Table:
    """Return from which resolution on the network is slower than the loader, and how much memory all has taken."""
    table = _table("network is slower than the loader", "host MiB at most", "GPU MiB at most")
    on_gpu = content["device"] != "cpu"
    table.add_row(_crossover(content), str(content["peak_host_mib"]), str(content["peak_device_mib"]) if on_gpu else "")
    return table


def _crossover(content: Content) -> str:
    if content["crossover_px"] is not None:
        return f"from about {content['crossover_px']} px on"
    rows = {(row["stage"], row["res"]): row["images_per_s"] for row in content["results"] if row["loader"] == OURS}
    slower = [rows["train step", one["res"]] < rows[LOADER, one["res"]] for one in content["verdicts"]]
    return (
        "at all of these resolutions" if all(slower) else "at none of these" if not any(slower) else "at some of these"
    )


def _table(*headings: str) -> Table:
    table = Table()
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def conclusion(content: Content) -> str:
    """Say what limits the training, and from which resolution on."""
    limits = {verdict["res"]: verdict["limit"] for verdict in content["verdicts"]}
    by_limit: dict[str, list[str]] = {}
    for res, limit in limits.items():
        by_limit.setdefault(limit, []).append(str(res))
    names = {NETWORK: "the network", STORAGE: "storage", CORES: "the core time of loader and network together"}
    sentence = "; ".join(
        f"{names.get(limit, f'the loader, with {limit},')} is the limit at {', '.join(sides)} px"
        for limit, sides in by_limit.items()
    )
    if content["crossover_px"] is not None:
        sentence += f"; the network becomes the limit at about {content['crossover_px']} px"
    memory = f"at most {content['peak_host_mib']} MiB on the host"
    if content["device"] != "cpu":
        memory += f" and {content['peak_device_mib']} MiB on the GPU"
    failed = [name for name, about in content["peers"].items() if "failed" in about]
    others = f"\nnot measured, as said above: {', '.join(failed)}" if failed else ""
    return f"{sentence}\nmemory: {memory}{others}"


def drawn(content: Content, title: str) -> Figure:
    """Draw images/s by resolution: ours in lines, peers dashed, and where loader and network cross."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, points in _series(content).items():
        ours = next(iter(points.values()))["loader"] == OURS
        speeds = [row["images_per_s"] for row in points.values()]
        axes.plot(list(points), speeds, "-" if ours else "--", marker="o", markersize=4, label=name)
    if content["crossover_px"] is not None:
        axes.axvline(content["crossover_px"], color="grey", linestyle=":", label="loader = network")
    ticks = [verdict["res"] for verdict in content["verdicts"]]
    axes.set(xlabel="resolution, px", ylabel="images/s", yscale="log", xticks=ticks)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.suptitle(title, fontsize="medium")
    return figure


def _series(content: Content) -> dict[str, dict[int, Any]]:
    """Return rows by name and resolution: our stages, then the peers' loaders; Python's part is in another table."""
    series: dict[str, dict[int, Any]] = {}
    for row in sorted(content["results"], key=lambda row: row["loader"] != OURS):
        if row["stage"] != "overhead":
            name = row["stage"] if row["loader"] == OURS else row["loader"]
            series.setdefault(name, {})[row["res"]] = row
    return series
