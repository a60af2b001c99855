"""What measured speeds mean: what limits a training, and how well loader and network overlap. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Bottleneck", "Sharing", "find_bottleneck"]

Speeds = Mapping[str, Sequence[float]]
"""Images/s of each stage at one resolution, by round."""


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What limits a resolution.

    Attributes:
        limit: ``network``; ``storage``; the larger part of the loader (``decode`` or ``resize``); or ``cores``, where
            loader and network share them and want more than either alone.
        ms_per_image: Wall time of each of these alone, ms. For ``cores``, core time of loader and network over the
            number of cores.
        overlap_efficiency: Together over the slower of loader and step; at best 1 where they share no cores.
        shared_efficiency: Where they do, together over the most that the cores allow; else None.
    """

    limit: str
    ms_per_image: dict[str, float]
    overlap_efficiency: float
    shared_efficiency: float | None


class Sharing(NamedTuple):
    """Cores that loader and step keep busy alone, by round, where they run on the same ones."""

    num_cores: int
    loader: Sequence[float]
    step: Sequence[float]


def find_bottleneck(speeds: Speeds, sharing: Sharing | None) -> Bottleneck:
    """Find what limits a resolution.

    On shared cores, loader and step together are at most as fast as the slower one, and as the core time allows that
    both take for an image.

    Args:
        speeds: Of the stages ``storage``, ``decode``, ``loader``, ``train step`` and ``together``. ``decode`` is the
            loader with next to no resizing.
        sharing: None where the network has a device of its own.
    """
    storage, decode, loader, step = (
        1000 / statistics.median(speeds[stage]) for stage in ("storage", "decode", "loader", "train step")
    )
    parts = {"decode": min(decode, loader), "resize": max(loader - decode, 0.0)}
    larger = max(parts, key=lambda name: parts[name])
    shared = {} if sharing is None else {"cores": _ms_of_cores(loader, step, sharing)}
    limits = {"network": step, "storage": storage, larger: loader, **shared}
    alone = {"storage": storage, **parts, "network": step, **shared}
    rounds = list(zip(speeds["loader"], speeds["train step"], speeds["together"], strict=True))
    return Bottleneck(
        limit=max(limits, key=lambda name: limits[name]),
        ms_per_image={name: round(ms, 4) for name, ms in alone.items()},
        overlap_efficiency=round(statistics.median(both / min(one, other) for one, other, both in rounds), 3),
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
