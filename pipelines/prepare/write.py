"""A part of a data set, written at all its sizes: a task that one process does, and that is done or not."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from pipelines.dataset.headers import Place
from pipelines.errors import RunError, SaveError
from pipelines.prepare.encode import Copy, Sizes, encode_copies
from pipelines.storage.atomic import replacing

__all__ = ["Layout", "Part", "Source", "Written", "done_before", "write_part"]

Layout: TypeAlias = Literal["shards", "folder"]

DONE = ".done"
"""Folder of what has been written; each part leaves a file there when it is complete."""


@dataclass(frozen=True, slots=True)
class Source:
    """An image to copy.

    Attributes:
        row: Of the source's index.
        key: Name of its copies, without extension.
        place: Where it is read.
        label: Number of its class.
        class_name: Its name.
        path: Its path in the source, for people.
    """

    row: int
    key: str
    place: Place
    label: int
    class_name: str
    path: str


@dataclass(frozen=True, slots=True)
class Part:
    """Images that are written together.

    Attributes:
        name: ``train-000000``; a shard is called that.
        target: Folder of the prepared data set.
        sources: The images.
        sizes: Which copies are made.
        layout: Tar shards, or files in folders.
    """

    name: str
    target: Path
    sources: tuple[Source, ...]
    sizes: Sizes
    layout: Layout


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a part.

    Attributes:
        name: Of the part.
        digests: SHA-256 of each shard and .idx file, by path below the target; or of all files in each folder.
        copies: For each image by row: by folder, height, width, length in bytes and offset in the shard.
        unreadable: What is wrong with images that could not be read, by row.
        num_bytes: Written in all.
    """

    name: str
    digests: dict[str, str]
    copies: dict[int, dict[str, tuple[int, int, int, int]]]
    unreadable: dict[int, str]
    num_bytes: int


def write_part(part: Part) -> Written:
    """Write a part anew, and note that it is complete.

    Raises:
        SaveError: If it cannot be written.
        RunError: If an image's file cannot be read any more.
    """
    copies: dict[int, dict[str, tuple[int, int, int, int]]] = {}
    unreadable: dict[int, str] = {}
    num_bytes = 0
    with _writers(part) as writers:
        for source in part.sources:
            try:
                content = source.place.read()
            except OSError as error:  # it was there when it was indexed: not the image's fault, and not to be noted
                raise RunError(
                    f"cannot read {source.place.file}: {error.strerror or error}; once the storage is mended, run the "
                    "same command again, it goes on"
                ) from error
            try:
                encoded = encode_copies(content, part.sizes)
            except MemoryError as error:
                raise RunError(f"there is no memory to decode {source.path}; lower --workers") from error
            except Exception as error:  # noqa: BLE001 - whatever a broken image makes PIL raise is the finding to report
                unreadable[source.row] = str(getattr(error, "strerror", None) or error) or type(error).__name__
                continue
            placed = {}
            for folder, copy in encoded.items():
                offset = writers[folder].add(source, copy)
                placed[folder] = (copy.height, copy.width, len(copy.content), offset)
                num_bytes += len(copy.content)
            copies[source.row] = placed
    try:
        digests = _digests(part, copies)
    except OSError as error:
        raise SaveError(f"cannot read what has been written to {part.target}: {error.strerror}") from error
    written = Written(part.name, digests, copies, unreadable, num_bytes)
    note = _note(part)
    _make_folder(note.parent)
    with replacing(note) as file:
        file.write(json.dumps(asdict(written)).encode())
    return written


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"cannot make {folder}: {error.strerror}") from error


def done_before(part: Part) -> Written | None:
    """Return what an earlier run has written of a part, if all of it is still there as it was."""
    try:
        values: dict[str, Any] = json.loads(_note(part).read_text(encoding="utf-8"))
        copies = {
            int(row): {folder: tuple(numbers) for folder, numbers in placed.items()}
            for row, placed in values["copies"].items()
        }
        unreadable = {int(row): str(reason) for row, reason in values["unreadable"].items()}
        written = Written(part.name, values["digests"], copies, unreadable, values["num_bytes"])
        is_whole = _digests(part, copies) == written.digests
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not done, or not to be trusted: it is written anew
    rows = {source.row for source in part.sources}
    return written if is_whole and copies.keys() | unreadable.keys() == rows else None


