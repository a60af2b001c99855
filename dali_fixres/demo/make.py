"""The demo data set, drawn from a seed for users without a data set.

Every image shows one object, a shaded blob covered with small marks, before a cluttered background. The class is the
*shape of the marks* (dots, rings, squares, …). Colour, outline, size, position and number of marks do not depend on the
class, and a mark covers the same area in every class, so only fine detail distinguishes classes. Objects are 28 to 80 %
of the shorter side across. The size of a mark in the network's input decides how well it can be read, which is what
FixRes is about; nothing else is arranged for it.

The module imports neither torch nor DALI, so its worker processes start in a fraction of a second.
"""

import os
import re
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import as_completed
from pathlib import Path

from dali_fixres.demo.draw import CLASS_NAMES, NUM_CLASSES, draw_image
from pipelines.processes import worker_pool
from pipelines.storage.cache_folder import cache_folder

__all__ = ["DEMO_VERSION", "NUM_TRAIN", "NUM_VAL", "ensure_demo_data"]

NUM_TRAIN = 1500
NUM_VAL = 500
DEMO_VERSION = 1
"""Incremented when the same seed gives other images than before."""

_JPEG_QUALITY = 90
_CHUNK = 16  # images per task of a worker: a fraction of a second's work, so progress is steady and a stop quick

Job = tuple[str, int]  # split, number in the split
Progress = Callable[[int, int], None]


def ensure_demo_data(
    folder: Path | None = None,
    *,
    seed: int = 0,
    num_train: int = NUM_TRAIN,
    num_val: int = NUM_VAL,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Return the folder of the demo images; make it first if it does not exist.

    The images are drawn in a hidden folder beside the final one, which is then renamed: a killed run leaves nothing
    under the final name, and of several runs that make the set at once, the first one's is kept.
    Workers are spawned and import the caller's main module: a script needs ``if __name__ == "__main__":``.

    Args:
        folder: Of the set; by default a folder of the cache named after its content.
        seed: At least 0; an image is a pure function of (seed, split, its number in the split).
        num_train: Images to train on; number n is of class ``n % NUM_CLASSES``, so the counts are balanced.
        num_val: Images to test on, likewise.
        workers: Processes to draw with; by default one per usable core, eight at most.
        on_progress: Called in this process with the numbers of images drawn and to be drawn.

    Returns:
        The folder, with ``train/<class>/*.jpg``, ``val/<class>/*.jpg`` and a ``README.txt``.

    Raises:
        ValueError: For a negative seed, or for fewer images in a split than there are classes.
        FileExistsError: If ``folder`` exists and holds something else.
        OSError: If the images cannot be written there.
    """
    if seed < 0:
        raise ValueError(f"the demo's seed must be at least 0; found {seed}")
    counts = {"train": num_train, "val": num_val}
    if min(counts.values()) < NUM_CLASSES:
        raise ValueError(f"a demo split must have at least {NUM_CLASSES} images, one per class; found {counts}")
    if folder is None:
        folder = cache_folder() / f"demo-v{DEMO_VERSION}-seed{seed}-train{num_train}-val{num_val}"
    try:
        if not _is_finished(folder, _readme(seed, counts)):
            workers = workers or min(len(os.sched_getaffinity(0)), 8)
            _make(folder.absolute(), seed, counts, workers, on_progress)
    except FileExistsError:
        raise
    except OSError as error:
        raise OSError(
            f"cannot write the demo images to {folder}: {error}; "
            "set DALI_FIXRES_CACHE to a writable folder, or give --data"
        ) from error
    return folder


def _readme(seed: int, counts: dict[str, int]) -> str:
    """Return the text of README.txt, which names all that determines the set."""
    return (
        "Synthetic demo images, drawn by a program (dali-fixres): no photographs.\n"
        f"version: {DEMO_VERSION}\nseed: {seed}\n"
        f"train images: {counts['train']}\nval images: {counts['val']}\n"
        "The class is the shape of the small marks on the object.\n"
        "This folder can be deleted; it is made again when it is needed.\n"
    )


def _numbers(readme: str) -> list[str]:
    """Return what identifies a set: version, seed and counts, whatever the words around them."""
    return re.findall(r": (\d+)$", readme, re.MULTILINE)


def _is_finished(folder: Path, readme: str) -> bool:
    """Return whether ``folder`` is the set that ``readme`` names; raise FileExistsError if it is something else."""
    try:
        found = (folder / "README.txt").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        found = ""
    if _numbers(found) == _numbers(readme):
        return True
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_free:  # the rename replaces an empty folder
        raise FileExistsError(f"{folder} exists and is not this demo set; name another folder or delete it")
    return False


def _make(folder: Path, seed: int, counts: dict[str, int], workers: int, on_progress: Progress | None) -> None:
    """Draw the set beside ``folder``, then rename it, unless another process has been faster."""
    readme = _readme(seed, counts)
    making = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        for split in counts:
            for name in CLASS_NAMES:
                (making / split / name).mkdir(parents=True)
        jobs = [(split, number) for split, count in counts.items() for number in range(count)]
        _draw_all(making, seed, jobs, workers, on_progress)
        (making / "README.txt").write_text(readme, encoding="utf-8")
        try:
            making.rename(folder)
        except OSError:
            if not _is_finished(folder, readme):
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)  # does nothing after the rename


def _draw_all(folder: Path, seed: int, jobs: list[Job], workers: int, on_progress: Progress | None) -> None:
    """Draw the images of ``jobs`` below ``folder`` in ``workers`` processes."""
    chunks = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
    done = 0
    with worker_pool(workers) as pool:
        for future in as_completed([pool.submit(_draw_chunk, folder, seed, chunk) for chunk in chunks]):
            done += future.result()
            if on_progress is not None:
                on_progress(done, len(jobs))


def _draw_chunk(folder: Path, seed: int, chunk: list[Job]) -> int:
    """Draw and write the images of one chunk; return how many."""
    for split, number in chunk:
        path = folder / split / CLASS_NAMES[number % NUM_CLASSES] / f"{number:05d}.jpg"
        draw_image(seed, split, number).save(path, quality=_JPEG_QUALITY)
    return len(chunk)
