"""What a GPU is to reach, judged by what the parts of `gpu_check.py` have found. Pure."""

import statistics
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

MOST_STARVED = 0.01
"""Share of the time that the GPU has no data for."""

MOST_DIFFERENCE = 1.0
"""Of test pictures made on CPU and GPU, of 255, on average."""

MOST_POINTS_APART = 0.1
"""Accuracy on CPU and GPU; or one picture, where there are so few that it is more."""

FEWEST_REPEATS = 3
"""Of a ratio of speeds that are this near to each other."""

NOT_A_RESULT = "problem"
"""What a row has instead of figures, if its setting could not be measured."""

Parts = Mapping[str, Mapping[str, Any]]
"""What each part that is finished has found, by name."""


def judged(parts: Parts) -> list[Goal]:
    """Return all goals in a fixed order, measured or not."""
    return [
        _decoding(parts),
        _tests(parts),
        _damaged(parts),
        _pictures(parts),
        _accuracy(parts),
        *(_together(parts, res) for res in (128, 224)),
        *(_loader(parts, source, res, least) for source, res, least in LEAST_LOADER),
        _switch(parts),
        _starving(parts),
    ]


def _rows(parts: Parts, name: str) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = parts.get(name, {}).get("results", [])
    return rows


def _decoding(parts: Parts) -> Goal:
    text = "a way to decode passes its trial"
    found = parts.get("decoding", {})
    if "choice" not in found:
        return Goal(text)
    return Goal(text, f"{found['choice']}: {found['why']}", any(row.get("flaw") == "" for row in found["results"]))


def _tests(parts: Parts) -> Goal:
    text = "the tests marked gpu pass"
    rows = _rows(parts, "tests")
    if not rows:
        return Goal(text)
    names = ("num_passed", "num_failed", "num_skipped")
    passed, failed, skipped = (sum(row.get(name, 0) for row in rows) for name in names)
    problems = [f"{row['file']} {row[NOT_A_RESULT]}" for row in rows if row[NOT_A_RESULT]]
    found = ", ".join([f"{passed} passed, {failed} failed, {skipped} skipped", *problems])
    return Goal(text, found, passed > 0 and failed == skipped == 0 and not problems)


def _damaged(parts: Parts) -> Goal:
    text = f"a damaged file crashes nothing and leaves all others of its batch within {MOST_DIFFERENCE:g} of 255"
    rows = _rows(parts, "damaged")
    if not rows:
        return Goal(text)
    problems = [f"{row['damage']}: {row[NOT_A_RESULT]}" for row in rows if NOT_A_RESULT in row]
    others = [max(row["differences"][1:]) for row in rows if row.get("differences")]
    worst = max(others, default=0.0)
    found = ", ".join([f"{worst:.2f} at most in {len(others)} batches of {len(rows)} cases", *problems])
    return Goal(text, found, worst <= MOST_DIFFERENCE and not problems)


def _pictures(parts: Parts) -> Goal:
    text = f"test pictures on GPU within {MOST_DIFFERENCE:g} of 255 of the CPU's on average"
    rows = parts.get("parity", {}).get("differences", [])
    pairs = [row for row in rows if {row["loader"], row["against"]} == {"dali cpu", "dali gpu"}]
    if not pairs:
        return Goal(text)
    found = ", ".join(f"{row['mean']:.2f} at {row['res']} px" for row in pairs)
    return Goal(text, found, all(row["mean"] <= MOST_DIFFERENCE for row in pairs))


def _accuracy(parts: Parts) -> Goal:
    text = f"top-1 as tested on the GPU within {MOST_POINTS_APART} points of the CPU's, or one picture"
    rows = {(row["res"], row["device"], row["precision"]): row for row in _rows(parts, "evaluation")}
    cpu, gpu = (
        {res: row for (res, *way), row in rows.items() if way == wanted and NOT_A_RESULT not in row}
        for wanted in (["cpu", "float32"], ["cuda", "bfloat16"])
    )
    both = sorted(cpu.keys() & gpu.keys())
    if not both:
        return Goal(text)
    found = ", ".join(
        f"{gpu[res]['top1']:.2f} and {cpu[res]['top1']:.2f} % at {res} px, {gpu[res]['num_changed']} answers changed"
        for res in both
    )
    passed = all(
        abs(cpu[res]["num_right"] - gpu[res]["num_right"]) <= max(1, MOST_POINTS_APART / 100 * cpu[res]["num_images"])
        for res in both
    )
    return Goal(text, found, passed)


def _together(parts: Parts, res: int) -> Goal:
    text = f"loader and step together at least {LEAST_TOGETHER} of the step alone at {res} px"
    rows = _rows(parts, "training")
    both, step = (_speeds(rows, stage=stage, res=res) for stage in ("together", "train step"))
    if min(len(both), len(step)) < FEWEST_REPEATS:
        return Goal(text)
    together, alone = statistics.median(both), statistics.median(step)
    found = f"{together / alone:.3f} ({together:.0f} of {alone:.0f} images/s)"
    return Goal(text, found, together / alone >= LEAST_TOGETHER)


def _loader(parts: Parts, source: str, res: int, least: int) -> Goal:
    text = f"loader alone at {res} px from {source} at least {least} images/s, or at its decoder's limit"
    rows = _rows(parts, "loader")
    loader, decoder = (
        max(_speeds(rows, what=what, source=source, res=res), default=None) for what in ("loader", "decode")
    )
    if loader is None:
        return Goal(text)
    limit = "the decoder alone not measured" if decoder is None else f"the decoder alone {decoder:.0f}"
    at_limit = decoder is not None and loader >= LEAST_OF_DECODER * decoder
    return Goal(text, f"{loader:.0f} images/s, {limit}", loader >= least or at_limit)


def _switch(parts: Parts) -> Goal:
    text = "a change between resolutions that have been met costs less than one steady batch"
    known, first = (_worst_change(parts, known=known) for known in (True, False))
    if known is None:
        return Goal(text)
    others = "" if first is None else f"; {first:.2f} the first time"
    wrong = sum(row.get("num_wrong", 0) for row in _rows(parts, "switching"))
    found = f"the worst first batch is {known:.2f} steady ones{others}; {wrong} batches of a wrong size"
    return Goal(text, found, known < MOST_FIRST_BATCH and wrong == 0)


def _worst_change(parts: Parts, *, known: bool) -> float | None:
    """Return the most that a first batch takes, in steady ones: of each change the median of its repeats."""
    ratios: dict[tuple[int, int], list[float]] = {}
    for row in _rows(parts, "switching"):
        if row["known"] == known:
            for change in row.get("changes", []):
                ratios.setdefault((change["from"], change["res"]), []).append(change["first_ratio"])
    return max(map(statistics.median, ratios.values()), default=None)


def _starving(parts: Parts) -> Goal:
    text = f"the GPU has no data for less than {MOST_STARVED:.0%} of the time"
    rows = _rows(parts, "waits")
    if not rows:
        return Goal(text)
    found = ", ".join(
        f"{row['starved_share']:.2%} at {row['res']} px (the host blocked for {row['blocked_share']:.2%})"
        for row in rows
    )
    return Goal(text, found, all(row["starved_share"] < MOST_STARVED for row in rows))


def _speeds(rows: Iterable[Mapping[str, Any]], **wanted: Any) -> list[float]:
    """Return the images/s of the rows with these values."""
    return [row["images_per_s"] for row in rows if wanted.items() <= row.items() and NOT_A_RESULT not in row]
