"""The command line as a user meets it: a process, its exit code, what it prints, what it leaves behind."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Result = subprocess.CompletedProcess[str]
Cli = Callable[..., Result]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that runs/ is made in, shared by tests that build on one another's runs."""
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="session")
def cli(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Return a function that runs `python -m dali_fixres` with the given words."""
    cache = tmp_path_factory.mktemp("cli-cache")

    def run(*words: object, folder: Path = workplace) -> Result:
        environment = {**os.environ, "DALI_FIXRES_CACHE": str(cache), "COLUMNS": "160"}
        command = [sys.executable, "-m", "dali_fixres", *map(str, words)]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    return run
