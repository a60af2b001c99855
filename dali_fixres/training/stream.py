"""The batches of a command: epochs and evaluations one after the other, around images that cannot be read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from dali_fixres.errors import UnreadableError
from dali_fixres.runtime.distributed import World
from dali_fixres.training.unreadable import Unreadable
from pipelines import Loader
from pipelines.batch import Batch
from pipelines.plan import EvalPlan, TrainPlan
from pipelines.plan.batch_plan import BatchPlan
from pipelines.resolution import Resolution

__all__ = ["Epoch", "Stream", "Test"]


FARTHEST = 16
"""Batches that are looked at ahead where failures follow one another closely: each costs the batches in flight."""


@dataclass(frozen=True, slots=True, eq=False)
class Epoch:
    """Training from position `num_done` of an epoch to its end."""

    plan: TrainPlan
    epoch: int
    num_done: int = 0

    def num_batches(self, unreadable: frozenset[int]) -> int:  # noqa: ARG002 - as `Test`
        """Return the number of steps, which unreadable images do not change."""
        return self.plan.num_steps(self.epoch, self.num_done)

    def plans(self, unreadable: frozenset[int], first: int) -> Iterator[BatchPlan]:
        """Yield the plans from a step on."""
        plan = replace(self.plan, unreadable=unreadable)
        return (plan.at(self.epoch, step, self.num_done) for step in range(first, self.num_batches(unreadable)))


@dataclass(frozen=True, slots=True, eq=False)
class Test:
    """An evaluation at a resolution."""

    plan: EvalPlan
    resolution: Resolution

    def num_batches(self, unreadable: frozenset[int]) -> int:
        """Return the number of batches of readable images."""
        return replace(self.plan, unreadable=unreadable).num_batches

    def plans(self, unreadable: frozenset[int], first: int) -> Iterator[BatchPlan]:
        """Yield the plans from a batch on."""
        return replace(self.plan, unreadable=unreadable).batches(self.resolution, first)


class Stream:
    """One part after the other from one loader, as one stream of plans: the graph never runs dry between parts.

    Where a batch fails, its unreadable images are noted, and the stream goes on from the very batch with plans
    that pass over them. Batches before are not affected: see `EpochOrder.batch`.
    """

    def __init__(self, loader: Loader, parts: Sequence[Epoch | Test], unreadable: Unreadable) -> None:
        self._loader = loader
        self._to_come = list(parts)
        self._unreadable = unreadable
        self._batches = loader.run(self._plans(tuple(self._to_come), 0))

    def part(self) -> Iterator[Batch]:
        """Yield the batches of the next part."""
        part = self._to_come.pop(0)
        done = failed = 0
        ahead = 1
        while done < part.num_batches(self._unreadable.rows):
            try:
                batch = next(self._batches)
            except UnreadableError as error:
                ahead = min(2 * ahead, FARTHEST) if done - failed <= ahead else 1
                failed = done
                self._pass_over(error, part, done, ahead)
            else:
                done += 1
                yield batch

    def _pass_over(self, error: UnreadableError, part: Epoch | Test, done: int, ahead: int) -> None:
        """Order everything anew from batch `done` of a part, without what is unreadable in it and the next ones.

        Within a part an image has its place and its region, so it makes no difference when it is found out.
        """
        self._unreadable.found(error)
        if found := self._loader.unreadable(islice(part.plans(self._unreadable.rows, done), ahead)):
            self._unreadable.found(UnreadableError(found))
        self._batches = self._loader.run(self._plans((part, *self._to_come), done))

    def share(self, world: World) -> None:
        """Pass over what other processes have found unreadable too; between two parts."""
        if self._unreadable.share(world):
            self._batches = self._loader.run(self._plans(tuple(self._to_come), 0))

    def _plans(self, parts: tuple[Epoch | Test, ...], first: int) -> Iterator[BatchPlan]:
        """Yield the plans of parts, of the first one from a batch on; drawn later, when parts have been taken off."""
        for number, part in enumerate(parts):
            yield from part.plans(self._unreadable.rows, first if number == 0 else 0)
