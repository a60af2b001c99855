"""From a data set on disk to its `Dataset`: list, measure (or remember), split, lay out."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.dataset.cache import FileState, cache_path, load_known, save_known
from pipelines.dataset.formats.detect import list_source
from pipelines.dataset.formats.prepared import is_prepared, load_prepared
from pipelines.dataset.headers import Header, Place, read_headers
from pipelines.dataset.listing import Candidate, Listing
from pipelines.dataset.table import TRAIN, VAL, Dataset, LeftOut, make_dataset
from pipelines.errors import DataError

__all__ = ["open_dataset"]


def open_dataset(
    data: str | Path,
    *,
    val_fraction: float | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> Dataset:
    """Index a data set; sizes of files that have not changed since the last time come from the cache.

    Args:
        data: A folder with train/ and val/ (or test/) class folders, one tree of class folders, tar shards, a table of
            paths and labels, Parquet files, or what `dali-fixres prepare` has written.
        val_fraction: Share of each class to test on, where the data set does not say; 1 tests on all of it.
        on_progress: Called with the numbers of files measured and to be measured.

    Raises:
        DataError: If the data set cannot be used; the message names the folder and the form expected.
    """
    data = Path(data).absolute()
    if is_prepared(data):
        _check_split(data, val_fraction, is_split=True)
        return load_prepared(data)
    listing = _divisible(list_source(data, on_progress))
    _check_split(data, val_fraction, is_split=all(candidate.split is not None for candidate in listing.candidates))
    paths = [candidate.path for candidate in listing.candidates]
    states = _states(listing)
    cache = cache_path(data)
    headers = _measure(listing, states, cache, on_progress)
    good = [row for row, header in enumerate(headers) if header.problem is None]
    left_out = tuple(
        LeftOut(listing.root / os.fsdecode(path), header.problem)
        for path, header in zip(paths, headers, strict=True)
        if header.problem is not None
    )
    if not good:
        raise DataError(f"{data} has no readable image; {left_out[0].path}: {left_out[0].reason}")
    candidates = [listing.candidates[row] for row in good]
    dataset = _lay_out(
        listing, candidates, [states[row] for row in good], [headers[row] for row in good], val_fraction or 0
    )
    return replace(dataset, left_out=left_out)


def _divisible(listing: Listing) -> Listing:
    """Take the split off images that are all to train on: --val-fraction has yet to take a part of them."""
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
    label_of = {name: label for label, name in enumerate(listing.classes)}
    drawn = _draw_val([candidate for candidate in candidates if candidate.split is None], val_fraction)
    is_val = [candidate.split == VAL or candidate.path in drawn for candidate in candidates]
    order = np.array(sorted(range(len(candidates)), key=lambda row: (is_val[row], candidates[row].path)), np.int64)
    columns = {
        "labels": [label_of[candidate.label] for candidate in candidates],
        "heights": [header.height for header in headers],
        "widths": [header.width for header in headers],
        "num_bytes": [num_bytes for num_bytes, _ in states],
        "mtimes_ns": [mtime_ns for _, mtime_ns in states],
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


def _states(listing: Listing) -> list[FileState]:
    """Return length and modification time of each candidate; in a shard, the shard's time."""
    shards = [_state(os.fsencode(listing.root / shard)) for shard in listing.shards]
    root = os.fsencode(listing.root)
    return [
        _state(os.path.join(root, candidate.path))  # noqa: PTH118 - a million files: no Path objects
        if candidate.shard is None
        else (candidate.num_bytes, shards[candidate.shard][1])
        for candidate in listing.candidates
    ]


def _state(path: bytes) -> FileState:
    try:
        stat = os.stat(path)  # noqa: PTH116 - as above
    except (OSError, ValueError):
        return (-1, 0)  # reading its header will say why
    return (stat.st_size, stat.st_mtime_ns)


def _place(listing: Listing, candidate: Candidate) -> Place:
    if candidate.shard is None:
        return Place(listing.root / os.fsdecode(candidate.path))
    return Place(listing.root / listing.shards[candidate.shard], candidate.offset, candidate.num_bytes)


def _measure(
    listing: Listing,
    states: Sequence[FileState],
    cache: Path,
    on_progress: Callable[[int, int], None],
) -> list[Header]:
    """Return every candidate's header."""
    known = load_known(cache)
    paths = [candidate.path for candidate in listing.candidates]
    headers: dict[bytes, Header] = {}
    for path, state in zip(paths, states, strict=True):
        remembered = known.get(path)
        if remembered and remembered[0] == state:
            headers[path] = remembered[1]
    unknown = {candidate.path: candidate for candidate in listing.candidates if candidate.path not in headers}
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, len(unknown))

    if unknown:
        places = [_place(listing, candidate) for candidate in unknown.values()]
        headers.update(zip(unknown, read_headers(places, advance), strict=True))
    if unknown or len(known) != len(paths):
        good = {
            path: (state, headers[path])
            for path, state in zip(paths, states, strict=True)
            if headers[path].problem is None
        }
        save_known(cache, good)
    return [headers[path] for path in paths]


def _check_split(data: Path, val_fraction: float | None, *, is_split: bool) -> None:
    """Fail unless it is clear which images are tested on."""
    if val_fraction is not None and not 0 < val_fraction <= 1:
        raise DataError(f"--val-fraction must be above 0 and at most 1; found {val_fraction}")
    if not is_split and val_fraction is None:
        folders = f"{data}/train/<class>/*.jpg and {data}/val/<class>/*.jpg"
        in_file = "files named train-… and val-…" if data.suffix in {".tar", ".parquet"} else "a split column"
        expected = folders if data.is_dir() else in_file
        raise DataError(f"{data} does not say which images to test on; expected {expected}, or give --val-fraction 0.1")
    if is_split and val_fraction is not None and val_fraction < 1:
        raise DataError(f"{data} has its own split; leave --val-fraction out")


def _draw_val(candidates: Sequence[Candidate], fraction: float) -> set[bytes]:
    """Draw a share of each class by a hash of the path: the same on every machine, whatever else is added."""
    by_class: dict[str, list[bytes]] = {}
    for candidate in candidates:
        by_class.setdefault(candidate.label, []).append(candidate.path)
    drawn: set[bytes] = set()
    for paths in by_class.values():
        paths.sort(key=lambda path: hashlib.blake2b(path, digest_size=8).digest())
        # At least one to test on, but never the last one to train on.
        count = len(paths) if fraction == 1 else min(max(1, round(fraction * len(paths))), len(paths) - 1)
        drawn.update(paths[:count])
    return drawn
