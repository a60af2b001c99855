"""What is in a tar shard: its images, their labels, and where their bytes lie.

A sample is the members of one name up to its first dot: ``0001.jpg`` with ``0001.cls`` (a number) or ``0001.json`` (an
object with ``label`` or ``cls``). What a scan has found is cached until the shard's length or time changes.
"""

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.errors import DataError
from pipelines.storage.arrays import load_arrays, pack_names, save_arrays, unpack_names
from pipelines.storage.cache_folder import cache_folder

__all__ = ["Member", "read_shard"]

VERSION = 1

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "jp2")
"""Extensions of members that are images."""

COMPRESSED = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ\x00", "zstd": b"\x28\xb5\x2f\xfd"}
"""The first bytes of compressed files."""

LABEL_KEYS = ("label", "cls")
"""Where a .json member may have the label, a number or a name."""


@dataclass(frozen=True, slots=True)
class Member:
    """An image in a shard.

    Attributes:
        name: In the archive.
        label: Number or name of its class, as written.
        offset: Where its bytes begin in the file.
        num_bytes: How many there are.
    """

    name: str
    label: str
    offset: int
    num_bytes: int


def read_shard(path: Path) -> list[Member]:
    """Return the images of a tar shard, in their order; pax and GNU long names included.

    Raises:
        DataError: If it cannot be read, ends in the middle, has two samples of one name or an image without a label,
            or if the .idx file beside it does not match.
    """
    try:
        if (packer := _compressed_by(path)) is not None:
            raise DataError(
                f"shard {path} is compressed with {packer}; unpack it: images are read from anywhere in a shard"
            )
        cache = _cache_path(path)
        known = _load(cache)
        if known is None:
            known = list(_samples(path))
            _check_offsets(path, known)
            _save(cache, known)
    except (OSError, tarfile.TarError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(f"cannot read shard {path}: {what}; make or fetch it again") from error
    return known


def _compressed_by(path: Path) -> str | None:
    """Return what a file is compressed with, or None."""
    with path.open("rb") as file:
        start = file.read(6)
    return next((name for name, magic in COMPRESSED.items() if start.startswith(magic)), None)


def _samples(path: Path) -> Iterator[Member]:
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, str] = {}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            if not member.isfile():
                continue
            folder, _, name = member.name.rpartition("/")
            stem, _, extension = name.partition(".")
            key = f"{folder}/{stem}" if folder else stem
            if extension.lower() in IMAGES:
                if key in images:
                    raise DataError(f"shard {path} has two images named {key!r}; each sample needs a name of its own")
                images[key] = member
            elif extension in {"cls", "json"}:
                label = _read_label(path, archive, member, extension)
                if label is not None and (extension == "json" or key not in labels):
                    labels[key] = label  # a .json may have the class's name, so it wins
        _check_end(path, archive.offset)
    _check_complete(path, images, labels)
    for key, image in images.items():
        yield Member(image.name, labels[key], image.offset_data, image.size)


def _check_complete(path: Path, images: Mapping[str, tarfile.TarInfo], labels: Mapping[str, str]) -> None:
    """Refuse samples that lack a label or an image, instead of leaving them out silently."""
    for key, image in images.items():
        if key not in labels:
            raise DataError(f"shard {path}: {image.name} has no label; expected {key}.cls or {key}.json with a label")
    for key in labels:
        if key not in images:
            known = ", .".join(IMAGES)
            raise DataError(f"shard {path}: {key!r} has a label and no image; a sample's image is one of .{known}")


def _check_end(path: Path, end: int) -> None:
    """Refuse a shard that was cut at or in a member's header: tarfile takes that for the end."""
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"unexpected end of data at byte {end}, without the zeros that end a tar file")
        while padding := file.read(1 << 20):
            if padding.count(0) < len(padding):
                raise tarfile.ReadError(f"there is more behind the end at byte {end}, as in shards that were joined")


def _read_label(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, extension: str) -> str | None:
    file = archive.extractfile(member)
    assert file is not None, "it is a file"
    label = _label(file.read(), extension)
    if label is None and extension == "cls":
        raise DataError(f"shard {path}: {member.name} is not a number; a .cls file holds the class's number")
    return label


def _label(content: bytes, extension: str) -> str | None:
    """Return the label that a member holds, or None if it holds none."""
    if extension == "cls":
        text = content.strip().decode("ascii", "replace")
        return str(int(text)) if text.isascii() and text.isdigit() else None
    try:
        values = json.loads(content)
    except ValueError:
        return None
    found = [values[key] for key in LABEL_KEYS if key in values] if isinstance(values, dict) else []
    return str(found[0]) if found and isinstance(found[0], int | str) and str(found[0]) else None


def _check_offsets(path: Path, members: list[Member]) -> None:
    """Refuse a shard whose .idx file, which DALI's own reader goes by, says that its images lie elsewhere.

    Its lines, after the first, are samples: extension, offset, length and perhaps name of each member.
    """
    offsets = path.with_suffix(".idx")
    if not offsets.is_file():
        return
    version, *lines = offsets.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    if version.partition(" ")[0] not in {"v1.1", "v1.2"}:
        return  # of another tool
    listed = {pair for line in lines for pair in re.findall(r"(?<= )(\d+) (\d+)\b", line)}
    for member in members:
        if (str(member.offset), str(member.num_bytes)) not in listed:
            raise DataError(
                f"{offsets} does not match its shard: it does not have {member.name} at byte {member.offset}; make it "
                "again, or remove it, as it is not needed here"
            )


def _cache_path(path: Path) -> Path:
    states = [file.stat() for file in (path, path.with_suffix(".idx")) if file is path or file.exists()]
    what = f"{path.resolve()}\0{[(stat.st_size, stat.st_mtime_ns) for stat in states]}\0{VERSION}"
    name = hashlib.sha256(os.fsencode(what)).hexdigest()[:24]
    return cache_folder() / "shards" / f"{name}.npz"


def _load(cache: Path) -> list[Member] | None:
    """Return what an earlier scan has found, or None."""
    stored = load_arrays(cache)
    if stored is None:
        return None
    try:
        names, labels = (map(os.fsdecode, unpack_names(stored[name])) for name in ("name", "label"))
        numbers = (stored[name].tolist() for name in ("offset", "num_bytes"))
        return [Member(*row) for row in zip(names, labels, *numbers, strict=True)]
    except (KeyError, ValueError):
        return None  # the cache of another version


def _save(cache: Path, members: list[Member]) -> None:
    names, labels = (pack_names(os.fsencode(getattr(member, name)) for member in members) for name in ("name", "label"))
    offsets, sizes = (
        np.array([getattr(member, name) for member in members], np.int64) for name in ("offset", "num_bytes")
    )
    save_arrays(cache, {"name": names, "label": labels, "offset": offsets, "num_bytes": sizes})
