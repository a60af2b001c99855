"""What `fixres` has found: its figures, and what they mean in words. Pure; the page is made in report/html.py."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dali_fixres.report.ledger import Cost, Gain, Row, gain, total_cost

__all__ = ["SWEEP_BEFORE", "TRAINING", "TUNING", "Against", "Story", "row_at", "summary"]

TRAINING, SWEEP_BEFORE, TUNING = "training", "sweep before", "tuning"
"""Parts of the ledger that figures are made of."""


@dataclass(frozen=True, slots=True)
class Against:
    """A network trained at another resolution from the start, tested in the same sweep.

    Attributes:
        path: Its run.
        trained_at: Its (last) training resolution, pixels.
        rows: Its accuracies, ascending by resolution.
        training: Cost of its epochs; None if its run has no records.
        same_images: Whether it was trained on the same data set.
        same_machine: Whether it was trained on the same hardware.
    """

    path: str
    trained_at: int
    rows: Sequence[Row]
    training: Cost | None
    same_images: bool
    same_machine: bool


@dataclass(frozen=True, slots=True)
class Story:
    """All that the report is made of.

    Attributes:
        model, data: Names.
        synthetic: Whether the data is the demo.
        checkpoint: What was begun with instead of training; None where the story begins with training.
        trained_at, fixed_for: Resolutions, pixels.
        chosen: Whether the latter is the best of the sweep before, and not named by the user.
        method: Of tuning.
        before, after: Accuracy rows of the sweeps, ascending by resolution, both at the same resolutions.
        ledger: What each stage cost, in order; None where that is not recorded.
        against: What to compare with, if anything.
        settings: config.toml of each stage, as text.
        environments: What each stage ran on.
        fingerprints: Of the data in each stage.
        unreadable: A line for each file that could not be read.
        missing: What the report would say if it were recorded.
    """

    model: str
    data: str
    synthetic: bool
    checkpoint: str | None
    trained_at: int
    fixed_for: int
    chosen: bool
    method: str
    before: Sequence[Row]
    after: Sequence[Row]
    ledger: Mapping[str, Cost | None]
    against: Against | None
    settings: Mapping[str, str]
    environments: Mapping[str, Mapping[str, Any]]
    fingerprints: Mapping[str, str]
    unreadable: Sequence[str]
    missing: Sequence[str]

    @property
    def title(self) -> str:
        """What the story is about."""
        return f"{self.model}, trained at {self.trained_at} px and fixed for {self.fixed_for} px"

    @property
    def best_before(self) -> Row:
        """The best row before tuning; of equals that of the lowest resolution."""
        return best_row(self.before)

    @property
    def gains(self) -> list[tuple[str, Gain, float | None]]:
        """What was gained by what, and the seconds that took; None where they are not recorded."""
        low, high, best = row_at(self.before, self.trained_at), row_at(self.before, self.fixed_for), self.best_before
        fixed = row_at(self.after, self.fixed_for)
        tuning_s, sweep_s = (
            None if cost is None else cost.seconds for cost in (self.ledger[TUNING], self.ledger[SWEEP_BEFORE])
        )
        gains = [(f"tuning, at {self.fixed_for} px before and after", gain(high, fixed), tuning_s)]
        if best is not low:
            what = f"testing at {best['test_res']} px, the best, not at {self.trained_at} px"
            gains.insert(0, (what, gain(low, best), sweep_s))
        if best is not high:
            gains.append((f"tuning, against the best without it ({best['test_res']} px)", gain(best, fixed), tuning_s))
        if high is not low:
            what = f"tuning and testing at {self.fixed_for} px, against testing at {self.trained_at} px"
            gains.append((what, gain(low, fixed), tuning_s))
        return gains

    @property
    def learning(self) -> Cost | None:
        """The cost of training and tuning, without tests; None if one of them is not recorded."""
        costs = [self.ledger[TRAINING], self.ledger[TUNING]]
        known = [cost for cost in costs if cost is not None]
        return total_cost(known) if len(known) == len(costs) else None

    @property
    def lead(self) -> Gain | None:
        """How far the fixed network is above the one compared with, at the resolution it is fixed for."""
        if self.against is None:
            return None
        return gain(row_at(self.against.rows, self.fixed_for), row_at(self.after, self.fixed_for))

    def as_json(self) -> dict[str, Any]:
        """Return the documented object of report.json."""
        content = asdict(self)
        content["best_before"] = self.best_before["test_res"]
        content["lead"] = None if self.lead is None else _rounded(self.lead)
        content["gains"] = [
            {
                "what": what,
                **_rounded(found),
                "seconds": None if seconds is None else round(seconds, 3),
            }
            for what, found, seconds in self.gains
        ]
        return {"summary": list(summary(self)), **content}


def best_row(rows: Sequence[Row]) -> Row:
    """Return the accuracy row with the best top-1; of equals the first."""
    return max(rows, key=lambda row: float(row["top1"]))


def row_at(rows: Sequence[Row], side_px: int) -> Row:
    """Return the accuracy row of a resolution."""
    return next(row for row in rows if row["test_res"] == side_px)


def summary(story: Story) -> Iterator[str]:
    """Say in sentences what was found, whether it is flattering or not."""
    if story.synthetic:
        yield "These are synthetic demo images: the figures show the effect and say nothing about real ones."
    low, best = row_at(story.before, story.trained_at), story.best_before
    began = f"began with {story.checkpoint}, trained" if story.checkpoint else "was trained"
    yield (
        f"{story.model} {began} at {story.trained_at} px{_took(story.ledger['training'])}, and answers "
        f"{low['top1']:.1f} % of {low['num_images']} test images rightly at that resolution."
    )
    if best is low:
        yield f"Of the resolutions swept none is better for it than the {story.trained_at} px it was trained at."
    else:
        found = gain(low, best)
        yield (
            f"Without any tuning it is best at {best['test_res']} px, with {best['top1']:.1f} %: {_points(found)}"
            f"{'' if found.is_clear else ', which may be chance'}."
        )
    yield from _what_tuning_brought(story, best)
    if story.chosen:
        yield (
            f"{story.fixed_for} px was chosen on the same test images that the figures are of, so they flatter it a "
            "little."
        )
    if story.against is not None:
        yield from _comparison(story, story.against)
    if len(set(story.fingerprints.values())) > 1:
        yield "The data changed between the stages, so their figures do not compare."


def _what_tuning_brought(story: Story, best: Row) -> Iterator[str]:
    side = story.fixed_for
    untuned, fixed = row_at(story.before, side), row_at(story.after, side)
    found = gain(untuned, fixed)
    yield (
        f"Fine-tuning ({story.method}) for {side} px{_took(story.ledger['tuning'])} took it from {untuned['top1']:.1f} "
        f"% to {fixed['top1']:.1f} % at {side} px: {_points(found)}{_verdict(found, fixed, 'Fine-tuning')}"
    )
    if best is not untuned:
        found = gain(best, fixed)
        yield (
            f"Against just testing at {best['test_res']} px, which costs no tuning, the fixed network is at "
            f"{_points(found)}{_verdict(found, fixed, 'Fixing it for this resolution')}"
        )


def _verdict(found: Gain, row: Row, what: str) -> str:
    if not found.is_clear:
        return f". {what} added nothing that {row['num_images']} test images could show."
    return "." if found.points > 0 else f". {what} made it worse."


def _comparison(story: Story, against: Against) -> Iterator[str]:
    side, found = story.fixed_for, story.lead
    assert found is not None, "there is something to compare with"
    other = row_at(against.rows, side)
    best = best_row(against.rows)
    judged = ("better" if found.points > 0 else "worse") if found.is_clear else "neither better nor worse for certain"
    yield (
        f"The network of {against.path}, trained at {against.trained_at} px from the start, has {other['top1']:.1f} % "
        f"at {side} px (and {best['top1']:.1f} % at {best['test_res']} px, its best): the fixed one is {judged}, "
        f"{_points(found)}."
    )
    if against.trained_at != side:
        yield f"That network was not trained at {side} px, so this says little of FixRes against training high."
    learning = story.learning
    if learning is not None and against.training is not None:
        yield (
            f"Training and tuning took {_time(learning.seconds)} here, and training {_time(against.training.seconds)} "
            f"there: {learning.seconds / against.training.seconds:.2f} times as long, without the tests of either."
        )
    if not against.same_images:
        yield "It was trained on other images, or another split of them, so accuracies do not compare."
    if not against.same_machine:
        yield "It ran on another machine, so minutes do not compare."


def _rounded(found: Gain) -> dict[str, float]:
    return {"points": round(found.points, 4), "standard_error": round(found.standard_error, 4)}


def _took(cost: Cost | None) -> str:
    if cost is None:
        return ""
    images = f", {cost.num_images} images forwarded" if cost.num_images is not None else ""
    return f" ({_time(cost.seconds)}{images})"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} minutes"


def _points(found: Gain) -> str:
    return f"{found.points:+.1f} points (standard error {found.standard_error:.1f})"
