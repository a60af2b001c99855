"""The process group of a run: one rank for each process that torchrun has started.

DistributedDataParallel averages gradients, over NCCL on GPUs. The collectives here run on the CPU, over a gloo group.

What is guaranteed when something fails:

* A rank that fails prints its error and ends. torchrun then sends SIGTERM to the others of its node, and SIGKILL to
  those that are still there after 30 s; its report names the rank that failed first.
* A rank that waits for one that has ended, also on another node, gets an error from gloo as soon as the connection
  closes, and ends with one line.
* A rank that hangs runs into a time-out: 10 minutes in NCCL, 30 in gloo (torch's defaults). A day is allowed only where
  ranks wait for work on files, see `World.local_main_first`.
"""

import time
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

from dali_fixres.errors import ProcessFailedError
from pipelines.processes import local_rank, num_processes, num_restarts

__all__ = ["PendingMax", "World", "process_group"]

T = TypeVar("T")

FILE_WORK_TIMEOUT = timedelta(days=1)
"""Indexing a large data set from a slow disk may take hours."""

CONNECTION_LOST = ("/gloo/transport/", "remote process exited")
"""What gloo's and NCCL's messages contain when another rank has ended, or does not answer in time."""

WAIT_FOR_SIGTERM_S = 5
"""torchrun checks its processes ten times a second, and then ends those that are left."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among the ranks of a run; the only one unless torchrun has started it.

    Attributes:
        rank: Its rank over all nodes.
        size: World size.
        local_rank: Its rank on its node.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    _group: dist.ProcessGroup | None = field(default=None, repr=False)
    _file_group: dist.ProcessGroup | None = field(default=None, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone writes and reports."""
        return self.rank == 0

    def sum(self, counts: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all ranks, on the CPU; exact for integers."""
        total = counts.cpu().clone()
        if self._group is not None:
            dist.all_reduce(total, group=self._group)
        return total

    def start_max(self, values: torch.Tensor) -> "PendingMax":
        """Start an all-reduce of a CPU tensor, in place, to its maximum over all ranks."""
        work = dist.all_reduce(values, dist.ReduceOp.MAX, self._group, async_op=True) if self._group else None
        return PendingMax(values, work)

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, by rank."""
        values: list[Any] = [value] * self.size
        if self._group is not None:
            dist.all_gather_object(values, value, group=self._group)
        return values

    def gather_to_main(self, value: T) -> list[T]:
        """Return the values of all ranks, by rank, on rank 0; an empty list on the others."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self.size
        dist.gather_object(value, values if self.is_main else None, dst=0, group=self._group)
        return values if self.is_main else []

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self._group is not None:
            dist.barrier(self._group)

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Run a block on the first rank of each node, then on the others, which find its result in the cache.

        The block may take up to a day. NCCL's 10 minutes do not matter here: they count from when a rank enters a
        collective on the GPU, and no rank does so before all have passed this barrier.
        """
        if self.local_rank > 0:
            self._wait_for_files()
        yield
        if self.local_rank == 0:
            self._wait_for_files()

    def _wait_for_files(self) -> None:
        if self._file_group is not None:
            dist.barrier(self._file_group)

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return the module to call in training: DistributedDataParallel around the network, if there are others."""
        if self._group is None:
            return network
        if device.type == "cuda":
            return DistributedDataParallel(network, device_ids=[device.index])
        # Without the search for unused parameters, DDP changes its gradient buckets after the first step, also that of
        # a resumed run. Sums of three or more would then round differently than without the stop. torch warns of it.
        return DistributedDataParallel(network, find_unused_parameters=self.size > 2)

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Copy rank 0's buffers to all ranks: running statistics differ after a step, weights do not."""
        if self._group is not None:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)


@dataclass(frozen=True, slots=True, eq=False)
class PendingMax:
    """A maximum over all ranks that is being computed."""

    values: torch.Tensor
    work: dist.Work | None

    def wait(self) -> torch.Tensor:
        """Return the maximum, as soon as all ranks have given their values."""
        if self.work is not None:
            self.work.wait()
        return self.values


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Join the process group that torchrun describes in the environment; a process alone needs none.

    Raises:
        ProcessFailedError: If another rank has ended, so that a collective failed.
    """
    if num_processes() == 1:
        yield World()
        return
    shared, rank, size = next(rendezvous("env://"))
    # torchrun's store still holds the addresses of processes before a restart.
    store: Any = PrefixStore(f"restart-{num_restarts()}", shared)
    backend, bound = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, device_id=bound)
        group: Any = dist.new_group(backend="gloo")
        file_group: Any = dist.new_group(backend="gloo", timeout=FILE_WORK_TIMEOUT)
        dist.barrier(group)  # no rank may fail and leave while another still connects
        yield World(rank, size, local_rank() or 0, group, file_group)
    except RuntimeError as error:
        lost = isinstance(error, dist.DistNetworkError) or any(text in str(error) for text in CONNECTION_LOST)
        if not lost:
            raise
        if dist.is_torchelastic_launched():
            time.sleep(WAIT_FOR_SIGTERM_S)  # so that torchrun's report has the rank that failed first, and not this one
        lines = str(error).splitlines()
        reason = next((line for line in lines if any(text in line for text in CONNECTION_LOST)), lines[0])
        raise ProcessFailedError(f"another rank has ended ({reason}); see its error, or torchrun's report") from error
    dist.destroy_process_group()