def _note(part: Part) -> Path:
    return part.target / DONE / f"{part.name}.json"


def _shard(part: Part, folder: str) -> Path:
    return part.target / folder / f"{part.name}.tar"


def _file(part: Part, folder: str, key: str) -> Path:
    return part.target / folder / f"{key}.jpg"


def _digests(part: Part, copies: dict[int, dict[str, tuple[int, int, int, int]]]) -> dict[str, str]:
    """Return the SHA-256 of each shard and .idx file of a part, or of each folder's files, as they are now."""
    if part.layout == "shards":
        shards = [_shard(part, folder) for folder in part.sizes.names]
        files = [file for shard in shards for file in (shard, shard.with_suffix(".idx"))]
        return {str(file.relative_to(part.target)): _digest([file]) for file in files}
    written = [(source.key, copies.get(source.row, {})) for source in part.sources]
    return {
        folder: _digest([_file(part, folder, key) for key, sizes in written if folder in sizes])
        for folder in part.sizes.names
    }


def _digest(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while content := file.read(1 << 20):
                digest.update(content)
    return digest.hexdigest()


class _ShardWriter:
    """Appends samples to a tar file: image, class number, and what else is known, each time in the same bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._archive = tarfile.open(fileobj=file, mode="w")  # noqa: SIM115 - closed by `close`
        self.samples: list[list[tuple[str, int, int, str]]] = []

    def add(self, source: Source, copy: Copy) -> int:
        """Append a sample and return where its image begins."""
        facts = {"label": source.class_name, "path": source.path, "height": copy.height, "width": copy.width}
        members = {"jpg": copy.content, "cls": str(source.label).encode(), "json": json.dumps(facts).encode()}
        self.samples.append([self._member(f"{source.key}.{kind}", kind, content) for kind, content in members.items()])
        return self.samples[-1][0][1]

    def _member(self, name: str, kind: str, content: bytes) -> tuple[str, int, int, str]:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._archive.addfile(member, io.BytesIO(content))
        blocks = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        return kind, self._archive.offset - blocks, len(content), name

    def close(self) -> None:
        """Write the archive's end."""
        self._archive.close()

    def index(self) -> bytes:
        """Return the .idx file that DALI's reader takes: a line per sample, extension, offset, length and name."""
        lines = [" ".join(f"{kind} {at} {size} {name}" for kind, at, size, name in sample) for sample in self.samples]
        return "\n".join([f"v1.2 {len(lines)}", *lines, ""]).encode()


class _FolderWriter:
    """Writes files below class folders."""

    def __init__(self, part: Part, folder: str) -> None:
        self._part, self._folder = part, folder

    def add(self, source: Source, copy: Copy) -> int:
        """Write a file; it begins at its beginning."""
        path = _file(self._part, self._folder, source.key)
        temporary = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(copy.content)
            temporary.replace(path)
        except OSError as error:
            raise SaveError(f"cannot write {path}: {error.strerror}") from error
        return 0


@contextmanager
def _writers(part: Part) -> Iterator[dict[str, Any]]:
    """Yield what writes the copies of each size; shards take their names once they are complete."""
    if part.layout == "folder":
        yield {folder: _FolderWriter(part, folder) for folder in part.sizes.names}
        return
    with ExitStack() as stack:
        shards = {}
        for folder in part.sizes.names:
            path = _shard(part, folder)
            _make_folder(path.parent)
            shards[folder] = _ShardWriter(stack.enter_context(replacing(path)))
        yield shards
        for folder, shard in shards.items():
            shard.close()
            with replacing(_shard(part, folder).with_suffix(".idx")) as file:
                file.write(shard.index())
