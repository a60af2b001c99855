"""The page that `fixres` leaves: one file that needs no other, for a browser, a telephone or a printer. Pure."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from string import Template
from typing import TypeVar

from dali_fixres.report.ledger import Cost, Gain, Row, gain, total_cost
from dali_fixres.report.story import Against, Story, row_at, summary

__all__ = ["render"]

T = TypeVar("T")

MAX_NAMED = 50
"""Unreadable files that the page names; the runs' unreadable.txt have all."""

UNKNOWN = "not recorded"

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fff; --line: #cdd3d9; --soft: #f1f3f5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e6e9; --paper: #15181b; --line: #414950; --soft: #22272c; }
}
body { color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif;
  max-width: 56rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; }
h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: right; vertical-align: top;
  overflow-wrap: normal; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { font-weight: 600; background: var(--soft); }
tbody th { font-weight: 400; min-width: 7rem; }
.figures td { white-space: nowrap; }
.wide + .wide { margin-top: 1rem; }
pre { background: var(--soft); padding: .6rem; white-space: pre-wrap; font-size: .85rem; }
img { max-width: min(100%, 42rem); height: auto; background: #fff; border-radius: 4px; }
.note { font-size: .9rem; opacity: .8; }
@media print {
  :root { --ink: #000; --paper: #fff; --line: #999; --soft: #eee; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  tr, img { break-inside: avoid; }
  h2 { break-after: avoid; }
}
</style>
</head>
<body>
<h1>$title</h1>
<p>$summary</p>
$sections
</body>
</html>
""")


def render(story: Story, plots: Mapping[str, bytes]) -> str:
    """Return the page, with everything that comes from outside escaped.

    Args:
        story: What was found.
        plots: PNG files by what they show.
    """
    sections = {
        "Accuracy before and after": _accuracies(story),
        "Plots": "".join(_plot(what, png) for what, png in plots.items()),
        "What it cost": _costs(story),
        "What was gained": _gains(story),
    }
    if story.against is not None:
        sections["Against training at another resolution from the start"] = _comparison(story, story.against)
    sections["Settings"] = "".join(f"<h3>{escape(stage)}</h3>{_pre(text)}" for stage, text in story.settings.items())
    sections["Data"] = _data(story)
    sections["Measured on"] = _environments(story)
    if story.missing:
        sections["Not in this report"] = _list(story.missing)
    return PAGE.substitute(
        title=escape(story.title),
        summary=escape(" ".join(summary(story))),
        sections="\n".join(f"<section><h2>{escape(name)}</h2>{body}</section>" for name, body in sections.items()),
    )


def _accuracies(story: Story) -> str:
    marks = {story.trained_at: "trained at"}
    marks[story.fixed_for] = f"{marks.get(story.fixed_for, '')}, fixed for".removeprefix(", ")
    side = story.best_before["test_res"]
    marks[side] = f"{marks.get(side, '')}, best before".removeprefix(", ")
    rows = []
    for was in story.before:
        side = was["test_res"]
        now = row_at(story.after, side)
        rows.append(
            (
                f"{side} px{f' ({marks[side]})' if side in marks else ''}",
                _top1(was),
                _top1(now),
                _points(gain(was, now)),
                f"{was['top5']:.1f}",
                f"{now['top5']:.1f}",
                _tested(was, now),
            )
        )
    headings = ("test resolution", "top-1 before, %", "top-1 after, %", "change, points", "top-5 before", "top-5 after")
    return _table((*headings, "images"), rows) + _note(
        "In brackets: 95 % interval of an accuracy (Wilson). Behind ±: the standard error of a change, as if before "
        "and after had been tested on different images; they are the same, so the true one is smaller as a rule."
    )


def _costs(story: Story) -> str:
    costs = dict(story.ledger)
    known = [cost for cost in costs.values() if cost is not None]
    what = "all" if len(known) == len(costs) else "all that is recorded"
    rows = [_cost_row(name, cost, story.trained_at) for name, cost in [*costs.items(), (what, total_cost(known))]]
    headings = ("stage", "minutes", "images forwarded", f"as images of {story.trained_at} px")
    return _table(headings, rows) + _note(
        "Minutes are those of steps and tests, with reading images and without starting up. The last column weighs "
        "images by their pixels, with which a convolution's work grows. A step of training also goes backward "
        "through the whole network, about twice as much work again; tuning goes back only through what it tunes."
    )


def _cost_row(name: str, cost: Cost | None, side_px: int) -> tuple[str, ...]:
    if cost is None:
        return name, UNKNOWN, UNKNOWN, UNKNOWN
    same = cost.images_at(side_px)
    images = UNKNOWN if cost.num_images is None else f"{cost.num_images}"
    return name, f"{cost.seconds / 60:.2f}", images, UNKNOWN if same is None else f"{same:.0f}"


def _gains(story: Story) -> str:
    rows = []
    for what, found, seconds in story.gains:
        per_minute = None if seconds is None else found.per_minute(seconds)
        rows.append(
            (
                what,
                _points(found),
                "yes" if found.is_clear else "no",
                UNKNOWN if seconds is None else f"{seconds / 60:.2f}",
                UNKNOWN if per_minute is None else f"{per_minute:+.2f}",
            )
        )
    return _table(("by", "points", "beyond chance", "minutes", "points a minute"), rows) + _note(
        "Beyond chance: more than 1.96 standard errors. Minutes are of tuning, or where nothing was tuned of the sweep."
    )


def _comparison(story: Story, against: Against) -> str:
    rows = []
    for other in against.rows:
        now = row_at(story.after, other["test_res"])
        was = row_at(story.before, other["test_res"])
        rows.append((f"{other['test_res']} px", _top1(other), _top1(was), _top1(now), _points(gain(other, now))))
    headings = (f"trained at {against.trained_at} px, %", "here before, %", "here after, %", "after, more by points")
    costs = (("training there", against.training), ("training and tuning here", story.learning))
    return (
        f"<p>{escape(against.path)}</p>"
        + _table(("test resolution", *headings), rows)
        + _table(
            ("without tests", "minutes", "images forwarded", f"as images of {story.trained_at} px"),
            [_cost_row(name, cost, story.trained_at) for name, cost in costs],
        )
    )


def _data(story: Story) -> str:
    rows = [
        ("data set", story.data),
        *((f"fingerprint, {stage}", text) for stage, text in _distinct(story.fingerprints)),
    ]
    lines = list(story.unreadable[:MAX_NAMED])
    more = len(story.unreadable) - len(lines)
    text = f"<p>{len(story.unreadable)} files could not be read{':' if lines else '.'}</p>"
    rest = _note(f"and {more} more, listed in the runs' unreadable.txt") if more else ""
    return _table(("", ""), rows, figures=False) + text + (_list(lines) if lines else "") + rest


def _environments(story: Story) -> str:
    found = _distinct({stage: tuple(values.items()) for stage, values in story.environments.items()})
    keys = list(dict.fromkeys(key for _, values in found for key, _ in values))
    columns = [dict(values) for _, values in found]
    rows = [(key, *(_plain(column.get(key, UNKNOWN)) for column in columns)) for key in keys]
    return _table(("", *(stages for stages, _ in found)), rows, figures=False)


def _plain(value: object) -> str:
    return "none" if value is None else str(value)


def _distinct(values: Mapping[str, T]) -> list[tuple[str, T]]:
    """Return each value once, under all its names."""
    names: dict[T, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return [("all stages" if len(names) == 1 else ", ".join(those), value) for value, those in names.items()]


def _top1(row: Row) -> str:
    return f"{row['top1']:.1f} ({row['top1_low']:.1f} to {row['top1_high']:.1f})"


def _points(found: Gain) -> str:
    return f"{found.points:+.1f} ± {found.standard_error:.1f}"


def _tested(was: Row, now: Row) -> str:
    numbers = [(row["num_images"], row["num_unreadable"]) for row in (was, now)]
    texts = [f"{read} ({unreadable} unreadable)" if unreadable else f"{read}" for read, unreadable in numbers]
    return ", then ".join(dict.fromkeys(texts))


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, figures: bool = True) -> str:
    """Return a table that can be wider than the page; cells of figures are not broken into lines."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    top = f"<thead><tr>{head}</tr></thead>" if any(headings) else ""
    kind = ' class="figures"' if figures else ""
    return f'<div class="wide"><table{kind}>{top}<tbody>{body}</tbody></table></div>'


def _plot(what: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return f'<p><img alt="{escape(what)}" src="data:image/png;base64,{data}"></p>'


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _pre(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
