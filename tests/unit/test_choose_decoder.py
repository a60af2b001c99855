"""Which decoder for a GPU: timing both, remembering the faster, and what is built for each."""

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dali_fixres.commands.doctor import decoding_rows
from dali_fixres.runtime.data import advice_on_memory
from pipelines.dali import choose_decoder
from pipelines.dali.choose_decoder import Decoder, Timing, compare_decoders, faster_decoder, images_per_s, machine
from pipelines.dali.graph import define_graph
from pipelines.dali.messages import first_cause, refused_sample
from pipelines.errors import DataError, RunError, UnreadableError
from pipelines.plan.colour import IMAGENET

DALI_ERROR = """Critical error in pipeline:
Error in MIXED operator `nvidia.dali.fn.decoders.image`,
which was used in the pipeline definition with the following traceback:

  File "graph.py", line 1, in <module>

encountered:

Error in decoder: Failed to decode sample #3
Current pipeline object is no longer valid."""


class Clock:
    """A clock that work moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def speeds(**found: float | Exception) -> Callable[[Decoder], float]:
    """Return a function that gives each decoder its speed, or fails with its error."""

    def speed_of(decoder: Decoder) -> float:
        if isinstance(error := found[decoder], Exception):
            raise error
        return error

    return speed_of


@pytest.mark.parametrize(("gpu", "cpu", "faster"), [(9000.0, 8000.0, "gpu"), (900.0, 8000.0, "cpu")])
def test_the_decoder_with_more_images_per_s_is_the_faster(gpu: float, cpu: float, faster: Decoder) -> None:
    """Both are timed; neither is preferred."""
    timing = compare_decoders(speeds(gpu=gpu, cpu=cpu))
    assert timing == Timing({"gpu": gpu, "cpu": cpu}, {})
    assert timing.faster == faster


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError(DALI_ERROR), "Error in decoder: Failed to decode sample #3"),
        (RuntimeError("CUDA out of memory\nat some line"), "CUDA out of memory"),
        (RuntimeError(), "RuntimeError"),
        (UnreadableError({3: (Path("a.jpg"), "refused")}, advice=""), "cannot decode a.jpg: refused"),
    ],
)
def test_a_decoder_that_fails_is_left_out_with_its_reason(error: Exception, reason: str) -> None:
    """The other one is the faster then, whatever its speed."""
    timing = compare_decoders(speeds(gpu=error, cpu=1.0))
    assert timing == Timing({"cpu": 1.0}, {"gpu": reason})
    assert timing.faster == "cpu"


def test_if_both_decoders_fail_both_reasons_are_given() -> None:
    """Nothing can be decoded then."""
    with pytest.raises(RunError) as caught:
        compare_decoders(speeds(gpu=RuntimeError("no nvJPEG"), cpu=RuntimeError("no memory")))
    assert str(caught.value) == "images cannot be decoded: decode 'gpu' fails: no nvJPEG; decode 'cpu' fails: no memory"


def test_a_failure_of_the_storage_is_no_reason_for_another_decoder() -> None:
    """It is raised as it is."""
    with pytest.raises(DataError, match="repair the storage"):
        compare_decoders(speeds(gpu=DataError("cannot read a.jpg; repair the storage"), cpu=1.0))


def test_the_warm_up_is_not_timed() -> None:
    """Slow first batches do not count, and the GPU is waited for before both readings of the clock."""
    clock, events = Clock(), []

    def batches() -> Iterator[range]:
        for number in count():
            clock.now += 10.0 if number < choose_decoder.WARM_UP else 0.125
            events.append("batch")
            yield range(32)

    def wait() -> None:
        clock.now += 0.25  # the GPU is that much behind
        events.append("wait")

    # Four batches fill half a second; the GPU finishes the last of them a quarter of a second later.
    assert images_per_s(batches(), wait, clock) == pytest.approx(4 * 32 / 0.75)
    assert events == ["batch"] * choose_decoder.WARM_UP + ["wait"] + ["batch"] * 4 + ["wait"]


class TimesBoth:
    """Stands for timing both decoders; counts how often that is done."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.count = 0

    def __call__(self) -> Timing:
        """Return the timing."""
        self.count += 1
        return self.timing


FASTER_CPU = Timing({"gpu": 900.0, "cpu": 8000.0}, {})
H200 = {"gpu": "NVIDIA H200", "driver": "570.1", "cores": 16}


def never(text: str) -> None:
    """Take no warning."""
    raise AssertionError(text)


def test_the_answer_is_remembered_for_each_machine_and_data_set(own_cache: Path) -> None:
    """Decoders are timed once for a key; another driver is another key."""
    time_both = TimesBoth(FASTER_CPU)
    assert [faster_decoder(H200, time_both, never) for _ in range(3)] == ["cpu"] * 3
    assert time_both.count == 1
    assert faster_decoder({**H200, "driver": "580.2"}, time_both, never) == "cpu"
    assert time_both.count == 2
    contents = [json.loads(path.read_text()) for path in (own_cache / "decoding").iterdir()]
    assert {**H200, "images_per_s": {"gpu": 900.0, "cpu": 8000.0}, "decode": "cpu"} in contents
    assert len(contents) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"decode": "auto"}', '{"decode": ["gpu"]}', "\x00\xff"])
