"""Tables of images and labels, CSV or JSON lines: manifests, and the metadata files of Hugging Face's ImageFolder."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from pipelines.dataset.listing import Candidate, Listing, Progress, check_trained, sorted_labels
from pipelines.dataset.splits import SPLIT_NAMES, VAL_NAMES, split_named, unused_tests
from pipelines.errors import DataError

__all__ = ["DESCRIPTION", "list_images", "recognises", "unused_table"]

DESCRIPTION = (
    "a .csv or .jsonl file with path (or file_name), label and perhaps split; a folder with such a metadata.csv or "
    "metadata.jsonl"
)

TABLES = (".csv", ".jsonl")

METADATA = tuple(f"metadata{suffix}" for suffix in TABLES)

PATH_KEYS = ("path", "file_name")
"""Columns that may say where an image is, relative to the table's folder or absolute."""

Row = tuple[str, Mapping[str, Any]]
"""Where a row is, for messages, and its values by column."""


def recognises(path: Path) -> bool:
    """Return whether a path is a table, or a folder with metadata that name labels."""
    return bool(_metadata(path)) if path.is_dir() else path.suffix.lower() in TABLES


def list_images(path: Path, _on_progress: Progress) -> Listing:
    """List the images of a table, or of the metadata files of a folder and its folders for splits.

    A table has the columns path (or file_name), label and perhaps split. Metadata in a split's
    folder are of that split.

    Raises:
        DataError: If a table cannot be read, lacks a column, or has a row that cannot be used; the message names the
            line.
    """
    if not path.is_dir():
        return _listing(path.parent, [_candidate(row, where, "", "") for where, row in _rows(path)], path)
    tables = _metadata(path)
    candidates = []
    for table in tables:
        folder = "" if table.parent == path else table.parent.name
        candidates += [_candidate(row, where, folder, folder) for where, row in _rows(table)]
    return _listing(path, candidates, tables[0])


def _folders(root: Path) -> list[Path]:
    """Return a folder and its folders for splits."""
    return [folder for folder in (root, *(root / name for name in SPLIT_NAMES)) if folder.is_dir()]


def _metadata(root: Path) -> list[Path]:
    """Return the metadata files that name labels, in a folder or in its folders for splits."""
    tables = [folder / name for folder in _folders(root) for name in METADATA if (folder / name).is_file()]
    return [table for table in tables if {"file_name", "label"} <= _columns(table)]


def unused_table(folder: Path) -> str | None:
    """Return what to do about a table in a folder that has no class folders; None if it has none."""
    tables = [path for path in folder.iterdir() if path.suffix.lower() in TABLES]
    if not tables:
        return None
    table = min(tables, key=lambda table: (table.name not in METADATA, table))
    if table.name in METADATA:
        return f"{table} has no column label, and there are no class folders beside it; expected file_name,label"
    return f"{folder} has no class folders; to read the table {table.name}, give it: {table}"


def _listing(root: Path, candidates: list[Candidate], table: Path) -> Listing:
    if not candidates:
        raise DataError(f"{table} has no rows")
    seen: set[bytes] = set()
    for candidate in candidates:
        if candidate.path in seen:
            raise DataError(f"{table} lists {os.fsdecode(candidate.path)} twice; each image may be there once")
        seen.add(candidate.path)
    unused = unused_tests({candidate.split for candidate in candidates})
    candidates = [
        replace(candidate, split=split_named(candidate.split or ""))
        for candidate in candidates
        if candidate.split not in unused
    ]
    check_trained(candidates, str(table))
    return Listing(root, tuple(candidates), sorted_labels(candidates))


def _candidate(row: Mapping[str, Any], where: str, split: str, folder: str) -> Candidate:
    """Return what a row lists; its split is the word that names it.

    Args:
        row: Its values.
        where: Which row, for messages.
        split: Of the table, or empty.
        folder: Of the table, below the data set's root.
    """
    key = next((key for key in PATH_KEYS if row.get(key)), None)
    label = row.get("label")
    if key is None or label is None or label == "":
        raise DataError(f"{where}: path and label must not be empty")
    if not isinstance(label, str | int) or not isinstance(row[key], str):
        raise DataError(f"{where}: path must be text, and label a name or a number; found {label!r}")
    path = os.path.join(folder, row[key])  # noqa: PTH118 - as written, which a Path would change
    own = str(row.get("split") or "")
    if own and split_named(own) is None:
        raise DataError(f"{where}: split must be train or one of {', '.join(VAL_NAMES)}; found {own!r}")
    by_folder = path.partition("/")[0] if key == "file_name" else ""
    try:
        os.fsencode(str(label))
        name = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: {error.object!r} is not text that can be written; correct the row") from error
    return Candidate(name, str(label), own or split or (by_folder if split_named(by_folder) else None))


def _rows(table: Path) -> Iterator[Row]:
    with _reading(table) as lines:
        yield from _csv_rows(table, lines) if table.suffix.lower() == ".csv" else _json_rows(table, lines)


@contextmanager
def _reading(table: Path) -> Iterator[IO[str]]:
    """Open a table.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            yield lines
    except UnicodeDecodeError as error:
        raise DataError(f"{table}, line {_first_undecodable(table)}: is not UTF-8; save the table as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read {table}: {error}") from error


def _first_undecodable(table: Path) -> int:
    """Return the number of the first line that is not UTF-8."""
    for number, line in enumerate(table.read_bytes().splitlines(), start=1):
        try:
            line.decode()
        except UnicodeDecodeError:
            return number
    return 0


def _csv_rows(table: Path, lines: Iterator[str]) -> Iterator[Row]:
    reader = csv.DictReader(lines, strict=True, skipinitialspace=True)
    found = set(reader.fieldnames or ())
    missing = [name for name, keys in (("path", PATH_KEYS), ("label", ("label",))) if not found & set(keys)]
    if missing:
        raise DataError(
            f"{table} lacks the column(s) {', '.join(missing)}; its first line must be path,label or path,label,split; "
            f"found {','.join(reader.fieldnames or ())[:80]!r}"
        )
    for row in reader:
        where = f"{table}, line {reader.line_num}"
        if None in row:
            raise DataError(f"{where}: has more fields than the first line; put names with commas into quotes")
        yield where, row


def _json_rows(table: Path, lines: Iterator[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        where = f"{table}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f'{where}: expected an object, as in {{"file_name": "1.jpg", "label": "cat"}}')
        yield where, row


def _columns(table: Path) -> set[str]:
    """Return the columns of a table's first row; none if it is empty."""
    with _reading(table) as lines:
        if table.suffix.lower() == ".csv":
            return set(next(csv.reader(lines, skipinitialspace=True), ()))
        return set(next(_json_rows(table, lines), ("", {}))[1])
