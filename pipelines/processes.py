"""The processes of a run, as torchrun names them in the environment; their cores; pools of worker processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

__all__ = [
    "loader_threads",
    "local_rank",
    "max_restarts",
    "num_local",
    "num_processes",
    "num_restarts",
    "usable_cores",
    "worker_pool",
]


def num_processes() -> int:
    """Return how many processes there are over all nodes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def num_local() -> int:
    """Return how many processes there are on this node."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def local_rank() -> int | None:
    """Return this process' number on its node; None without torchrun."""
    number = os.environ.get("LOCAL_RANK")
    return None if number is None else int(number)


def num_restarts() -> int:
    """Return how often torchrun has started this run again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def max_restarts() -> int:
    """Return how often torchrun may start this run again."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))


def usable_cores() -> int:
    """Return the number of CPU cores this process may use, shared with the others that torchrun started here."""
    return max(1, len(os.sched_getaffinity(0)) // num_local())


def loader_threads() -> int:
    """Return the number of threads of the loader: one more than cores.

    Threads wait for one another after each operator of a batch; meanwhile the spare one works on the next batch.
    """
    return usable_cores() + 1


@contextmanager
def worker_pool(num_processes: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of worker processes: spawned, not forked, as the caller may have threads of torch or DALI.

    Workers end with this process, even when it is killed. Ctrl-C kills them, so they must write files in one atomic
    step. After another error each finishes its task and gets no further one.
    """
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, context, initializer=_start_worker) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            # A second Ctrl-C during the shutdown would leave the pool waiting for ever.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            for worker in multiprocessing.active_children():
                if worker not in others:
                    worker.kill()
            pool.shutdown(cancel_futures=True)
            signal.signal(signal.SIGINT, before)
            raise
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with the parent even when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
