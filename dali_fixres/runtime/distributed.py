"""The processes of a run: who is who under torchrun, and the few things they tell one another.

Gradients travel by DistributedDataParallel. What is here goes over a gloo group of its own, on the CPU.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from dali_fixres.errors import Interrupted, ProcessFailedError
from pipelines.processes import local_rank, num_processes, num_restarts

__all__ = ["World", "joined"]

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""One process may index or make data while the others wait; one that dies is noticed by other means."""

FAILURE = "failure"
"""Key under which the first process that fails leaves its message."""

LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class World:
    """This process among those of the run; alone unless torchrun started it.

    Attributes:
        rank: Its number over all nodes.
        size: How many processes there are.
        local_rank: Its number on its node.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    _group: dist.ProcessGroup | None = field(default=None, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes and reports."""
        return self.rank == 0

    def sum(self, counts: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes, exact for integers."""
        total = counts.cpu().clone()
        if self._group is not None:
            dist.all_reduce(total, group=self._group)
        return total

    def gather(self, value: T) -> list[T]:
        """Return every process' value, by rank."""
        values: list[Any] = [value] * self.size
        if self._group is not None:
            dist.all_gather_object(values, value, group=self._group)
        return values

    def gather_to_main(self, value: T) -> list[T]:
        """Return every process' value, by rank, in the one that writes and reports; nothing in the others."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self.size
        dist.gather_object(value, values if self.is_main else None, dst=0, group=self._group)
        return values if self.is_main else []

    def barrier(self) -> None:
        """Wait for all processes."""
        if self._group is not None:
            dist.barrier(self._group)

    def copy_buffers(self, network: nn.Module) -> None:
        """Give all processes the first one's buffers: running statistics differ after a step, weights do not."""
        if self._group is not None:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return what to call while learning: the network, averaging gradients over all processes."""
        if self._group is None:
            return network
        if device.type == "cuda":
            return DistributedDataParallel(network, device_ids=[device.index])
        # Without the search for unused parameters, gradients are laid out anew after the first step, also of a resumed
        # run; three or more addends would then come to another rounding than without the stop. torch warns of it.
        return DistributedDataParallel(network, find_unused_parameters=self.size > 2)

    @contextmanager
    def one_by_one_on_a_node(self) -> Iterator[None]:
        """Let the first process of each node go before the others: they find what it has cached."""
        if self.local_rank > 0:
            self.barrier()
        yield
        if self.local_rank == 0:
            self.barrier()

    def largest(self, values: torch.Tensor) -> "Maximum":
        """Begin to take the maximum of a tensor over all processes."""
        work = dist.all_reduce(values, dist.ReduceOp.MAX, self._group, async_op=True) if self._group else None
        return Maximum(values, work)


@dataclass(frozen=True, slots=True, eq=False)
class Maximum:
    """A maximum over all processes that is on its way."""

    values: torch.Tensor
    work: dist.Work | None

    def wait(self) -> torch.Tensor:
        """Return it, once it is there."""
        if self.work is not None:
            self.work.wait()
        return self.values


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the other processes, if there are any; what fails in one of them ends all with its message.

    Raises:
        ProcessFailedError: If another process has failed first.
    """
    if num_processes() == 1:
        yield World()
        return
    shared, rank, size = next(rendezvous("env://"))
    # torchrun's store outlives the processes: what those before a restart have left in it is not for these.
    store: Any = PrefixStore(f"start-{num_restarts()}", shared)
    backend = "nccl" if device.type == "cuda" else "gloo"
    bound = device if device.type == "cuda" else None
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE, device_id=bound)
    group: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
    leaving = threading.Event()
    threading.Thread(target=_watch, args=(store.clone(), rank, leaving), daemon=True).start()
    try:
        yield World(rank, size, local_rank() or 0, group)
    except Interrupted:
        raise  # on all of them, at the same step
    except BaseException as error:
        lost = _lost_connection(error)
        first = store.compare_set(FAILURE, "", f"rank {rank}: {lost or error or type(error).__name__}").decode()
        if lost or not first.startswith(f"rank {rank}:"):
            raise ProcessFailedError(first) from error
        raise
    finally:
        leaving.set()
    dist.destroy_process_group()


def _lost_connection(error: BaseException) -> str:
    """Say that another process has gone, if that is what an error of torch.distributed means."""
    what, *_ = str(error).splitlines() or [""]
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in what):
        return f"lost another process, which left no message ({what}); see torchrun's report"
    return ""


def _watch(store: Any, rank: int, leaving: threading.Event) -> None:
    """End this process when another has failed, even if it waits for that one in a collective."""
    while not leaving.wait(LOOK_EVERY_S):
        try:
            failed = store.check([FAILURE])
        except dist.DistError:
            return  # torchrun has gone, and its store with it
        if failed:
            message = store.get(FAILURE).decode()
            if message.startswith(f"rank {rank}:"):
                return
            print(f"error: {message}", file=sys.stderr, flush=True)  # noqa: T201 - the process ends here
            os._exit(1)
