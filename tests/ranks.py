"""Processes of one run without torchrun's start-up: forked from a server that has everything imported."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import torch

__all__ = ["run_ranks", "start_ranks"]

PRELOADED = ["timm", "dali_fixres.commands.train", "dali_fixres.commands.evaluate"]


def start_ranks(num_processes: int, command: Callable[[Any], None], config: Any) -> list[BaseProcess]:
    """Start a command in several processes that find one another as under torchrun; in one that is alone, for 1."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
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
        context.Process(target=_rank, args=({**environment, "RANK": rank, "LOCAL_RANK": rank}, command, config))
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


def _rank(environment: dict[str, object], command: Callable[[Any], None], config: Any) -> None:
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)
    command(config)
