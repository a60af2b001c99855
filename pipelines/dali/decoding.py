"""How a GPU decodes images: the ways there are, what trying each has shown, and the choice between them.

Pure: `pipelines.dali.trial` tries a way, and `dali_fixres.runtime.decoding` runs the trials and keeps what they show.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

__all__ = [
    "CANDIDATES",
    "NUM_WAYS",
    "REGIONS_ON_CPU",
    "WHOLE",
    "Attempt",
    "Choice",
    "Decoding",
    "choose",
    "decodes_regions",
    "decodes_regions_on_cpu",
    "fallback",
    "hardware_engines",
    "next_way",
]

MAX_DIFFERENCE = 1.0
"""Mean difference from the CPU's pixels that an image may have, of 255."""

REGIONS_ON_CPU = "regions are decoded on the CPU: this nvJPEG does not do it with fancy upsampling"
"""The problem of a way whose regions the GPU declines."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a GPU decodes JPEGs.

    Attributes:
        region: Whether just the crop box's surroundings are decoded, or the whole image.
        hw_decoder_load: Share of each batch that is meant for the hardware JPEG engines, from 0 to 1.
        fancy_upsampling: Whether colour is interpolated where it is stored at half the size, as on the CPU.
    """

    region: bool = False
    hw_decoder_load: float = 0.65
    fancy_upsampling: bool = True

    def __str__(self) -> str:
        """Say it in words."""
        what = "the crop box's surroundings" if self.region else "whole images"
        smooth = "" if self.fancy_upsampling else ", without fancy upsampling"
        return f"{what}, {self.hw_decoder_load:.0%} on hardware engines{smooth}"


def decodes_regions(gpu: Decoding | None) -> bool:
    """Say whether just regions are decoded; None stands for the CPU, which always does that."""
    return gpu is None or gpu.region


WHOLE = Decoding()
"""What is known to be safe; the share is DALI's own default."""

CANDIDATES = tuple(Decoding(region, load) for region in (False, True) for load in (0.65, 0.0))
"""What is tried first: all with the CPU's upsampling. Without it nvJPEG before 13.2 decodes regions of most JPEGs, too,
but strong colours are then off by more than the trial allows."""

SHARES = (0.8, 0.9, 1.0)
"""For hardware engines, tried with the fastest candidate."""

NUM_WAYS = len(CANDIDATES) + len(SHARES)
"""Most ways that are tried on a GPU."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What trying a way to decode has shown.

    Attributes:
        decoding: The way.
        problem: How the trial has ended if not well: a signal, an error, a time limit. Empty if it has measured.
        difference: The largest mean difference of an image from the CPU's pixels, of 255.
        images_per_s: Speed of the loader's graph with this way.
        last_lines: What the trial has written at its end, line by line, if it has ended with a problem.
        timed_out: Whether it was ended at its time limit, which on a busy machine says little of the way.
    """

    decoding: Decoding
    problem: str = ""
    difference: float = 0.0
    images_per_s: float = 0.0
    last_lines: tuple[str, ...] = ()
    timed_out: bool = False

    @property
    def flaw(self) -> str:
        """Why this way is not to be used, or an empty string."""
        # Written this way round, a difference that is no number is a flaw.
        if self.problem or self.difference <= MAX_DIFFERENCE:
            return self.problem
        return f"wrong pixels: an image differs from the CPU's by {self.difference:.2f} of 255 on average"

    def as_json(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `as_json` has returned.

        Raises:
            KeyError, TypeError: If it is something else.
        """
        parts = {"decoding": Decoding(**content["decoding"]), "last_lines": tuple(content["last_lines"])}
        return cls(**{**content, **parts})


@dataclass(frozen=True, slots=True)
class Choice:
    """The way that images are decoded, and why."""

    decoding: Decoding
    why: str


def next_way(attempts: Sequence[Attempt], engines: int | None = None) -> Decoding | None:
    """Return what is to be tried next, or None if nothing is left.

    These are the candidates and then, if the fastest of them uses hardware engines, larger shares for these.

    Args:
        attempts: What has been tried.
        engines: How many hardware engines the GPU has, if that is known.
    """
    known = {attempt.decoding for attempt in attempts}
    first = [attempt for attempt in attempts if attempt.decoding in CANDIDATES]
    ways = list(CANDIDATES)
    best = _fastest(first) if len(first) == len(CANDIDATES) else None
    if best is not None and best.decoding.hw_decoder_load > 0 and engines != 0:
        ways += [replace(best.decoding, hw_decoder_load=share) for share in SHARES]
    return next((way for way in ways if way not in known), None)


def choose(attempts: Sequence[Attempt]) -> Choice:
    """Return the fastest way without a flaw; if there is none, decoding whole images, which DALI does by default."""
    best = _fastest(attempts)
    flaws = "; ".join(f"{attempt.decoding}: {attempt.flaw}" for attempt in attempts if attempt.flaw)
    if best is None:
        return Choice(WHOLE, f"none of {len(attempts)} ways has passed its trial, so the usual one ({flaws})")
    num_safe = sum(not attempt.flaw for attempt in attempts)
    why = f"the fastest of {num_safe} safe ways of {len(attempts)}, {best.images_per_s:.0f} images/s in its trial"
    return Choice(best.decoding, f"{why} ({flaws})" if flaws else why)


def _fastest(attempts: Sequence[Attempt]) -> Attempt | None:
    """Return the fastest attempt without a flaw, if there is one."""
    safe = [attempt for attempt in attempts if not attempt.flaw]
    return max(safe, key=lambda attempt: attempt.images_per_s, default=None)


def fallback(attempts: Sequence[Attempt]) -> str:
    """Say whether an older DALI might help: it might if decoding regions has crashed, failed or hung."""
    broken = [
        attempt for attempt in attempts if attempt.decoding.region and attempt.problem not in {"", REGIONS_ON_CPU}
    ]
    if not broken:
        return "none needed: no trial of decoding regions has crashed, failed or hung"
    return (
        f"{len(broken)} trials of decoding regions have crashed, failed or hung; nvidia-dali-cuda120 2.2 with "
        "nvImageCodec 0.8 is reported to be free of crashes (nvImageCodec issue 55), but is older than this package "
        "supports, and untried"
    )


def decodes_regions_on_cpu(log: str) -> bool:
    """Say whether nvImageCodec's log tells that the GPU has declined regions, which the CPU has then decoded."""
    return "ROI decode with fancy upsampling" in log


def hardware_engines(log: str) -> int | None:
    """Return the number of hardware JPEG engines in nvImageCodec's log at level 4, or None if it names none.

    Its lines are ``HW decoder available num_hw_engines=7 num_cores_per_hw_engine=1`` or
    ``HW decoder not supported by this platform. Skip.``
    """
    if found := re.search(r"num_hw_engines=(\d+)", log):
        return int(found[1])
    return 0 if "HW decoder not supported by this platform" in log else None
