"""Parquet files of images, as Hugging Face has them: unpacked once, into tar shards in the cache.

Pages of a Parquet file are compressed, so no image can be read from the middle of one.
"""

import fcntl
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.dataset.listing import Listing
from pipelines.errors import DataError
from pipelines.storage.cache_folder import cache_folder

__all__ = ["Table", "Unpacked", "unpack"]

CONTENT = "content.json"
"""In the unpacked folder: class names in label order, or null, and the length of each shard."""

LABEL_COLUMNS = ("label", "labels", "cls")

ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Table:
    """A Parquet file and the split it is of, if that is said."""

    path: Path
    split: str | None


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A folder of tar shards, and class names in label order where the Parquet files have them."""

    folder: Path
    names: tuple[str, ...] | None

    def named(self, listing: Listing) -> Listing:
        """Return a listing with names in place of the numbers of classes."""
        if self.names is None:
            return listing
        candidates = (replace(one, label=self.names[int(one.label)]) for one in listing.candidates)
        return replace(
            listing, candidates=tuple(candidates), classes=tuple(self.names[int(label)] for label in listing.classes)
        )


def unpack(tables: Sequence[Table], on_progress: Callable[[int, int], None]) -> Unpacked:
    """Return the images of Parquet files as tar shards in the cache, made now or before.

    Raises:
        DataError: If `datasets` is not installed, a file cannot be read or used, or there is no room.
    """
    states = [(str(table.path.resolve()), table.path.stat().st_size, table.path.stat().st_mtime_ns) for table in tables]
    folder = cache_folder() / "parquet" / hashlib.sha256(repr(states).encode()).hexdigest()[:16]
    found = _unpacked(folder)
    if found is None:
        with _one_at_a_time(folder):
            found = _unpacked(folder) or _unpack_into(folder, tables, on_progress)
    return found


def _unpacked(folder: Path) -> Unpacked | None:
    """Return what has been unpacked before, if all of it is there."""
    try:
        content = json.loads((folder / CONTENT).read_text(encoding="utf-8"))
        complete = all((folder / shard).stat().st_size == size for shard, size in content["shards"].items())
        names = content["names"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # it is only a cache
    return Unpacked(folder, None if names is None else tuple(names)) if complete else None


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process unpacks the same files; the lock of a killed one is free."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            # On a file system without locks processes are not kept apart: each then works in a folder of its own.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise DataError(
            f"cannot write {folder.parent}: {error.strerror}; set DALI_FIXRES_CACHE to another place"
        ) from error


def _unpack_into(folder: Path, tables: Sequence[Table], on_progress: Callable[[int, int], None]) -> Unpacked:
    parquet, features_of = _reader(tables[0].path)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        files = [parquet.ParquetFile(table.path) for table in tables]
        columns = [
            _columns(table.path, features_of(file.schema_arrow)) for table, file in zip(tables, files, strict=True)
        ]
        _check_names([(table.path, names) for table, (_, _, names) in zip(tables, columns, strict=True)])
        _check_room(folder, tables)
        total, done = sum(file.metadata.num_rows for file in files), 0
        for number, (table, file, (image, label, names)) in enumerate(zip(tables, files, columns, strict=True)):
            first = done
            with tarfile.open(partial / f"{table.split or 'data'}-{number:05}.tar", "w") as archive:
                for batch in file.iter_batches(ROWS_AT_ONCE, columns=[image, label]):
                    for row in batch.to_pylist():
                        _check_row(row[image], row[label], names, f"{table.path}, row {done - first}")
                        _add(archive, f"{done:09}", row[image]["bytes"], row[label])
                        done += 1
                    on_progress(done, total)
        sizes = {shard.name: shard.stat().st_size for shard in sorted(partial.glob("*.tar"))}
        (partial / CONTENT).write_text(json.dumps({"names": columns[0][2], "shards": sizes}), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # something is missing in it, or it would not be made again
        with suppress(OSError):  # another process was faster, where there are no locks
            partial.rename(folder)
    except (OSError, ValueError) as error:  # ValueError: what Arrow says of a file that is no Parquet file
        raise DataError(f"cannot unpack {tables[0].path.parent} into {folder}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    found = _unpacked(folder)
    if found is None:
        raise DataError(
            f"cannot unpack {tables[0].path.parent} into {folder}: something else keeps changing it; try again"
        )
    return found


def _reader(path: Path) -> tuple[Any, Callable[[Any], Any]]:
    """Return Arrow's reader of Parquet, and what tells a file's columns."""
    try:
        from datasets import Features  # noqa: PLC0415 - an extra, and slow to import
        from pyarrow import parquet  # noqa: PLC0415 - the same
    except ImportError as error:
        raise DataError(
            f"{path} is a Parquet file, which takes Hugging Face's datasets to read: pip install "
            "'dali-fixres[parquet]'; or give class folders, tar shards or a .csv manifest"
        ) from error
    return parquet, Features.from_arrow_schema


def _columns(path: Path, features: Any) -> tuple[str, str, list[str] | None]:
    """Return the columns of images and of labels, and the names of the classes if the file has them."""
    images = [name for name, kind in features.items() if type(kind).__name__ == "Image" or _is_image(kind)]
    classes = [name for name, kind in features.items() if type(kind).__name__ == "ClassLabel"]
    labels = [name for name in (*LABEL_COLUMNS, *classes) if name in features]
    if not images or not labels:
        raise DataError(
            f"{path} has the columns {', '.join(features)}; expected one of images, and label with their classes"
        )
    return images[0], labels[0], getattr(features[labels[0]], "names", None)


def _check_names(names_of: Sequence[tuple[Path, list[str] | None]]) -> None:
    """Refuse files whose numbers stand for other classes than the first one's."""
    first, expected = names_of[0]
    for path, names in names_of:
        if names != expected:
            raise DataError(
                f"{path} has the classes {', '.join(names or ['numbers'])[:80]} and {first} has "
                f"{', '.join(expected or ['numbers'])[:80]}; give files of one data set"
            )


def _is_image(kind: Any) -> bool:
    """Return whether a column holds files, where nobody wrote that these are images."""
    return isinstance(kind, dict) and "bytes" in kind


def _check_row(image: Any, label: Any, names: Sequence[str] | None, where: str) -> None:
    if not image or not image.get("bytes"):
        raise DataError(f"{where}: has no image in it; mend the file")
    if not isinstance(label, int | str) or (names is not None and not 0 <= int(label) < len(names)):
        raise DataError(f"{where}: its label is {label}, which names no class; mend or remove the file")


def _add(archive: tarfile.TarFile, key: str, content: bytes, label: str | int) -> None:
    members = {"jpg": content, "json": json.dumps({"label": label}).encode()}
    for kind, value in members.items():
        member = tarfile.TarInfo(f"{key}.{kind}")
        member.size = len(value)
        archive.addfile(member, io.BytesIO(value))


def _check_room(folder: Path, tables: Sequence[Table]) -> None:
    needed = sum(table.path.stat().st_size for table in tables) * 1.1
    there = next(place for place in folder.parents if place.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise DataError(
            f"unpacking {tables[0].path.parent} takes {needed / 1e9:.1f} GB in {folder.parent}, where "
            f"{free / 1e9:.1f} GB are free; set DALI_FIXRES_CACHE to another place"
        )
