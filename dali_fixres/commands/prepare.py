"""`dali-fixres prepare`: resized copies of a data set.

Nothing here imports torch or DALI: each process that encodes would load them again.
"""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from dali_fixres.config import PrepareConfig
from dali_fixres.errors import ConfigError, DataError, RunError, SaveError
from dali_fixres.runtime.progress import Bar, Reporter
from pipelines.dataset import TRAIN, VAL, Dataset, ResizedCopies, open_dataset
from pipelines.dataset.formats.prepared import FULL, INDEX, MANIFEST, VERSION, is_prepared, read_manifest, save_prepared
from pipelines.dataset.headers import Place
from pipelines.dataset.table import make_dataset
from pipelines.prepare.encode import Sizes, encode_copies, total_bytes
from pipelines.prepare.write import Part, Source, Written, done_before, write_part
from pipelines.processes import usable_cores, worker_pool
from pipelines.storage.cache_folder import cache_folder
from pipelines.storage.files import write_json, write_text
from pipelines.storage.locks import LOCK, locked

__all__ = ["prepare"]

LONGEST_NAME = 200
"""Bytes of a folder's or file's name; file systems take 255, with what is put behind."""

NUM_SAMPLED = 48
"""Images that are encoded to estimate how much room all of them take."""


def prepare(source: Path, target: Path, config: PrepareConfig) -> None:
    """Write the copies, and last the index that makes them a data set; what an earlier call has finished is kept.

    Raises:
        UserError: If source, target or settings cannot be used.
        RunError: If it cannot be finished; run again, it goes on.
    """
    reporter = Reporter()
    source, target = source.absolute(), target.absolute()
    _check_apart(source, target)
    with reporter.bar("reading image sizes", total=1) as bar:
        dataset = open_dataset(source, val_fraction=config.val_fraction, on_progress=bar.update_of)
    if not config.full and cache_folder() in dataset.root.parents:
        raise ConfigError(f"the images of {source} are unpacked into a cache that may be emptied; leave --no-full out")
    sizes = Sizes(config.sides, config.max_side if config.full else None, config.quality)
    if config.layout == "folder":
        _check_class_names(dataset.classes)
    manifest = _manifest(source, dataset, config)
    _check_target(target, manifest)
    parts = _parts(dataset, target, sizes, config)
    if (target / INDEX).exists():
        reporter.line(f"{target} was finished before: looking over what is there")
    else:
        _check_room(parts, target, reporter)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {target}: {error.strerror}; name another folder") from error
    with locked(target, "name another folder"):
        _check_target(target, manifest)  # another one may have begun it in between
        _write(dataset, parts, sizes, manifest, config, reporter)
    reporter.line(f"next: dali-fixres train --data {target} …")


def _write(
    dataset: Dataset,
    parts: Sequence[Part],
    sizes: Sizes,
    manifest: dict[str, Any],
    config: PrepareConfig,
    reporter: Reporter,
) -> None:
    """Write or finish the copies, then the index."""
    target = parts[0].target
    write_json(target / MANIFEST, manifest)
    (target / INDEX).unlink(missing_ok=True)
    with reporter.bar("writing copies", len(dataset)) as bar:
        written = _write_all(parts, config.workers or usable_cores(), bar)
    copies = {row: placed for one in written for row, placed in one.copies.items()}
    unreadable = {row: reason for one in written for row, reason in one.unreadable.items()}
    lines = _unreadable_lines(dataset, unreadable)
    if not copies:
        raise DataError(
            f"none of the {len(dataset)} images of {manifest['source']} can be decoded; the first is {lines[0]}"
        )
    (target / "unreadable.txt").unlink(missing_ok=True)
    if lines:
        write_text(target / "unreadable.txt", "".join(f"{line}\n" for line in lines), errors="surrogateescape")
        reporter.warn(f"{len(lines)} file(s) cannot be read and are left out: see {target / 'unreadable.txt'}")
    _finish(target, dataset, parts, copies, sizes)
    megabytes = sum(one.num_bytes for one in written) / 1e6
    reporter.line(f"{len(copies)} images at {', '.join(sizes.names)}: {megabytes:.1f} MB in {target}")


