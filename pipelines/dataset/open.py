"""From a data set on disk to its `Dataset`: list, measure, split, lay out."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.dataset.formats import list_images, prepared
from pipelines.dataset.headers import Header
from pipelines.dataset.listing import Candidate, Listing, Progress
from pipelines.dataset.measure import FileState, file_states, measure
from pipelines.dataset.splits import check_split, draw_val
from pipelines.dataset.table import TRAIN, VAL, Dataset, LeftOut, make_dataset
from pipelines.errors import DataError

__all__ = ["open_dataset"]


def open_dataset(
    data: str | Path,
    *,
    val_fraction: float | None = None,
    on_progress: Progress = lambda done, total: None,  # noqa: ARG005
) -> Dataset:
    """Open a data set; sizes of files that have not changed since the last time come from the cache.

    Args:
        data: A folder with train/ and val/ (or test/) class folders, one tree of class folders, tar shards, a table of
            paths and labels, Parquet files, or what `pipelines.prepare` has written.
        val_fraction: Share of each class to test on, where the data set does not say; 1 tests on all of it.
        on_progress: Called with the numbers of files measured and to be measured.

    Raises:
        DataError: If the data set cannot be used; the message names the folder and the form expected.
    """
    data = Path(data).absolute()
    if prepared.recognises(data):
        check_split(data, val_fraction, is_split=True)
        return prepared.load(data)
    listing = _divisible(list_images(data, on_progress))
    check_split(data, val_fraction, is_split=all(candidate.split is not None for candidate in listing.candidates))
    states = file_states(listing)
    headers = measure(listing, states, data, on_progress)
    left_out = tuple(
        LeftOut(listing.root / os.fsdecode(candidate.path), header.problem)
        for candidate, header in zip(listing.candidates, headers, strict=True)
        if header.problem is not None
    )
    good = [row for row, header in enumerate(headers) if header.problem is None]
    if not good:
        raise DataError(f"{data} has no readable image; {left_out[0].path}: {left_out[0].reason}")
    candidates = [listing.candidates[row] for row in good]
    dataset = _lay_out(
        listing, candidates, [states[row] for row in good], [headers[row] for row in good], val_fraction or 0
    )
    return replace(dataset, left_out=left_out)


def _divisible(listing: Listing) -> Listing:
    """Take the split off images that are all to train on: `val_fraction` has yet to take a part of them."""
    if any(candidate.split != TRAIN for candidate in listing.candidates):
        return listing
    return replace(listing, candidates=tuple(replace(candidate, split=None) for candidate in listing.candidates))


def _lay_out(
    listing: Listing,
    candidates: Sequence[Candidate],
    states: Sequence[FileState],
    headers: Sequence[Header],
    val_fraction: float,
) -> Dataset:
    """Return the readable candidates as a data set: those to train on first, both parts sorted by path."""
    label_of = {name: label for label, name in enumerate(listing.classes)}
    undecided = [(candidate.label, candidate.path) for candidate in candidates if candidate.split is None]
    drawn = draw_val(undecided, val_fraction)
    is_val = [candidate.split == VAL or candidate.path in drawn for candidate in candidates]
    order = np.array(sorted(range(len(candidates)), key=lambda row: (is_val[row], candidates[row].path)), np.int64)
    columns = {
        "labels": [label_of[candidate.label] for candidate in candidates],
        "heights": [header.height for header in headers],
        "widths": [header.width for header in headers],
        "num_bytes": [num_bytes for num_bytes, _ in states],
        "shard_of": [candidate.shard or 0 for candidate in candidates],
        "offsets": [candidate.offset for candidate in candidates],
    }
    return make_dataset(
        listing.root,
        listing.classes,
        [candidates[row].path for row in order.tolist()],
        {name: np.array(column, dtype=np.int64)[order] for name, column in columns.items()},
        np.array(is_val, dtype=np.bool_)[order],
        listing.shards,
    )