def test_an_unusable_answer_is_replaced(own_cache: Path, content: str) -> None:
    """Whatever lies in the cache, decoders are timed again, and that answer is kept."""
    time_both = TimesBoth(FASTER_CPU)
    faster_decoder(H200, time_both, never)
    (path,) = (own_cache / "decoding").iterdir()
    path.write_text(content, encoding="latin-1")
    assert [faster_decoder(H200, time_both, never) for _ in range(2)] == ["cpu"] * 2
    assert time_both.count == 2


def test_a_failure_is_warned_of_and_not_remembered(own_cache: Path) -> None:
    """It may have been for once, as when another program fills the GPU's memory."""
    warnings: list[str] = []
    time_both = TimesBoth(Timing({"cpu": 10.0}, {"gpu": "out of memory"}))
    assert [faster_decoder(H200, time_both, warnings.append) for _ in range(2)] == ["cpu"] * 2
    assert time_both.count == 2
    assert warnings == ["decode 'gpu' fails: out of memory; decode 'cpu' is used instead"] * 2
    assert not (own_cache / "decoding").exists()


def test_a_cache_that_cannot_be_written_costs_only_time(own_cache: Path) -> None:
    """The answer is the same, timed each time."""
    (own_cache / "decoding").write_text("a file where a folder should be")
    time_both = TimesBoth(FASTER_CPU)
    assert [faster_decoder(H200, time_both, never) for _ in range(2)] == ["cpu"] * 2
    assert time_both.count == 2


def test_a_machine_is_gpu_driver_versions_and_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it decides; without NVIDIA's kernel module there is no driver version."""
    monkeypatch.setattr(choose_decoder, "DRIVER", tmp_path / "version")
    assert machine("NVIDIA H200", 17)["driver"] is None
    (tmp_path / "version").write_text("570.124.06\n")
    found = machine("NVIDIA H200", 17)
    assert found.keys() == {"gpu", "driver", "dali", "torch", "cores", "threads"}
    assert (found["gpu"], found["driver"], found["threads"]) == ("NVIDIA H200", "570.124.06", 17)


def test_dalis_messages_give_the_cause_and_the_image() -> None:
    """The cause is the line after "encountered:"; the image is a position in the batch, if it can be one."""
    assert first_cause(DALI_ERROR) == "Error in decoder: Failed to decode sample #3"
    assert first_cause("out of memory") == ""
    assert refused_sample(DALI_ERROR, batch_size=4) == 3
    assert refused_sample(DALI_ERROR, batch_size=3) is None
    assert refused_sample("out of memory", batch_size=4) is None


def devices(device_id: int | None, decode: Decoder) -> dict[str, set[str]]:
    """Return on which devices the graph's operators put their outputs, by operator."""
    pipeline: Any = define_graph(
        lambda: (),
        device_id=device_id,
        decode=decode,
        max_batch_size=8,
        num_threads=1,
        prefetch=2,
        normalisation=IMAGENET,
        from_shards=False,
        compiled=None,
    )
    pipeline._build_graph()
    found: dict[str, set[str]] = {}
    for operator in pipeline._ops:
        name = operator.name.strip("_").rpartition("_")[0]
        found.setdefault(name, set()).update(output.device for output in operator.outputs)
    return found


def test_the_graph_of_each_decoder() -> None:
    """CPU threads decode regions, the GPU decodes whole images; what follows runs where the batch is wanted."""
    on_cpu, gpu, cpu = devices(None, "cpu"), devices(0, "gpu"), devices(0, "cpu")
    assert {device for operator in on_cpu.values() for device in operator} == {"cpu"}
    assert (gpu["Image"], "ImageSlice" in gpu) == ({"gpu"}, False)
    assert (cpu["ImageSlice"], "Image" in cpu) == ({"cpu"}, False)
    for found in (gpu, cpu):
        assert found["Resize"] == found["CropMirrorNormalize"] == found["CoordTransform"] == {"gpu"}


def test_doctor_shows_both_speeds_and_the_choice() -> None:
    """Without a GPU there is nothing to show."""
    assert decoding_rows(FASTER_CPU) == {
        "decode gpu": "900 images/s on drawn images",
        "decode cpu": "8000 images/s on drawn images",
        "decode auto": "cpu for such images; each data set is timed when it is first used",
    }
    assert decoding_rows(None) == {}


@pytest.mark.parametrize(("side", "advised"), [(500, False), (4000, True)])
def test_large_images_that_a_gpu_decodes_are_warned_of(side: int, advised: bool) -> None:
    """Three batches of 256 images of 4000 x 4000 pixels are more than a quarter of 24 GiB."""
    sizes = np.full(10, side)
    advice = advice_on_memory(sizes, sizes, 256, 24 * 2**30)
    assert ("3 batches of whole images take about 34.3 of the GPU's 24.0 GiB" in advice) == advised
    assert (advice == "") != advised
