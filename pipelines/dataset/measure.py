"""Sizes of a data set's images: cached from an earlier run, or read from their headers.

A cached size is used as long as its file's length and modification time are the same.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipelines.dataset.headers import FileSpan, Header, read_headers
from pipelines.dataset.listing import Candidate, Listing, Progress
from pipelines.storage.arrays import load_arrays, pack_names, save_arrays, unpack_names
from pipelines.storage.cache_folder import cache_folder

__all__ = ["FileState", "file_states", "measure"]

FileState = tuple[int, int]
"""A file's length in bytes and its modification time in nanoseconds."""

VERSION = 1


def file_states(listing: Listing) -> list[FileState]:
    """Return length and modification time of each candidate; in a shard, the shard's time."""
    shards = [_state(os.fsencode(listing.root / shard)) for shard in listing.shards]
    root = os.fsencode(listing.root)
    return [
        _state(os.path.join(root, candidate.path))  # noqa: PTH118 - a million files: no Path objects
        if candidate.shard is None
        else (candidate.num_bytes, shards[candidate.shard][1])
        for candidate in listing.candidates
    ]


def measure(listing: Listing, states: Sequence[FileState], data: Path, on_progress: Progress) -> list[Header]:
    """Return every candidate's header, and cache those that could be read.

    Args:
        listing: The candidates.
        states: As `file_states` returns them.
        data: The data set's folder or file, which the cache is for.
        on_progress: Called with the numbers of headers read and to be read; not at all if all are cached.
    """
    cache = _cache_path(data)
    cached = _load(cache)
    paths = [candidate.path for candidate in listing.candidates]
    headers = {
        path: cached[path][1]
        for path, state in zip(paths, states, strict=True)
        if path in cached and cached[path][0] == state
    }
    unknown = {candidate.path: candidate for candidate in listing.candidates if candidate.path not in headers}
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, len(unknown))

    if unknown:
        spans = [_span(listing, candidate) for candidate in unknown.values()]
        headers.update(zip(unknown, read_headers(spans, advance), strict=True))
    if unknown or len(cached) != len(paths):
        known = zip(paths, states, strict=True)
        _save(cache, {path: (state, headers[path]) for path, state in known if headers[path].problem is None})
    return [headers[path] for path in paths]


def _state(path: bytes) -> FileState:
    try:
        stat = os.stat(path)  # noqa: PTH116 - as above
    except (OSError, ValueError):
        return (-1, 0)  # reading its header will say why
    return (stat.st_size, stat.st_mtime_ns)


def _span(listing: Listing, candidate: Candidate) -> FileSpan:
    if candidate.shard is None:
        return FileSpan(listing.root / os.fsdecode(candidate.path))
    return FileSpan(listing.root / listing.shards[candidate.shard], candidate.offset, candidate.num_bytes)


def _cache_path(data: Path) -> Path:
    name = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:16]
    return cache_folder() / "index" / f"{name}-v{VERSION}.npz"


def _load(cache: Path) -> dict[bytes, tuple[FileState, Header]]:
    """Return state and header of each path as cached; nothing if there is no cache."""
    stored = load_arrays(cache)
    if stored is None:
        return {}
    try:
        paths = unpack_names(stored["paths"])
        columns = (stored[name].tolist() for name in ("num_bytes", "mtimes_ns", "heights", "widths"))
        return {
            path: ((num_bytes, mtime_ns), Header(height, width))
            for path, num_bytes, mtime_ns, height, width in zip(paths, *columns, strict=True)
        }
    except (KeyError, ValueError):
        return {}  # the cache of another version


def _save(cache: Path, known: Mapping[bytes, tuple[FileState, Header]]) -> None:
    rows = [(*state, header.height, header.width) for state, header in known.values()]
    num_bytes, mtimes_ns, heights, widths = np.array(rows, np.int64).reshape(-1, 4).T
    columns = {"num_bytes": num_bytes, "mtimes_ns": mtimes_ns, "heights": heights, "widths": widths}
    save_arrays(cache, {"paths": pack_names(known), **columns})
