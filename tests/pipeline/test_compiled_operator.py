"""The CPU's compiled operator: kept, read again, and replaced by DALI's where it cannot be compiled."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from pipelines import Loader
from pipelines.dali.fused import machine_code
from pipelines.dali.fused.machine_code import Entries, entries, is_kept
from pipelines.dataset import Dataset
from pipelines.errors import ConfigError, RunError

LOAD = "from pipelines.dali.fused.machine_code import entries; import sys; print(entries(), 'numba' in sys.modules)"


@pytest.fixture
def fresh() -> Iterator[None]:
    """Forget what this process has loaded, before and after."""
    entries.cache_clear()
    yield
    entries.cache_clear()


def load_elsewhere(cache: Path) -> "subprocess.Popen[str]":
    """Load the operator in another process."""
    environment = {**os.environ, "DALI_FIXRES_CACHE": str(cache)}
    return subprocess.Popen([sys.executable, "-c", LOAD], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_processes_compile_at_once_and_later_ones_read(tmp_path: Path) -> None:
    """Two processes that compile at once leave one whole file; a later one reads it and never imports numba."""
    started = [load_elsewhere(tmp_path) for _ in range(2)]
    printed = [process.communicate()[0] for process in started]
    assert all("Entries(" in text and "True" in text for text in printed)
    (kept,) = (tmp_path / "operator").iterdir()
    assert kept.suffix == ".o"
    before = kept.stat().st_mtime_ns
    (text, _) = load_elsewhere(tmp_path).communicate()
    assert "Entries(" in text
    assert "False" in text
    assert kept.stat().st_mtime_ns == before


@pytest.mark.usefixtures("fresh")
def test_a_damaged_file_is_compiled_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is not whole is not run but made again, with the same result."""
    assert isinstance(entries(), Entries)
    whole = machine_code._path().read_bytes()
    monkeypatch.setenv("DALI_FIXRES_CACHE", str(tmp_path))
    path = machine_code._path()
    path.parent.mkdir()
    path.write_bytes(whole[:-1])
    entries.cache_clear()
    assert not is_kept()
    monkeypatch.setattr(machine_code, "_compile", lambda: whole[machine_code.DIGEST :])
    assert isinstance(entries(), Entries)
    assert path.read_bytes() == whole


@pytest.mark.usefixtures("fresh")
def test_a_folder_that_cannot_be_written_costs_only_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a place to keep it, the operator is compiled all the same."""
    entries()
    code = machine_code._path().read_bytes()[machine_code.DIGEST :]
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DALI_FIXRES_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(machine_code, "_compile", lambda: code)
    entries.cache_clear()
    assert isinstance(entries(), Entries)


def test_each_processor_has_its_own_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that machines share holds one file for each model of processor."""
    here = machine_code._path()
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: "another")
    assert machine_code._path() != here


@pytest.mark.usefixtures("fresh")
def test_whatever_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which the file's name cannot even be found has DALI's operators."""

    def fail(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(machine_code, "version", fail)
    assert not is_kept()
    found = entries()
    assert isinstance(found, str)
    assert found.startswith("PackageNotFoundError: ")


@pytest.mark.usefixtures("fresh")
def test_dalis_operators_take_over(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing can be compiled, a warning says why and DALI's operators do the work."""

    def fail() -> bytes:
        raise ImportError("No module named 'numba'")

    monkeypatch.setenv("DALI_FIXRES_CACHE", str(tmp_path))
    monkeypatch.setattr(machine_code, "_compile", fail)
    warned: list[str] = []
    with Loader(dataset, max_batch_size=1, warn=warned.append) as loader:
        assert loader.resize == "dali"
    assert len(warned) == 1
    assert "cannot be compiled (ImportError: No module named 'numba'); DALI's take over" in warned[0]
    with pytest.raises(RunError, match="cannot be compiled: ImportError"):
        Loader(dataset, max_batch_size=1, resize="fused")


def test_it_is_for_batches_on_a_cpu(dataset: Dataset) -> None:
    """A GPU resizes with DALI's operators."""
    with Loader(dataset, max_batch_size=1) as loader:
        assert loader.resize == "fused"
    with pytest.raises(ConfigError, match="resize 'fused' is for batches on a CPU"):
        Loader(dataset, max_batch_size=1, device="cuda", decode="cpu", resize="fused")
