"""The command line: exit code, output, and files left behind, in a process of its own or in this one."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from dali_fixres.cli import main

Result = subprocess.CompletedProcess[str]
Cli = Callable[..., Result]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that runs/ is made in, shared by tests that build on one another's runs."""
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment variables of commands."""
    return {"DALI_FIXRES_CACHE": str(tmp_path_factory.mktemp("cli-cache")), "COLUMNS": "160"}


@pytest.fixture(scope="session")
def cli(workplace: Path, environment: dict[str, str]) -> Cli:
    """Return a function that runs `python -m dali_fixres` with the given words, in a process of its own."""

    def run(*words: object, folder: Path = workplace) -> Result:
        command = [sys.executable, "-m", "dali_fixres", *map(str, words)]
        variables = os.environ | environment
        return subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False
        )

    return run


@pytest.fixture(scope="session")
def call(workplace: Path, environment: dict[str, str]) -> Cli:
    """Return a function that runs the same command in this process, which spares the start of one."""

    def run(*words: object, folder: Path = workplace) -> Result:
        arguments = [str(word) for word in words]
        output, errors = StringIO(), StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
            patch.chdir(folder)
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as end:
                main(arguments)
        return Result(arguments, int(end.value.code or 0), output.getvalue(), errors.getvalue())

    return run
