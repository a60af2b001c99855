"""How data sets lie on disk: one module per layout, all of one shape.

To add a layout, write its module and put it into `LAYOUTS`, before every layout that would recognise it too.
`prepared` stands apart: it is what this package writes, with all sizes known, so it is loaded and not listed.
"""

from pathlib import Path
from typing import Protocol

from pipelines.dataset.formats import class_folders, parquet, tables, tar_shards
from pipelines.dataset.listing import Listing, Progress
from pipelines.errors import DataError

__all__ = ["LAYOUTS", "Layout", "list_images"]


class Layout(Protocol):
    """What each module has."""

    DESCRIPTION: str
    """What it reads, for messages."""

    def recognises(self, path: Path, /) -> bool:
        """Return whether a folder or file is of this layout."""

    def list_images(self, path: Path, on_progress: Progress, /) -> Listing:
        """List its images; `on_progress` is called where that takes long."""


LAYOUTS: tuple[Layout, ...] = (tar_shards, tables, parquet, class_folders)
"""In the order in which they are tried."""


def list_images(path: Path, on_progress: Progress) -> Listing:
    """List the images of a data set in the first layout that recognises it.

    Args:
        path: A folder or file.
        on_progress: Called with the numbers of images unpacked and to be unpacked, where that is needed.

    Raises:
        DataError: If there is no such data set, or it is of no layout.
    """
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except OSError as error:
        raise DataError(f"cannot access {path}: {error.strerror}; check its permissions") from error
    if not exists:
        raise DataError(
            f"no such folder or manifest: {path}; give a folder of images, a .csv, .jsonl, .tar or .parquet"
        )
    for layout in LAYOUTS:
        if layout.recognises(path):
            return layout.list_images(path, on_progress)
    if is_folder and (advice := tables.unused_table(path)):
        raise DataError(advice)
    found = f"has no class folders; expected {path}/<class>/*.jpg" if is_folder else "is of no known form"
    readable = "; ".join(layout.DESCRIPTION for layout in reversed(LAYOUTS))
    raise DataError(f"{path} {found}; what can be read is {readable}")
