"""The processes of a run, as torchrun says in the environment, and the cores of each; without it there is one."""

import multiprocessing
import os
import threading

__all__ = [
    "end_with_parent",
    "loader_threads",
    "local_rank",
    "max_restarts",
    "num_local",
    "num_processes",
    "num_restarts",
    "usable_cores",
]


def num_processes() -> int:
    """Return how many processes there are over all nodes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def num_local() -> int:
    """Return how many processes there are on this node."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def local_rank() -> int | None:
    """Return this process' number on its node, or None without torchrun."""
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
    """Return how many threads the loader is given: one more than cores.

    The threads wait for one another after each operator of each batch; meanwhile the spare one works for the next.
    """
    return usable_cores() + 1


def end_with_parent() -> None:
    """Make a worker process end when its parent does, even if that is killed and can tell it nothing."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
