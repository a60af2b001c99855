"""Settings for the host's cores and memory, made in subprocesses as they cannot be undone."""

import os
import subprocess
import sys

PREPARED = "from dali_fixres.runtime.system import prepare_host; prepare_host(); "

TEN_BLOCKS = """
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
for _ in range(10):
    block = ctypes.c_void_p(libc.malloc(64 << 20))
    libc.memset(block, 1, 64 << 20)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""

THREADS = "import os; print(os.environ['OMP_WAIT_POLICY'], os.environ['OMP_NUM_THREADS'])"


def run(code: str, **environment: str) -> str:
    """Return what a Python prints."""
    names = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_large_blocks_are_kept() -> None:
    """Ten blocks of 64 MiB, one after the other, cause the page faults of one."""
    kept, given_back = int(run(PREPARED + TEN_BLOCKS)), int(run(TEN_BLOCKS))
    assert given_back > 10 * (64 << 20) / os.sysconf("SC_PAGE_SIZE") > 4 * kept


def test_the_users_malloc_settings_are_kept() -> None:
    """If the user has set glibc's allocator, nothing changes."""
    assert int(run(PREPARED + TEN_BLOCKS, MALLOC_TRIM_THRESHOLD_="131072")) > 10 * (64 << 20) / os.sysconf(
        "SC_PAGE_SIZE"
    )


def test_cores_are_shared() -> None:
    """Idle threads sleep; the one thread that torchrun gives each process becomes its share of the cores."""
    cores = len(os.sched_getaffinity(0))
    assert run(PREPARED + THREADS, OMP_NUM_THREADS="1") == "passive 1"
    assert run(PREPARED + THREADS, OMP_NUM_THREADS="1", LOCAL_WORLD_SIZE="2") == f"passive {max(1, cores // 2)}"
    assert run(PREPARED + THREADS, OMP_NUM_THREADS="3", LOCAL_WORLD_SIZE="2") == "passive 3"
    assert run(PREPARED + THREADS, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="active") == "active 2"


def test_threads_spin_for_a_moment_only() -> None:
    """Idle threads spin shortly before they sleep, unless the user has set this."""
    spin = "import os; print(os.environ.get('GOMP_SPINCOUNT'))"
    assert run(PREPARED + spin) == "1000"
    assert run(PREPARED + spin, GOMP_SPINCOUNT="0") == "0"
    assert run(PREPARED + spin, OMP_WAIT_POLICY="passive") == "None"
