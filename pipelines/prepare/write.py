"""A part of a data set, written at all its sizes: the work of one process at a time, which is done or not."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.errors import RunError, SaveError
from pipelines.prepare.encode import encode_copies
from pipelines.prepare.part import Part, Placed, Source, Written
from pipelines.prepare.writers import open_writers
from pipelines.storage.atomic import replacing
from pipelines.storage.files import make_folder

__all__ = ["done_before", "write_part"]


def write_part(part: Part) -> Written:
    """Write a part, and note that it is complete.

    Raises:
        SaveError: If it cannot be written.
        RunError: If an image's file cannot be read any more.
    """
    copies: dict[int, dict[str, Placed]] = {}
    unreadable: dict[int, str] = {}
    with open_writers(part) as writers:
        for source in part.sources:
            content = _read(source)
            try:
                encoded = encode_copies(content, part.settings)
            except MemoryError as error:
                raise RunError(f"there is no memory to decode {source.path}; lower `num_processes`") from error
            except Exception as error:  # noqa: BLE001 - whatever PIL raises for a broken image is what is reported
                unreadable[source.row] = str(getattr(error, "strerror", None) or error) or type(error).__name__
                continue
            copies[source.row] = {
                folder: Placed(copy.height, copy.width, len(copy.content), writers[folder].add(source, copy))
                for folder, copy in encoded.items()
            }
    try:
        digests = _digests(part, copies)
    except OSError as error:
        raise SaveError(f"cannot read what has been written to {part.target}: {error.strerror}") from error
    num_bytes = sum(copy.num_bytes for placed in copies.values() for copy in placed.values())
    written = Written(digests, copies, unreadable, num_bytes)
    make_folder(part.note.parent)
    with replacing(part.note) as file:
        file.write(json.dumps(asdict(written)).encode())
    return written


def done_before(part: Part) -> Written | None:
    """Return what an earlier run has written of a part, if all of it is still there unchanged."""
    try:
        values: dict[str, Any] = json.loads(part.note.read_text(encoding="utf-8"))
        copies = {
            int(row): {folder: Placed(*numbers) for folder, numbers in placed.items()}
            for row, placed in values["copies"].items()
        }
        unreadable = {int(row): str(reason) for row, reason in values["unreadable"].items()}
        written = Written(values["digests"], copies, unreadable, values["num_bytes"])
        is_whole = _digests(part, copies) == written.digests
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not done, or the note is damaged: the part is written again
    rows = {source.row for source in part.sources}
    return written if is_whole and copies.keys() | unreadable.keys() == rows else None


def _read(source: Source) -> bytes:
    try:
        return source.span.read()
    except OSError as error:  # it could be read when the data set was opened: a fault of the storage, not of the image
        raise RunError(
            f"cannot read {source.span.file}: {error.strerror or error}; repair the storage, then prepare the "
            "data set again to resume"
        ) from error


def _digests(part: Part, copies: dict[int, dict[str, Placed]]) -> dict[str, str]:
    """Return the SHA-256 of each shard and .idx file of a part, or of each folder's files, as they are now."""
    folders = part.settings.folders
    if part.settings.layout == "shards":
        files = [file for shard in map(part.shard, folders) for file in (shard, shard.with_suffix(".idx"))]
        return {str(file.relative_to(part.target)): _digest([file]) for file in files}
    return {
        folder: _digest(
            [part.file(folder, source.key) for source in part.sources if folder in copies.get(source.row, {})]
        )
        for folder in folders
    }


def _digest(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while content := file.read(1 << 20):
                digest.update(content)
    return digest.hexdigest()
