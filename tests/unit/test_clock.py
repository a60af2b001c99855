import time

import pytest

from dali_fixres.checkpoints.checkpoint import CheckpointClock
from pipelines.processes import local_rank, num_local, num_processes, num_restarts


@pytest.mark.parametrize(
    ("number", "due"),
    [(1.0, [1, 2, 3, 4, 5, 6, 7, 8, 9]), (3.0, [3, 6, 9]), (50, [])],
)
def test_checkpoints_by_steps(number: float, due: list[int]) -> None:
    """By steps, a checkpoint is due after every so many of the whole run, wherever it was resumed."""
    clock = CheckpointClock(number, "steps")
    assert [step for step in range(1, 10) if clock.due(step)] == due
    assert [step for step in range(5, 10) if CheckpointClock(number, "steps").due(step)] == [
        step for step in due if step >= 5
    ]


def test_checkpoints_by_minutes() -> None:
    """By minutes, a checkpoint is due once they have passed since the last one that was, whatever the step is."""
    clock = CheckpointClock(0.05 / 60, "min")
    assert not clock.due(10)
    time.sleep(0.06)
    assert [clock.due(7), clock.due(8), clock.due(9)] == [True, False, False]
    time.sleep(0.06)
    assert clock.due(10)


def test_no_checkpoint_before_its_time() -> None:
    """Within ten minutes of its start no checkpoint is due."""
    clock = CheckpointClock(10, "min")
    assert not any(clock.due(step) for step in range(1000))


VARIABLES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")


def test_processes_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torchrun's variables there is one process, which was not started again."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert (num_processes(), num_local(), local_rank(), num_restarts()) == (1, 1, None, 0)


def test_processes_under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchrun says how many processes there are, here and in all, which this is, and whether it is a new try."""
    for name, value in zip(VARIABLES, ("16", "8", "3", "1"), strict=True):
        monkeypatch.setenv(name, value)
    assert (num_processes(), num_local(), local_rank(), num_restarts()) == (16, 8, 3, 1)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert num_restarts() == 0
