"""Prepared data for tests."""

import hashlib
from pathlib import Path

from pipelines.prepare import CopySettings, plan_copies, write_copies

__all__ = ["SMALL", "digests", "prepare_copies"]

SMALL = CopySettings(sides=(64, 128), max_side=300, quality=90, layout="shards", shard_size=15)


def prepare_copies(
    source: Path,
    target: Path,
    settings: CopySettings,
    *,
    val_fraction: float | None = None,
    num_processes: int | None = None,
) -> None:
    """Write resized copies of a data set, without showing progress."""
    write_copies(plan_copies(source, target, settings, val_fraction=val_fraction), num_processes=num_processes)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each tar and .idx file below a folder."""
    files = [path for path in folder.rglob("*") if path.suffix in {".tar", ".idx"}]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
