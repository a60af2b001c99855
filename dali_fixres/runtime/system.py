"""How a process uses the host's cores and memory; decided before torch is loaded, which asks only once."""

import ctypes
import os

from pipelines.processes import num_local, usable_cores

__all__ = ["SAID_BY_USER", "prepare_host"]

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Numbers of glibc's settings, from its malloc.h."""

NEVER = -1

SHORT_SPIN = "1000"
"""Turns of the loop in which a thread of GNU OpenMP waits before it sleeps, about ten microseconds together.

torch's wheels bring GNU OpenMP; threads of others sleep at once."""

SAID_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def prepare_host() -> None:
    """Share cores among torch, DALI and other processes, and keep memory that is freed.

    What the user's environment says goes first, but for one thread under torchrun, which says that itself.
    """
    # torch's idle threads spin by default, on cores that others could use, DALI's threads among them. Asleep at once,
    # they would be woken for each of the hundreds of operators of a step, which takes longer than many of these do.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", SHORT_SPIN)
    if num_local() > 1 and os.environ.get("OMP_NUM_THREADS") == "1":  # torchrun's own choice, however many cores
        os.environ["OMP_NUM_THREADS"] = str(usable_cores())
    if not any(name in os.environ for name in SAID_BY_USER):
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have glibc keep large blocks for the next step, instead of giving each back to the system when it is freed.

    It is for training on a CPU, and has been measured for that only. There a step takes and frees the same hundreds of
    megabytes again and again. A block that comes from the system comes page by page, each cleared in a
    fault: up to a third of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc; other C libraries have none
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
