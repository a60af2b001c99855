"""Parquet files, unpacked once into tar shards in the cache.

Pages of a Parquet file are compressed, so single images cannot be read from it.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.dataset.listing import Progress
from pipelines.errors import DataError
from pipelines.storage.cache_folder import cache_folder

__all__ = ["Table", "Unpacked", "unpack"]

CONTENT = "content.json"
"""In the unpacked folder: class names in label order, or null, and the length of each shard."""

LABEL_COLUMNS = ("label", "labels", "cls")

ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Table:
    """A Parquet file, and its split if that is known."""

    path: Path
    split: str | None


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of images and of labels, and class names in label order if the file has them."""

    image: str
    label: str
    names: list[str] | None


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Tar shards.

    Attributes:
        folder: Where they are.
        class_names: In the order of the labels' numbers, or None where the labels are names or nameless numbers.
    """

    folder: Path
    class_names: tuple[str, ...] | None


def unpack(tables: Sequence[Table], on_progress: Progress) -> Unpacked:
    """Return the images of Parquet files as tar shards in the cache, made now or in an earlier run.

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
    """Return what an earlier run has unpacked, if all of it is there."""
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
            # On a file system without locks several processes may unpack, each in its own folder.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise DataError(
            f"cannot write {folder.parent}: {error.strerror}; set DALI_FIXRES_CACHE to another place"
        ) from error


def _unpack_into(folder: Path, tables: Sequence[Table], on_progress: Progress) -> Unpacked:
    parquet, features_of = _reader(tables[0].path)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        files = [parquet.ParquetFile(table.path) for table in tables]
        columns = [
            _columns(table.path, features_of(file.schema_arrow)) for table, file in zip(tables, files, strict=True)
        ]
        _check_names([(table.path, kind.names) for table, kind in zip(tables, columns, strict=True)])
        _check_room(folder, tables)
        _write_shards(partial, tables, files, columns, on_progress)
        sizes = {shard.name: shard.stat().st_size for shard in sorted(partial.glob("*.tar"))}
        (partial / CONTENT).write_text(json.dumps({"names": columns[0].names, "shards": sizes}), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # it is there only if something is missing in it
        with suppress(OSError):  # without locks another process may have been faster
            partial.rename(folder)
    except (OSError, ValueError) as error:  # ValueError: what Arrow says of a file that is not a Parquet file
        raise DataError(f"cannot unpack {tables[0].path.parent} into {folder}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    found = _unpacked(folder)
    if found is None:
        raise DataError(
            f"cannot unpack {tables[0].path.parent} into {folder}: another process keeps changing it; try again"
        )
    return found


def _write_shards(
    folder: Path, tables: Sequence[Table], files: Sequence[Any], columns: Sequence[Columns], on_progress: Progress
) -> None:
    """Write a shard per Parquet file; images are numbered over all of them."""
    total, done = sum(file.metadata.num_rows for file in files), 0
    for number, (table, file, kind) in enumerate(zip(tables, files, columns, strict=True)):
        first = done
        with tarfile.open(folder / f"{table.split or 'data'}-{number:05}.tar", "w") as archive:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=[kind.image, kind.label]):
                for row in batch.to_pylist():
                    image, label = row[kind.image], row[kind.label]
                    _check_row(image, label, kind.names, f"{table.path}, row {done - first}")
                    _add(archive, f"{done:09}", image["bytes"], label)
                    done += 1
                on_progress(done, total)


def _reader(path: Path) -> tuple[Any, Callable[[Any], Any]]:
    """Return Arrow's Parquet module, and a function that turns a file's schema into its columns' kinds."""
    try:
        from datasets import Features  # noqa: PLC0415 - an extra, and slow to import
        from pyarrow import parquet  # noqa: PLC0415 - the same
    except ImportError as error:
        raise DataError(
            f"{path} is a Parquet file, which takes Hugging Face's datasets to read: pip install "
            "'dali-fixres[parquet]'; or give class folders, tar shards or a .csv manifest"
        ) from error
    return parquet, Features.from_arrow_schema


def _columns(path: Path, features: Any) -> Columns:
    images = [name for name, kind in features.items() if type(kind).__name__ == "Image" or _is_image(kind)]
    classes = [name for name, kind in features.items() if type(kind).__name__ == "ClassLabel"]
    labels = [name for name in (*LABEL_COLUMNS, *classes) if name in features]
    if not images or not labels:
        raise DataError(
            f"{path} has the columns {', '.join(features)}; expected one of images, and label with their classes"
        )
    return Columns(images[0], labels[0], getattr(features[labels[0]], "names", None))


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
    """Return whether a column holds files that are not declared as images."""
    return isinstance(kind, dict) and "bytes" in kind


def _check_row(image: Any, label: Any, names: Sequence[str] | None, where: str) -> None:
    if not image or not image.get("bytes"):
        raise DataError(f"{where}: has no image in it; repair the file")
    if not isinstance(label, int | str) or (names is not None and not 0 <= int(label) < len(names)):
        raise DataError(f"{where}: its label is {label}, which names no class; repair or remove the file")


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
            f"unpacking {tables[0].path.parent} needs {needed / 1e9:.1f} GB in {folder.parent}, where "
            f"{free / 1e9:.1f} GB are free; set DALI_FIXRES_CACHE to another place"
        )
