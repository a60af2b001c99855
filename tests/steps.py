"""Doing something in the middle of a training: after a step of the optimiser."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch.optim.optimizer import register_optimizer_step_post_hook

__all__ = ["after_step"]


@contextmanager
def after_step(step: int, *actions: Callable[[], object]) -> Iterator[None]:
    """Do something once the optimiser has taken `step` steps: after the data was indexed, and some of it read."""
    taken = 0

    def count(*_: object) -> None:
        nonlocal taken
        taken += 1
        if taken == step:
            for action in actions:
                action()

    hook = register_optimizer_step_post_hook(count)
    try:
        yield
    finally:
        hook.remove()