def _check_apart(source: Path, target: Path) -> None:
    one, other = source.resolve(), target.resolve()
    if one == other or one in other.parents:
        raise ConfigError(
            f"{target} lies inside of {source}, which would then hold its own copies; name a place outside"
        )


def _check_class_names(classes: Sequence[str]) -> None:
    """Refuse classes whose folders would be one and the same."""
    folders: dict[str, str] = {}
    for name in classes:
        other = folders.setdefault(_safe(name).lower(), name)
        if other != name:
            raise ConfigError(f"the classes {other!r} and {name!r} would share a folder; use --layout shards")


def _manifest(source: Path, dataset: Dataset, config: PrepareConfig) -> dict[str, Any]:
    return {
        "version": VERSION,
        "source": str(source),
        "root": None if config.full else str(dataset.root),
        "source_fingerprint": dataset.fingerprint,
        "rungs": list(config.sides),
        "full": config.full,
        "max_side": config.max_side if config.full else None,
        "quality": config.quality,
        "layout": config.layout,
        "shard_size": config.shard_size,
        "num_images": len(dataset),
    }


def _check_target(target: Path, manifest: dict[str, Any]) -> None:
    """Refuse a folder with other things in it, or with copies of other data or by other settings."""
    if not target.exists():
        return
    if not is_prepared(target):
        if not target.is_dir():
            raise ConfigError(f"{target} is a file; name a folder")
        if any(path.name not in {LOCK, f".{MANIFEST}.partial"} for path in target.iterdir()):
            raise ConfigError(f"{target} is not empty; name a new folder, or one that `prepare` has begun")
        return
    before = read_manifest(target)
    changed = [key for key in manifest if key != "source" and before.get(key) != manifest[key]]
    if changed:
        was = ", ".join(f"{key} = {before.get(key)}" for key in changed)
        raise ConfigError(f"{target} was begun with {was}; name a new folder, or remove this one")


def _parts(dataset: Dataset, target: Path, sizes: Sizes, config: PrepareConfig) -> list[Part]:
    """Cut the data set into parts; images of a split are mixed, for readers that go through shards in order."""
    taken: set[str] = set()
    parts = []
    for split in (TRAIN, VAL):
        rows = np.random.default_rng(0).permutation(dataset.rows(split)).tolist()
        for number, first in enumerate(range(0, len(rows), config.shard_size)):
            sources = tuple(_source(dataset, row, split, taken) for row in rows[first : first + config.shard_size])
            parts.append(Part(f"{split}-{number:06}", target, sources, sizes, config.layout))
    return parts


def _source(dataset: Dataset, row: int, split: str, taken: set[str]) -> Source:
    path = os.fsdecode(dataset.relative_path(row))
    label = int(dataset.labels[row])
    class_name = dataset.classes[label]
    key = f"{split}/{_safe(class_name)}/{_name(path, split, class_name)}"
    while key.lower() in taken:
        key += f"-{row}"
    taken.add(key.lower())
    place = Place(Path(os.fsdecode(dataset.file(row))))
    if dataset.shards:
        shard = dataset.root / dataset.shards[dataset.shard_of[row]]
        place = Place(shard, int(dataset.offsets[row]), int(dataset.num_bytes[row]))
    return Source(row, key, place, label, class_name, path.encode("utf-8", "replace").decode())


def _name(path: str, split: str, class_name: str) -> str:
    """Return what an image is called below its class: its path without what the folders above say already."""
    *folders, file = path.split("/")
    given = {"", ".", "..", split, class_name}
    kept = [] if path.startswith("/") else [folder for folder in folders if folder not in given]
    return _safe("-".join([*kept, file.rpartition(".")[0] or file]))


def _safe(text: str) -> str:
    """Return a name that is one folder or file anywhere, and has no dots, at which names in shards end."""
    name = re.sub(r"[^\w-]", "_", text) or "_"
    return name.encode()[:LONGEST_NAME].decode("utf-8", "ignore")


