"""What a GPU is to reach, judged by what the parts of `gpu_check.py` have found. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from goals import Goal

__all__ = ["Goal", "judged"]

LEAST_TOGETHER = 0.95
"""Loader and step together, over the step alone."""

LEAST_LOADER = (("originals", 224, 10_000), ("rungs", 128, 25_000))
"""Images/s of the loader alone, on an H200 with 16 cores; or what its decoder gives at most."""

LEAST_OF_DECODER = 0.9
"""Share of the decoder's own speed that counts as its limit."""

MOST_FIRST_BATCH = 2.0
"""First batch after a change of resolution, over a steady one: the change itself costs less than one more."""

MOST_WAITING = 0.01
"""Of a step, for data."""

MOST_DIFFERENCE = 1.0
"""Of test pictures made on CPU and GPU, of 255, on average."""

MOST_POINTS_APART = 0.1
"""Accuracy on CPU and GPU."""

Parts = Mapping[str, Mapping[str, Any]]
"""What each part that is finished has found, by name."""


def judged(parts: Parts) -> list[Goal]:
    """Return all goals in a fixed order, measured or not."""
    return [
        _decoding(parts),
        _tests(parts),
        _pictures(parts),
        _accuracy(parts),
        *(_together(parts, res) for res in (128, 224)),
        *(_loader(parts, source, res, least) for source, res, least in LEAST_LOADER),
        _switch(parts),
        _waiting(parts),
    ]


def _decoding(parts: Parts) -> Goal:
    text = "a way to decode passes its trial"
    if "decoding" not in parts:
        return Goal(text)
    found = parts["decoding"]
    return Goal(text, f"{found['choice']}: {found['why']}", any(not row["flaw"] for row in found["results"]))


def _tests(parts: Parts) -> Goal:
    text = "the tests marked gpu pass"
    if "tests" not in parts:
        return Goal(text)
    passed, failed, skipped = (parts["tests"][name] for name in ("num_passed", "num_failed", "num_skipped"))
    found = f"{passed} passed, {failed} failed, {skipped} skipped"
    return Goal(text, found, passed > 0 and failed == skipped == 0)


def _pictures(parts: Parts) -> Goal:
    text = f"test pictures on GPU within {MOST_DIFFERENCE:g} of 255 of the CPU's on average"
    rows = parts.get("parity", {}).get("differences", [])
    pairs = [row for row in rows if {row["loader"], row["against"]} == {"dali cpu", "dali gpu"}]
    if not pairs:
        return Goal(text)
    found = ", ".join(f"{row['mean']:.2f} at {row['res']} px" for row in pairs)
    return Goal(text, found, all(row["mean"] <= MOST_DIFFERENCE for row in pairs))


def _accuracy(parts: Parts) -> Goal:
    text = f"top-1 on CPU and GPU within {MOST_POINTS_APART} points"
    if "evaluation" not in parts:
        return Goal(text)
    pairs = [(row["cpu_top1"], row["gpu_top1"]) for row in parts["evaluation"]["results"]]
    found = ", ".join(f"{cpu:.2f} and {gpu:.2f} %" for cpu, gpu in pairs)
    # Rounded, as 0.1 is no number that floats have.
    return Goal(text, found, all(round(abs(cpu - gpu), 6) <= MOST_POINTS_APART for cpu, gpu in pairs))


def _together(parts: Parts, res: int) -> Goal:
    text = f"loader and step together at least {LEAST_TOGETHER} of the step alone at {res} px"
    rows = parts.get("training", {}).get("results", [])
    both, step = _speed(rows, stage="together", res=res), _speed(rows, stage="train step", res=res)
    if both is None or step is None:
        return Goal(text)
    cores = parts["training"]["environment"]["usable_cores"]
    found = f"{both / step:.3f} ({both:.0f} of {step:.0f} images/s, {cores} cores)"
    return Goal(text, found, both / step >= LEAST_TOGETHER)


def _loader(parts: Parts, source: str, res: int, least: int) -> Goal:
    text = f"loader alone at {res} px from {source} at least {least} images/s, or at its decoder's limit"
    rows = parts.get("loader", {}).get("results", [])
    loader, decoder = (_speed(rows, what=what, source=source, res=res) for what in ("loader", "decode"))
    if loader is None:
        return Goal(text)
    limit = "the decoder alone not measured" if decoder is None else f"the decoder alone {decoder:.0f}"
    at_limit = decoder is not None and loader >= LEAST_OF_DECODER * decoder
    return Goal(text, f"{loader:.0f} images/s, {limit}", loader >= least or at_limit)


def _switch(parts: Parts) -> Goal:
    text = "a change of resolution costs less than one steady batch"
    summary = parts.get("switching", {}).get("summary", [])
    for row in summary:
        if row["loader"] == "dali-fixres":
            ratio = row["worst_first_ratio"]
            return Goal(text, f"the worst first batch is {ratio:.2f} steady ones", ratio < MOST_FIRST_BATCH)
    return Goal(text)


def _waiting(parts: Parts) -> Goal:
    text = f"the host waits for data less than {MOST_WAITING:.0%} of the step"
    rows = parts.get("waits", {}).get("results", [])
    if not rows:
        return Goal(text)
    found = ", ".join(f"{row['wait_share']:.2%} at {row['res']} px" for row in rows)
    return Goal(text, found, all(row["wait_share"] < MOST_WAITING for row in rows))


def _speed(rows: Iterable[Mapping[str, Any]], **wanted: Any) -> float | None:
    """Return the most images/s of the rows with these values, or None if there are none."""
    found = [row["images_per_s"] for row in rows if wanted.items() <= row.items()]
    return max(found, default=None)
