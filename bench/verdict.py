"""What measured speeds mean: which part limits the training at a resolution, and how well loader and step overlap."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

__all__ = ["CORES", "NETWORK", "STORAGE", "Sharing", "Verdict", "crossover", "judge"]

NETWORK = "network"

STORAGE = "storage"

CORES = "cores"
"""What loader and network share on a CPU; the limit where both together want more of them than either."""

ALL_OF_IT = 0.9
"""Share of the loader's time at which a part that runs beside the others is what the loader waits for."""

Speeds = Mapping[str, Sequence[float]]
"""Images/s of the repeats of each stage at one resolution; repeats of one number are of one round."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What limits a resolution.

    Attributes:
        limit: ``network``, ``storage``, the slowest part of the loader (``read``, ``decode`` or ``resize``), or
            ``cores`` where loader and network share them and both together want more than either.
        ms_per_image: What each of these takes by itself with its own threads, ms of wall time. Where parts run beside
            one another (reading on the CPU, decoding on the GPU), what the graph takes as far as that part. For
            ``cores`` the core time of loader and network over the number of cores.
        overlap_efficiency: Together over the slower of loader and step; at best 1 where these do not share cores.
        shared_efficiency: Where they do, together over the most that the cores allow; else None.
    """

    limit: str
    ms_per_image: dict[str, float]
    overlap_efficiency: float
    shared_efficiency: float | None


class Sharing(NamedTuple):
    """What loader and step keep busy by themselves, where they run on the same cores.

    Attributes:
        num_cores: That there are.
        loader, step: Cores in use, in each round.
    """

    num_cores: int
    loader: Sequence[float]
    step: Sequence[float]


def judge(speeds: Speeds, sharing: Sharing | None) -> Verdict:
    """Judge a resolution.

    On cores that they share, loader and step together can be no faster than the slower one, and no faster than the core
    time allows that both take for an image, with all cores busy all the time.

    Args:
        speeds: With the stages ``storage``, ``read``, ``decode``, ``loader``, ``train step`` and ``together``.
        sharing: None where the network has a device of its own.
    """
    storage, read, decode, loader, step = (
        1000 / statistics.median(speeds[stage]) for stage in (STORAGE, "read", "decode", "loader", "train step")
    )
    if sharing is not None:  # each graph does what the one before does, too
        parts = {"read": read, "decode": max(decode - read, 0.0), "resize": max(loader - max(decode, read), 0.0)}
        slowest = max(parts, key=lambda name: parts[name])
    else:
        parts = {"read": read, "decode": decode, "resize": loader}
        slowest = next(name for name, ms in parts.items() if ms >= ALL_OF_IT * loader)
    shared = {} if sharing is None else {CORES: _ms_of_cores(loader, step, sharing)}
    limits = {NETWORK: step, STORAGE: storage, slowest: loader, **shared}
    rounds = list(zip(speeds["loader"], speeds["train step"], speeds["together"], strict=True))
    return Verdict(
        limit=max(limits, key=lambda name: limits[name]),
        ms_per_image={name: round(ms, 4) for name, ms in {STORAGE: storage, **parts, NETWORK: step, **shared}.items()},
        overlap_efficiency=round(statistics.median(both / min(alone, stepped) for alone, stepped, both in rounds), 3),
        shared_efficiency=None if sharing is None else _of_what_cores_allow(rounds, sharing),
    )


def _ms_of_cores(loader: float, step: float, sharing: Sharing) -> float:
    busy = statistics.median(sharing.loader) * loader + statistics.median(sharing.step) * step
    return busy / sharing.num_cores


def _of_what_cores_allow(rounds: Sequence[tuple[float, float, float]], sharing: Sharing) -> float:
    shares = []
    for (alone, stepped, both), loader, step in zip(rounds, sharing.loader, sharing.step, strict=True):
        core_s = loader / alone + step / stepped  # of an image
        shares.append(both / min(alone, stepped, sharing.num_cores / core_s))
    return round(statistics.median(shares), 3)


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
