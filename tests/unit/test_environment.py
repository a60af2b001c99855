"""What a figure was measured on."""

from pathlib import Path

import pytest

from dali_fixres.runtime.environment import environment


def test_driver_is_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's version is the first line of nvidia-smi's answer, and null where that fails or is missing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment()["driver"] is None
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 560.35.03\necho 560.35.03\n")
    program.chmod(0o755)
    assert environment()["driver"] == "560.35.03"
    program.write_text("#!/bin/sh\necho cannot talk to the driver\nexit 9\n")
    assert environment()["driver"] is None
