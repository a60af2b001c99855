"""Tar shards for tests, written by the standard library."""

import io
import tarfile
from pathlib import Path

__all__ = ["add_member", "tar_of_folders"]


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def tar_of_folders(images: Path, target: Path, num_shards: int = 2) -> None:
    """Write the images of train/ and val/ class folders as shards, with .cls labels in the order of class names."""
    target.mkdir(parents=True, exist_ok=True)
    classes = sorted(path.name for path in (images / "train").iterdir())
    for split in ("train", "val"):
        for number in range(num_shards):
            with tarfile.open(target / f"{split}-{number:04}.tar", "w") as archive:
                for path in sorted((images / split).rglob("*.jpg"))[number::num_shards]:
                    key = f"{path.parent.name}-{path.stem}"
                    add_member(archive, f"{key}.jpg", path.read_bytes())
                    add_member(archive, f"{key}.cls", str(classes.index(path.parent.name)).encode())
