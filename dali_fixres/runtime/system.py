"""Settings for the host's cores and memory, made before torch is imported: torch reads them once, at import."""

import ctypes
import os

from pipelines.processes import num_local, usable_cores

__all__ = ["prepare_host"]

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt, from glibc's malloc.h."""

NEVER = -1

SHORT_SPIN = "1000"
"""Iterations that a thread of GNU OpenMP (of torch's wheels) spins before it sleeps: about ten microseconds."""

MALLOC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def prepare_host() -> None:
    """Share the cores among torch, DALI and other processes, and keep freed memory.

    Environment variables that the user has set are left alone. One exception: ``OMP_NUM_THREADS=1`` under torchrun,
    which sets it by default, is replaced.
    """
    # By default torch's idle threads spin, on cores that DALI's threads could use. If they slept at once, waking them
    # for each of the hundreds of operators in a step would take longer than many of these operators.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", SHORT_SPIN)
    if num_local() > 1 and os.environ.get("OMP_NUM_THREADS") == "1":
        os.environ["OMP_NUM_THREADS"] = str(usable_cores())
    if not any(name in os.environ for name in MALLOC_VARIABLES):
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have glibc keep large freed blocks for the next step instead of returning them to the system.

    This speeds up training on a CPU, where each step allocates the same hundreds of megabytes. Fresh memory comes from
    the system page by page, with a page fault and a cleared page each: up to a third of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc; other C libraries have none
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
