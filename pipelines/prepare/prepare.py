"""Preparing a data set: plan and check, write the copies in several processes, and last the index."""

from collections.abc import Callable
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from pipelines.dataset import Dataset, open_dataset
from pipelines.dataset.formats import prepared
from pipelines.dataset.listing import Progress
from pipelines.errors import ConfigError, DataError, RunError, SaveError
from pipelines.prepare.checks import Room, check_apart, check_target, check_unpacked, make_manifest, measure_room
from pipelines.prepare.divide import check_class_names, divide
from pipelines.prepare.encode import CopySettings
from pipelines.prepare.lay_out import lay_out
from pipelines.prepare.part import Part, Written
from pipelines.prepare.write import done_before, write_part
from pipelines.processes import usable_cores, worker_pool
from pipelines.storage.files import write_json, write_text
from pipelines.storage.locks import locked

__all__ = ["CopyPlan", "Summary", "plan_copies", "write_copies"]

UNREADABLE = "unreadable.txt"
"""In the target: path and reason of each file that is left out."""


@dataclass(frozen=True, slots=True, eq=False)
class CopyPlan:
    """What is to be copied, checked and ready to be written.

    Attributes:
        dataset: The source.
        target: Folder of the prepared data set.
        manifest: Its settings, as they are stored.
        parts: What is written, in pieces of work.
        room: Bytes needed and free; None if the target was finished before.
    """

    dataset: Dataset
    target: Path
    manifest: prepared.PreparedFile
    parts: tuple[Part, ...]
    room: Room | None


@dataclass(frozen=True, slots=True)
class Summary:
    """A prepared data set.

    Attributes:
        num_images: In it.
        num_bytes: Of all copies.
        unreadable: Path and reason of each file that is left out.
    """

    num_images: int
    num_bytes: int
    unreadable: tuple[str, ...]


def plan_copies(
    source: str | Path,
    target: str | Path,
    settings: CopySettings,
    *,
    val_fraction: float | None = None,
    on_progress: Progress = lambda done, total: None,  # noqa: ARG005
) -> CopyPlan:
    """Open the source and check that its copies can be written; nothing is written yet.

    Args:
        source: A data set, as `open_dataset` takes it.
        target: Folder to make, or to resume.
        settings: Which copies are made.
        val_fraction: As `open_dataset` takes it.
        on_progress: Called with the numbers of images measured and to be measured.

    Raises:
        UserError: If source, target or settings cannot be used.
    """
    source, target = Path(source).absolute(), Path(target).absolute()
    check_apart(source, target)
    dataset = open_dataset(source, val_fraction=val_fraction, on_progress=on_progress)
    if settings.max_side is None:
        check_unpacked(source, dataset)
    if settings.layout == "folder":
        check_class_names(dataset.classes)
    manifest = make_manifest(source, dataset, settings)
    check_target(target, manifest)
    parts = divide(dataset, target, settings)
    room = None if (target / prepared.INDEX).exists() else measure_room(parts, target)
    return CopyPlan(dataset, target, manifest, parts, room)


def write_copies(
    plan: CopyPlan,
    *,
    num_processes: int | None = None,
    on_progress: Callable[[int, int], None] = lambda num_images, num_bytes: None,  # noqa: ARG005
) -> Summary:
    """Write the copies, and last the index that makes them a data set; what an earlier call has written is kept.

    Args:
        plan: What to write.
        num_processes: One per usable core if left out.
        on_progress: Called with the numbers of images and bytes written so far.

    Raises:
        DataError: If no image can be decoded.
        ConfigError: If another process is writing the target, or it cannot be made.
        RunError: If it cannot be finished; call it again to resume.
    """
    target = plan.target
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {target}: {error.strerror}; name another folder") from error
    with locked(target, "name another folder"):
        check_target(target, plan.manifest)  # another process may have begun it in between
        write_json(target / prepared.MANIFEST, plan.manifest)
        (target / prepared.INDEX).unlink(missing_ok=True)
        written = _write_all(plan.parts, num_processes or usable_cores(), on_progress)
        return _finish(plan, written)


def _write_all(parts: tuple[Part, ...], num_processes: int, on_progress: Callable[[int, int], None]) -> list[Written]:
    written: list[Written] = []
    try:
        with worker_pool(num_processes) as pool:
            for future in as_completed([pool.submit(_write_if_needed, part) for part in parts]):
                written.append(future.result())
                num_images = sum(len(one.copies) + len(one.unreadable) for one in written)
                on_progress(num_images, sum(one.num_bytes for one in written))
    except BrokenProcessPool as error:
        raise RunError(
            "a process was killed, perhaps because memory ran out; prepare the data set again to resume"
        ) from error
    except SaveError as error:
        raise SaveError(f"{error}; prepare the data set again to resume") from error
    return written


def _write_if_needed(part: Part) -> Written:
    return done_before(part) or write_part(part)


def _finish(plan: CopyPlan, written: list[Written]) -> Summary:
    """List what is left out, and write the index."""
    dataset, target = plan.dataset, plan.target
    copies = {row: placed for one in written for row, placed in one.copies.items()}
    reasons = {row: reason for one in written for row, reason in one.unreadable.items()}
    lines = [f"{item.path}: {item.reason}" for item in dataset.left_out]
    lines += [f"{dataset.path(row)}: {reason}" for row, reason in sorted(reasons.items())]
    if not copies:
        raise DataError(
            f"none of the {len(dataset)} images of {plan.manifest['source']} can be decoded; the first is {lines[0]}"
        )
    (target / UNREADABLE).unlink(missing_ok=True)
    if lines:
        write_text(target / UNREADABLE, "".join(f"{line}\n" for line in lines), errors="surrogateescape")
    prepared.save(target, *lay_out(dataset, plan.parts, copies))
    return Summary(len(copies), sum(one.num_bytes for one in written), tuple(lines))
