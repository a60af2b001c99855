"""Ranks of one run, started quickly: forked from a server that has imported everything.

`run_ranks` needs no torchrun. `launch` runs torchrun's agent in this process.
"""

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

__all__ = ["errors_of", "launch", "run_ranks", "start_ranks"]

PRELOADED = ["timm", "ranks", "dali_fixres.commands.train", "dali_fixres.commands.evaluate"]

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals whose handlers torchrun replaces."""


def start_ranks(num_processes: int, command: Callable[[Any], None], config: Any) -> list[BaseProcess]:
    """Start a command in several processes that find one another as under torchrun; in one that is alone, for 1."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {
        "WORLD_SIZE": num_processes,
        "LOCAL_WORLD_SIZE": num_processes,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": port,
        "DALI_FIXRES_CACHE": os.environ["DALI_FIXRES_CACHE"],
    }
    ranks: list[BaseProcess] = [
        _context().Process(target=_rank, args=({**environment, "RANK": rank, "LOCAL_RANK": rank}, command, config))
        for rank in range(num_processes)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def run_ranks(num_processes: int, command: Callable[[Any], None], config: Any) -> None:
    """Run a command in several processes; all have to succeed."""
    ranks = start_ranks(num_processes, command, config)
    for rank in ranks:
        rank.join(timeout=120)
    assert [rank.exitcode for rank in ranks] == [0] * num_processes


def launch(num_processes: int, command: Callable[[Any], None], config: Any, folder: Path) -> str:
    """Run a command in several processes as torchrun does with --standalone, and return torchrun's report of failures.

    Args:
        num_processes: Ranks.
        command: What each runs.
        config: Its argument.
        folder: Where its output goes.

    Raises:
        SignalException: If a signal has ended torchrun.
    """
    handlers = {number: signal.getsignal(number) for number in (*HANDLED, signal.SIGALRM)}
    launch_config = LaunchConfig(
        1, 1, num_processes, DefaultLogsSpecs(str(folder), redirects=Std.ALL), run_id="run", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0, start_method=_context().get_start_method(),
    )  # fmt: skip
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(120)
    try:
        elastic_launch(launch_config, _rank)({"DALI_FIXRES_CACHE": os.environ["DALI_FIXRES_CACHE"]}, command, config)
    except ChildFailedError as error:
        return str(error)
    finally:
        signal.alarm(0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return ""


def errors_of(folder: Path, rank: int) -> str:
    """Return what a launched rank has written to standard error so far."""
    files = list(folder.rglob(f"attempt_0/{rank}/stderr.log"))
    return files[0].read_text() if files else ""


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _rank(environment: dict[str, object], command: Callable[[Any], None], config: Any) -> None:
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)
    command(config)


def _too_long(*_: object) -> None:
    raise TimeoutError
