"""The trial of a way to decode, on the CPU: the pictures it draws, and what it compares."""

import json
import subprocess
import sys
from io import BytesIO
from typing import Any

import pytest
from nvidia.dali import backend
from PIL import Image

from dali_fixres.colour import IMAGENET
from pipelines import Decoding, graph, trial


def test_the_cpu_decodes_the_trials_pictures_as_pil() -> None:
    """The process prints its result last: on the CPU no pixel of any region differs, and a speed has been measured."""
    command = [sys.executable, "-m", "pipelines.trial", "null", "null"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["difference"] == 0
    assert found["images_per_s"] > 0


def test_colour_of_a_quarter_of_the_width_is_drawn() -> None:
    """The kind of JPEG that PIL does not write has four blocks of brightness, side by side, for each of colour."""
    picture = Image.open(BytesIO(trial._four_one_one(Image.new("RGB", (100, 70), "red"))))
    assert picture.size == (192, 32)
    assert [layer[1:3] for layer in picture.layer] == [(4, 1), (1, 1), (1, 1)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("operator", ["decoders__Image", "decoders__ImageSlice"])
def test_both_decoders_take_the_settings_of_a_gpu(operator: str) -> None:
    """What a GPU's decoding is set by are arguments of both of DALI's operators."""
    schema = backend.GetSchema(operator)  # type: ignore[attr-defined]
    for name in ("hw_decoder_load", "jpeg_fancy_upsampling", "adjust_orientation"):
        assert schema.HasArgument(name)


class Nothing:
    """A loader that has no batch."""

    def to_give(self) -> Any:
        """End the stream."""
        raise StopIteration


@pytest.mark.parametrize("region", [False, True])
def test_the_graph_of_a_gpu_is_laid_out_without_one(region: bool) -> None:
    """For a GPU the same graph has the decoder asked for, and no input that nothing uses."""
    decoding = Decoding(region=region, hw_decoder_load=0.25)
    pipeline: Any = graph._graph(
        Nothing().to_give,
        gpu=decoding,
        normalisation=IMAGENET,
        from_shards=False,
        device_id=0,
        batch_size=4,
        num_threads=1,
    )
    pipeline._build_graph()  # DALI warns here of inputs that are not used, and warnings are errors
    names = [str(operator.name) for operator in pipeline._ops]
    assert sum(name.startswith("__ImageSlice_") for name in names) == region
    assert sum(name.startswith("__Image_") for name in names) == (not region)


@pytest.mark.parametrize("region", [False, True])
def test_the_probe_of_a_gpu_is_laid_out_without_one(region: bool) -> None:
    """A trial of whole pictures is fed files alone, one of regions their places too."""
    pipeline: Any = graph._probe(True, Decoding(region=region), device_id=0, batch_size=4, num_threads=1)
    pipeline._build_graph()
    names = {str(operator.name) for operator in pipeline._ops}
    assert {"file", "start", "end"} & names == ({"file", "start", "end"} if region else {"file"})
