"""What the copies of a part are written with: tar shards with .idx files, or files in class folders."""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import IO, Protocol

from pipelines.errors import SaveError
from pipelines.prepare.encode import Copy
from pipelines.prepare.part import Part, Source
from pipelines.storage.atomic import replacing
from pipelines.storage.files import make_folder

__all__ = ["Writer", "open_writers"]


class Writer(Protocol):
    """Writes the copies of one size."""

    def add(self, source: Source, copy: Copy) -> int:
        """Write a copy and return its offset in the shard."""


@contextmanager
def open_writers(part: Part) -> Iterator[Mapping[str, Writer]]:
    """Yield a writer per folder of a part; shards get their names once they are complete.

    Raises:
        SaveError: If something cannot be written.
    """
    if part.settings.layout == "folder":
        yield {folder: _FolderWriter(part, folder) for folder in part.settings.folders}
        return
    with ExitStack() as stack:
        shards = {}
        for folder in part.settings.folders:
            path = part.shard(folder)
            make_folder(path.parent)
            shards[folder] = _ShardWriter(stack.enter_context(replacing(path)))
        yield shards
        for folder, shard in shards.items():
            shard.close()
            with replacing(part.shard(folder).with_suffix(".idx")) as file:
                file.write(shard.index())


class _ShardWriter:
    """Appends samples to a tar file: image, class number, and a .json with what else is known."""

    def __init__(self, file: IO[bytes]) -> None:
        self._archive = tarfile.open(fileobj=file, mode="w")  # noqa: SIM115 - closed by `close`
        self._samples: list[list[tuple[str, int, int, str]]] = []

    def add(self, source: Source, copy: Copy) -> int:
        """Append a sample and return where its image begins."""
        facts = {"label": source.class_name, "path": source.path, "height": copy.height, "width": copy.width}
        members = {"jpg": copy.content, "cls": str(source.label).encode(), "json": json.dumps(facts).encode()}
        self._samples.append([self._member(f"{source.key}.{kind}", kind, content) for kind, content in members.items()])
        return self._samples[-1][0][1]

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
        lines = [" ".join(f"{kind} {at} {size} {name}" for kind, at, size, name in sample) for sample in self._samples]
        return "\n".join([f"v1.2 {len(lines)}", *lines, ""]).encode()


class _FolderWriter:
    """Writes files below class folders."""

    def __init__(self, part: Part, folder: str) -> None:
        self._part, self._folder = part, folder

    def add(self, source: Source, copy: Copy) -> int:
        """Write a file; its offset is 0."""
        path = self._part.file(self._folder, source.key)
        temporary = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(copy.content)
            temporary.replace(path)
        except OSError as error:
            raise SaveError(f"cannot write {path}: {error.strerror}") from error
        return 0
