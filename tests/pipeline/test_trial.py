"""The trial of a way to decode, on the CPU: the pictures it draws, and what it compares."""

import json
import subprocess
import sys

import pytest
from nvidia.dali import backend


def test_the_cpu_decodes_the_trials_pictures_as_pil() -> None:
    """The process prints its result last: on the CPU no pixel of any region differs, and a speed has been measured."""
    command = [sys.executable, "-m", "pipelines.trial", "null", "null"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["difference"] == 0
    assert found["images_per_s"] > 0


@pytest.mark.parametrize("operator", ["decoders__Image", "decoders__ImageSlice"])
def test_both_decoders_take_the_settings_of_a_gpu(operator: str) -> None:
    """What a GPU's decoding is set by are arguments of both of DALI's operators."""
    schema = backend.GetSchema(operator)  # type: ignore[attr-defined]
    for name in ("hw_decoder_load", "jpeg_fancy_upsampling", "adjust_orientation"):
        assert schema.HasArgument(name)
