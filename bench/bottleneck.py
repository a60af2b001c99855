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
        share_of_possible: Speed together over the most that the slower part and shared cores allow.
    """

    limit: str
    ms_per_image: dict[str, float]
    share_of_possible: float


class Sharing(NamedTuple):
    """Core time per image of loader and step alone, ms, by round, where they run on the same cores."""

    num_cores: int
    loader_core_ms: Sequence[float]
    step_core_ms: Sequence[float]

    @property
    def ms(self) -> list[float]:
        """What an image takes of all cores, by round."""
        both = zip(self.loader_core_ms, self.step_core_ms, strict=True)
        return [(loader + step) / self.num_cores for loader, step in both]


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
    shared = {} if sharing is None else {"cores": statistics.median(sharing.ms)}
    limits = {"network": step, "storage": storage, larger: loader, **shared}
    alone = {"storage": storage, **parts, "network": step, **shared}
    least = [0.0] * len(speeds["loader"]) if sharing is None else sharing.ms
    rounds = zip(speeds["loader"], speeds["train step"], speeds["together"], least, strict=True)
    shares = [both / 1000 * max(1000 / loads, 1000 / trains, cores_ms) for loads, trains, both, cores_ms in rounds]
    return Bottleneck(
        limit=max(limits, key=lambda name: limits[name]),
        ms_per_image={name: round(ms, 4) for name, ms in alone.items()},
        share_of_possible=round(statistics.median(shares), 3),
    )
