"""Work in other processes ends with the process that asked for it, whichever way that goes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from pipelines.processes import worker_pool

PARENT = """
import os, signal, sys, time
from pathlib import Path
from pipelines.processes import worker_pool

def work(folder):
    (folder / str(os.getpid())).touch()
    time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with worker_pool(2) as pool:
        futures = [pool.submit(work, Path(sys.argv[1])) for _ in range(8)]
        futures[0].result()
"""


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Yield a process with two workers in the middle of their work, and these workers' numbers."""
    script, marks = tmp_path / "parent.py", tmp_path / "marks"
    script.write_text(PARENT)
    marks.mkdir()
    command = [sys.executable, str(script), str(marks)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as parent:
        while len(workers := [int(mark.name) for mark in marks.iterdir()]) < 2:
            assert parent.poll() is None
            time.sleep(0.05)
        yield parent, workers
        parent.kill()


def assert_ended(workers: list[int]) -> None:
    """Wait until processes are gone; the test's own time limit is that of a hang."""
    for worker in workers:
        for _ in range(600):
            try:
                os.kill(worker, 0)
            except ProcessLookupError:
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"worker {worker} is still there")


@pytest.mark.parametrize("whole_group", [False, True])
def test_two_interrupts_end_all_at_once(at_work: tuple[subprocess.Popen[str], list[int]], whole_group: bool) -> None:
    """Ctrl-C pressed twice, which reaches all processes from a terminal, ends everything, with one traceback."""
    parent, workers = at_work
    for _ in range(2):
        (os.killpg if whole_group else os.kill)(parent.pid, signal.SIGINT)
    assert parent.wait(timeout=60) == -signal.SIGINT
    assert_ended(workers)
    assert parent.stderr is not None
    assert parent.stderr.read().count("Traceback") == 1


def test_workers_end_with_a_killed_parent(at_work: tuple[subprocess.Popen[str], list[int]]) -> None:
    """Workers of a killed parent end by themselves."""
    parent, workers = at_work
    parent.kill()
    parent.wait(timeout=60)
    assert_ended(workers)


def test_an_error_lets_work_begun_finish() -> None:
    """What has begun is finished, what has not is not begun, and the error comes through."""
    futures: list[Future[None]] = []

    def fail_after_the_first() -> None:
        with worker_pool(1) as pool:
            futures.extend(pool.submit(time.sleep, 0.2) for _ in range(20))
            futures[0].result()
            raise ValueError("as asked")

    with pytest.raises(ValueError, match="as asked"):
        fail_after_the_first()
    assert all(future.done() for future in futures)
    assert any(future.cancelled() for future in futures)
