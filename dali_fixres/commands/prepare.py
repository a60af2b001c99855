"""`dali-fixres prepare`: resized copies of a data set."""

from pathlib import Path

from dali_fixres.config import PrepareConfig
from dali_fixres.runtime.progress import Reporter
from pipelines.prepare import CopySettings, plan_copies, write_copies

__all__ = ["prepare"]


def prepare(source: Path, target: Path, config: PrepareConfig) -> None:
    """Write the copies, with progress and a summary.

    Raises:
        UserError: If source, target or settings cannot be used.
        RunError: If it cannot be finished; run it again to resume.
    """
    reporter = Reporter()
    settings = CopySettings(
        sides=config.sides,
        max_side=config.max_side if config.full else None,
        quality=config.quality,
        layout=config.layout,
        shard_size=config.shard_size,
    )
    with reporter.bar("reading image sizes", total=1) as bar:
        plan = plan_copies(source, target, settings, val_fraction=config.val_fraction, on_progress=bar.update_of)
    if plan.room is None:
        reporter.line(f"{plan.target} was finished before: checking that it is complete")
    else:
        reporter.line(f"about {plan.room.needed / 1e6:.0f} MB to write, {plan.room.free / 1e6:.0f} MB free")
    try:
        with reporter.bar("writing copies", len(plan.dataset)) as bar:
            summary = write_copies(
                plan,
                num_processes=config.workers,
                on_progress=lambda num_images, num_bytes: bar.update(num_images, f"{num_bytes / 1e6:.0f} MB"),
            )
    except KeyboardInterrupt:
        reporter.line("interrupted; run the same command again to resume")
        raise
    if summary.unreadable:
        reporter.warn(
            f"{len(summary.unreadable)} file(s) cannot be read and are left out; see {plan.target / 'unreadable.txt'}"
        )
    sizes = ", ".join(settings.folders)
    reporter.line(f"{summary.num_images} images at {sizes}: {summary.num_bytes / 1e6:.1f} MB in {plan.target}")
    reporter.line(f"next: dali-fixres train --data {plan.target}")
