"""What measured speeds mean: which part limits the training at a resolution, and how well loader and step overlap."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["NETWORK", "STORAGE", "Verdict", "crossover", "judge"]

NETWORK = "network"

STORAGE = "storage"

ALL_OF_IT = 0.9
"""Share of the loader's time at which a part that runs beside the others is what the loader waits for."""

Speeds = Mapping[str, Sequence[float]]
"""Images/s of the repeats of each stage at one resolution; repeats of one number are of one round."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What limits a resolution.

    Attributes:
        limit: ``network``, ``storage``, or the slowest part of the loader: ``read``, ``decode`` or ``resize``.
        ms_per_image: What each of these takes by itself on all of the machine, ms of wall time. Where parts run beside
            one another (reading on the CPU, decoding on the GPU), what the graph takes as far as that part.
        overlap_efficiency: Together over the slower of loader and step; at best 1 where these do not share cores.
        shared_efficiency: Where they do, together over what they come to when cores are shared fairly; else None.
    """

    limit: str
    ms_per_image: dict[str, float]
    overlap_efficiency: float
    shared_efficiency: float | None


def judge(speeds: Speeds, *, shares_cores: bool) -> Verdict:
    """Judge a resolution.

    Where loader and step each fill the cores by themselves, each gets the share of them with which it is as fast as
    the other: ``1 / (1 / loader + 1 / step)`` images/s. That is the slower of the two with fair shares.

    Args:
        speeds: With the stages ``storage``, ``read``, ``decode``, ``loader``, ``train step`` and ``together``.
        shares_cores: Whether the network runs on the cores that the loader runs on.
    """
    storage, read, decode, loader, step = (
        1000 / statistics.median(speeds[stage]) for stage in (STORAGE, "read", "decode", "loader", "train step")
    )
    if shares_cores:  # each graph does what the one before does, too
        parts = {"read": read, "decode": max(decode - read, 0.0), "resize": max(loader - max(decode, read), 0.0)}
        slowest = max(parts, key=lambda name: parts[name])
    else:
        parts = {"read": read, "decode": decode, "resize": loader}
        slowest = next(name for name, ms in parts.items() if ms >= ALL_OF_IT * loader)
    limits = {NETWORK: step, STORAGE: storage, slowest: loader}
    rounds = list(zip(speeds["loader"], speeds["train step"], speeds["together"], strict=True))
    fair = statistics.median(both * (1 / alone + 1 / stepped) for alone, stepped, both in rounds)
    return Verdict(
        limit=max(limits, key=lambda name: limits[name]),
        ms_per_image={name: round(ms, 4) for name, ms in {STORAGE: storage, **parts, NETWORK: step}.items()},
        overlap_efficiency=round(statistics.median(both / min(alone, stepped) for alone, stepped, both in rounds), 3),
        shared_efficiency=round(fair, 3) if shares_cores else None,
    )


def crossover(points: Sequence[tuple[int, float, float]]) -> int | None:
    """Return the resolution from which on the network is slower than the loader, or None if it is none between them.

    Args:
        points: Resolution (ascending), images/s of the loader, images/s of the step. Between two of them the ratio
            is taken to follow a power of the resolution.
    """
    for (res, loader, step), (next_res, next_loader, next_step) in pairwise(points):
        ahead, behind = math.log(step / loader), math.log(next_step / next_loader)
        if ahead >= 0 > behind:
            factor: float = (next_res / res) ** (ahead / (ahead - behind))
            return round(res * factor)
    return None
