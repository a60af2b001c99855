"""What is checked before anything is written: the target, its settings, and the room on its disk."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.dataset import Dataset
from pipelines.dataset.formats.prepared import MANIFEST, VERSION, PreparedFile, read_manifest, recognises
from pipelines.errors import ConfigError
from pipelines.prepare.encode import Copy, CopySettings, encode_copies
from pipelines.prepare.part import Part
from pipelines.storage.cache_folder import cache_folder
from pipelines.storage.locks import LOCK

__all__ = ["Room", "check_apart", "check_target", "check_unpacked", "make_manifest", "measure_room"]

NUM_SAMPLED = 48
"""Images that are encoded to estimate how many bytes all of them take."""

MARGIN = 1.05
"""Room asked for over the estimate."""


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that the copies take, estimated, and bytes that the disk has for them."""

    needed: int
    free: int


def check_apart(source: Path, target: Path) -> None:
    """Refuse a target inside of its source, which would then contain its own copies.

    Raises:
        ConfigError: If it is.
    """
    one, other = source.resolve(), target.resolve()
    if one == other or one in other.parents:
        raise ConfigError(
            f"{target} lies inside of {source}, which would then contain its own copies; name a place outside"
        )


def check_unpacked(source: Path, dataset: Dataset) -> None:
    """Refuse to rely on images in the cache.

    Raises:
        ConfigError: If the images are there.
    """
    if cache_folder() in dataset.root.parents:
        raise ConfigError(
            f"the images of {source} are unpacked into a cache that may be emptied; copy them too, without "
            "`max_side=None`"
        )


def make_manifest(source: Path, dataset: Dataset, settings: CopySettings) -> PreparedFile:
    """Return what is noted of a prepared data set, by which it is also recognised when it is resumed."""
    is_full = settings.max_side is not None
    return {
        "version": VERSION,
        "source": str(source),
        "root": None if is_full else str(dataset.root),
        "source_fingerprint": dataset.fingerprint,
        "sizes": list(settings.sides),
        "full": is_full,
        "max_side": settings.max_side,
        "quality": settings.quality,
        "layout": settings.layout,
        "shard_size": settings.shard_size,
        "num_images": len(dataset),
    }


def check_target(target: Path, manifest: PreparedFile) -> None:
    """Refuse a folder with other things in it, or with copies of other data or with other settings.

    Raises:
        ConfigError: If it is one.
        DataError: If its manifest cannot be read.
    """
    if not target.exists():
        return
    if not recognises(target):
        if not target.is_dir():
            raise ConfigError(f"{target} is a file; name a folder")
        if any(path.name not in {LOCK, f".{MANIFEST}.partial"} for path in target.iterdir()):
            raise ConfigError(f"{target} is not empty; name a new folder, or one that was begun before")
        return
    before = read_manifest(target)
    changed = [key for key, value in manifest.items() if key != "source" and before.get(key) != value]
    if changed:
        was = ", ".join(f"{key} = {before.get(key)}" for key in changed)
        raise ConfigError(f"{target} was begun with {was}; name a new folder, or remove this one")


def measure_room(parts: Sequence[Part], target: Path) -> Room:
    """Estimate from some images how many bytes the copies of all take, and see how many are free.

    Raises:
        ConfigError: If they do not fit; what an earlier run has written counts as free.
    """
    sources = [source for part in parts for source in part.sources]
    sizes = []
    for source in sources[:: max(1, len(sources) // NUM_SAMPLED)]:
        try:
            copies = encode_copies(source.span.read(), parts[0].settings).values()
        except Exception:  # noqa: BLE001, S112 - a broken image takes no room; it is reported when it is written
            continue
        sizes.append(sum(map(_bytes_in_tar, copies)))
    there = next(folder for folder in (target, *target.parents) if folder.exists())
    written = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) if target.exists() else 0
    room = Room(
        needed=round(sum(sizes) / max(1, len(sizes)) * len(sources) * MARGIN),
        free=shutil.disk_usage(there).free + written,
    )
    if room.needed > room.free:
        raise ConfigError(
            f"{target} needs about {room.needed / 1e9:.2f} GB and {room.free / 1e9:.2f} GB are free; make room, or "
            "give fewer `sides` or a lower `quality`"
        )
    return room


def _bytes_in_tar(copy: Copy) -> int:
    """Return the bytes of a sample: a block of header for each member, and whole blocks of content."""
    blocks_of_image, blocks_of_cls, blocks_of_json = 1 + -(-len(copy.content) // 512), 2, 2
    return (blocks_of_image + blocks_of_cls + blocks_of_json) * 512
