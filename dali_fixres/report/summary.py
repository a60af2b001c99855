"""The findings of a `fixres` report in sentences, good or bad. Pure."""

from collections.abc import Iterator

from dali_fixres.report.cost import best_row, gain, is_clear, row_at, training_and_tuning
from dali_fixres.report.json_files import Baseline, Cost, Figures, Gain
from dali_fixres.runtime.json_files import AccuracyRow

__all__ = ["summary"]


def summary(report: Figures) -> Iterator[str]:
    """Say what was found."""
    if report["synthetic"]:
        yield "The images are synthetic demo data: the figures show the effect and say nothing about real images."
    low, best = row_at(report["before"], report["trained_at"]), row_at(report["before"], report["best_before"])
    network = f"{report['model']} of {report['checkpoint']}" if report["checkpoint"] else report["model"]
    yield (
        f"{network} was trained at {report['trained_at']} px{_took(report['costs']['training'])}; its top-1 accuracy "
        f"at that resolution is {low['top1']:.1f} % of {low['num_images']} test images."
    )
    if best is low:
        yield f"Without fine-tuning no tested resolution is better than those {report['trained_at']} px."
    else:
        found = gain(low, best)
        chance = "" if is_clear(found) else ", which may be chance"
        yield (
            f"Without fine-tuning it is most accurate at {best['test_res']} px, with {best['top1']:.1f} %: "
            f"{_points(found)}{chance}."
        )
    yield from _fine_tuning(report, best)
    if report["chosen"]:
        yield f"{report['fixed_for']} px was chosen on the same test images, so its accuracy is slightly optimistic."
    if report["baseline"] is not None:
        yield from _comparison(report, report["baseline"])
    if len(set(report["fingerprints"].values())) > 1:
        yield "The data changed between the stages, so their accuracies are not comparable."


def _fine_tuning(report: Figures, best: AccuracyRow) -> Iterator[str]:
    side = report["fixed_for"]
    untuned, fixed = row_at(report["before"], side), row_at(report["after"], side)
    yield (
        f"Fine-tuning ({report['method']}) for {side} px{_took(report['costs']['tuning'])} changes top-1 at {side} px "
        f"from {untuned['top1']:.1f} % to {fixed['top1']:.1f} %: {_points(gain(untuned, fixed))}"
        f"{_significance(untuned, fixed)}"
    )
    if best is not untuned:
        yield (
            f"Compared with testing at {best['test_res']} px without fine-tuning: {_points(gain(best, fixed))}"
            f"{_significance(best, fixed)}"
        )


def _significance(old: AccuracyRow, new: AccuracyRow) -> str:
    found = gain(old, new)
    if not is_clear(found):
        return f", too little to tell from chance with {new['num_images']} test images."
    return "." if found["points"] > 0 else ", a loss."


def _comparison(report: Figures, baseline: Baseline) -> Iterator[str]:
    side, found = report["fixed_for"], report["gain_over_baseline"]
    assert found is not None, "there is a baseline"
    there, best = row_at(baseline["rows"], side), best_row(baseline["rows"])
    compared = ("better" if found["points"] > 0 else "worse") if is_clear(found) else "not measurably different"
    yield (
        f"The baseline {baseline['path']}, trained at {baseline['trained_at']} px, has {there['top1']:.1f} % at {side} "
        f"px and at best {best['top1']:.1f} %, at {best['test_res']} px. The fine-tuned network is {compared} at "
        f"{side} px: {_points(found)}."
    )
    if baseline["trained_at"] != side:
        yield f"The baseline was not trained at {side} px, so this does not compare FixRes with training at {side} px."
    ours, theirs = training_and_tuning(report["costs"]), baseline["training"]
    if ours is not None and theirs is not None:
        yield (
            f"Without evaluations, training and fine-tuning took {_time(ours['seconds'])} and training the baseline "
            f"{_time(theirs['seconds'])}: {ours['seconds'] / theirs['seconds']:.2f} times as long."
        )
    if not baseline["same_images"]:
        yield "The baseline was trained on other images or another split, so accuracies are not comparable."
    if not baseline["same_machine"]:
        yield "The baseline was trained on another machine, so times are not comparable."


def _took(cost: Cost | None) -> str:
    if cost is None:
        return ""
    images = f", {cost['num_images']} images forwarded" if cost["num_images"] is not None else ""
    return f" ({_time(cost['seconds'])}{images})"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} minutes"


def _points(found: Gain) -> str:
    return f"{found['points']:+.1f} points (standard error {found['standard_error']:.1f})"