def _check_room(parts: Sequence[Part], target: Path, reporter: Reporter) -> None:
    """Refuse to begin what does not fit on the disk."""
    sources = [source for part in parts for source in part.sources]
    sampled = sources[:: max(1, len(sources) // NUM_SAMPLED)]
    found = []
    for source in sampled:
        try:
            found.append(total_bytes([*encode_copies(source.place.read(), parts[0].sizes).values()]))
        except Exception:  # noqa: BLE001, S112 - a broken image takes no room; it is named when its turn comes
            continue
    needed = sum(found) / max(1, len(found)) * len(sources) * 1.05
    there = next(folder for folder in (target, *target.parents) if folder.exists())
    held = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) if target.exists() else 0
    free = shutil.disk_usage(there).free + held
    reporter.line(f"about {needed / 1e6:.0f} MB to write, {free / 1e6:.0f} MB free")
    if needed > free:
        raise ConfigError(
            f"{target} needs about {needed / 1e9:.2f} GB and there are {free / 1e9:.2f} GB; make room, or leave --sizes "
            "out, or lower --quality"
        )


def _write_all(parts: Sequence[Part], num_processes: int, bar: Bar) -> list[Written]:
    """Write parts in several processes."""
    written: list[Written] = []
    num_done, num_bytes = 0, 0
    try:
        with worker_pool(num_processes) as pool:
            for future in as_completed([pool.submit(_write_part, part) for part in parts]):
                one = future.result()
                written.append(one)
                num_done += len(one.copies) + len(one.unreadable)
                num_bytes += one.num_bytes
                bar.update(num_done, f"{num_bytes / 1e6:.0f} MB")
    except KeyboardInterrupt:
        print("interrupted; the same command resumes what is left", file=sys.stderr)  # noqa: T201
        raise
    except BrokenProcessPool as error:
        raise RunError(
            "a process was killed, perhaps for want of memory; run the same command again, it goes on"
        ) from error
    except SaveError as error:
        raise SaveError(f"{error}; run the same command again, it goes on") from error
    return written


def _write_part(part: Part) -> Written:
    return done_before(part) or write_part(part)


def _finish(
    target: Path,
    source: Dataset,
    parts: Sequence[Part],
    copies: dict[int, dict[str, tuple[int, int, int, int]]],
    sizes: Sizes,
) -> None:
    """Write the index: rows are the readable images in the source's order, so that a seed means the same for both."""
    where = {item.row: (number, part, item.key) for number, part in enumerate(parts) for item in part.sources}
    rows = sorted(copies)
    in_shards = parts[0].layout == "shards"
    shards = tuple(f"{part.name}.tar" for part in parts) if in_shards else ()
    names = [source.relative_path(row) for row in rows]
    if sizes.max_side is not None:
        folders = [f"{where[row][1].name}.tar/" if in_shards else "" for row in rows]
        names = [os.fsencode(f"{folder}{where[row][2]}.jpg") for folder, row in zip(folders, rows, strict=True)]
    full = {
        name: np.array([copies[row][FULL][place] for row in rows], np.int64)
        for place, name in enumerate(("heights", "widths", "num_bytes", "offsets"))
        if sizes.max_side is not None
    }
    own = {name: getattr(source, name)[rows] for name in ("heights", "widths", "num_bytes", "offsets", "shard_of")}
    columns = own | full | {"labels": source.labels[rows], "mtimes_ns": np.zeros(len(rows), np.int64)}
    part_of = np.array([where[row][0] for row in rows], np.int64)
    if full:
        columns["shard_of"] = part_of
    is_val = np.array(rows) >= source.num_train
    dataset = make_dataset(target / FULL, source.classes, names, columns, is_val, shards if full else source.shards)
    copy_ids = [_rung(target, side_px, [copies[row] for row in rows], shards, part_of) for side_px in sizes.sides]
    save_prepared(target, dataset, copy_ids)


def _rung(
    target: Path,
    side_px: int,
    copies: Sequence[dict[str, tuple[int, int, int, int]]],
    shards: tuple[str, ...],
    part_of: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
) -> ResizedCopies:
    table = np.array([placed.get(str(side_px), (0, 0, 0, 0)) for placed in copies], np.int64)
    heights, widths, num_bytes, offsets = table.T
    return ResizedCopies(side_px, target / str(side_px), heights, widths, num_bytes, shards, part_of, offsets)


def _unreadable_lines(dataset: Dataset, unreadable: dict[int, str]) -> list[str]:
    left_out = [f"{item.path}: {item.reason}" for item in dataset.left_out]
    return [*left_out, *(f"{dataset.path(row)}: {reason}" for row, reason in sorted(unreadable.items()))]
