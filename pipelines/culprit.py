"""Which file of a failed batch is to blame: DALI's errors do not say."""

from PIL import Image

from dali_fixres.index import Index
from dali_fixres.windows import Ints

__all__ = ["first_unreadable"]


def first_unreadable(index: Index, rows: Ints) -> str | None:
    """Say what is wrong with the first file that is not what it was when it was indexed, or None if all are.

    Each is decoded whole with PIL, so this takes as long as a batch; it is called once a batch has failed.
    """
    for row in rows.tolist():
        path = index.path(row)
        try:
            with Image.open(path) as image:
                image.load()
        except Exception as error:  # noqa: BLE001 - whatever a broken file makes PIL raise is the finding to report
            return f"cannot decode {path}: {getattr(error, 'strerror', None) or error}"
        expected = int(index.widths[row]), int(index.heights[row])
        if image.size != expected:
            return f"{path} has changed since it was indexed: {image.size} instead of {expected} pixels"
    return None
