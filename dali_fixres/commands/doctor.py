"""`dali-fixres doctor`: what this machine can do, and whether the graph runs on it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.table import Table

from dali_fixres.demo.draw import draw_image
from dali_fixres.errors import RunError
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.environment import environment
from dali_fixres.runtime.json_files import DoctorEnvironment, DoctorFile
from pipelines import Loader
from pipelines.dali.choose_decoder import DECODERS, Decoder, Timing, time_decoders
from pipelines.dataset.table import Dataset, make_dataset
from pipelines.plan import EvalPlan
from pipelines.plan.colour import IMAGENET
from pipelines.resolution import Resolution
from pipelines.storage.cache_folder import cache_folder
from pipelines.storage.files import write_json

__all__ = ["doctor"]

NUM_DRAWN = 64
"""Images that both decoders are timed on, of sizes as in ImageNet."""

GREY = 128
"""Colour, 0-255, of the image that checks the graph."""


def doctor(json: Path | None) -> bool:
    """Print versions and hardware, run one image through the graph on each device; return whether all is well.

    On a GPU both decoders are checked and timed; one that works is enough.

    Args:
        json: Also write what was found here, as JSON.
    """
    found: DoctorEnvironment = {**environment(), "cache_folder": str(cache_folder())}
    problems = {"cpu": check_graph("cpu", "cpu")}
    broken = any(problems.values())
    timing = None
    if torch.cuda.is_available():
        problems |= {_gpu(decoder): check_graph("cuda", decoder) for decoder in DECODERS}
        try:
            timing = _time_drawn()
        except RunError as error:
            problems["cuda, decode auto"] = str(error)
            broken = True
        else:
            problems |= {_gpu(decoder): reason for decoder, reason in timing.failed.items()}
            broken |= bool(problems[_gpu(timing.faster)])
    graph = {name: problem or "works" for name, problem in problems.items()}
    on_devices = {f"graph on {device}": state for device, state in graph.items()}
    table = Table(show_header=False)
    for name, value in {**found, **on_devices, **decoding_rows(timing)}.items():
        table.add_row(name, "none" if value is None else str(value))
    print_table("dali-fixres doctor", table)
    if json is not None:
        content: DoctorFile = {"environment": found, "graph": graph}
        if timing is not None:
            content["decoding"] = {
                "images_per_s": {str(decoder): speed for decoder, speed in timing.images_per_s.items()},
                "auto": timing.faster,
            }
        write_json(json, content)
    return not broken


def decoding_rows(timing: Timing | None) -> dict[str, str]:
    """Return the speed of both decoders on a GPU, and which one ``--decode auto`` takes; nothing without a GPU."""
    if timing is None:
        return {}
    return {
        **{f"decode {name}": f"{speed:.0f} images/s on drawn images" for name, speed in timing.images_per_s.items()},
        "decode auto": f"{timing.faster} for such images; each data set is timed when it is first used",
    }


def _gpu(decoder: Decoder) -> str:
    return f"cuda, decode {decoder}"


def check_graph(device: str, decode: Decoder) -> str:
    """Return what is wrong with the graph on a device, or an empty string: one grey image must come out grey."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = _save(Path(folder), [Image.new("RGB", (80, 60), (GREY, GREY, GREY))])
        try:
            with Loader(dataset, max_batch_size=1, device=device, decode=decode) as loader:
                (batch,) = loader.run(EvalPlan(dataset, batch_size=1).batches(Resolution(32)))
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the finding to show
            return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        mean, std = np.array(IMAGENET.mean), np.array(IMAGENET.std)
        expected = torch.from_numpy((GREY / 255 - mean) / std).float()
        difference = (batch.images.float().cpu()[0].mean(dim=(1, 2)) - expected).abs().max().item()
        return "" if difference < 0.01 else f"the image came out wrong by {difference:.3f}"


def _time_drawn() -> Timing:
    """Time both decoders on drawn images.

    Raises:
        RunError: If neither works.
    """
    with tempfile.TemporaryDirectory() as folder:
        dataset = _save(Path(folder), [draw_image(0, "val", number) for number in range(NUM_DRAWN)])

        def loader_of(decoder: Decoder) -> Loader:
            return Loader(dataset, max_batch_size=NUM_DRAWN, device="cuda", decode=decoder)

        return time_decoders(dataset, NUM_DRAWN, loader_of, torch.cuda.synchronize)


def _save(folder: Path, images: Sequence[Image.Image]) -> Dataset:
    """Write images as JPEGs and return them as a data set of test images."""
    names = [f"{number:03}.jpg" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        image.save(folder / name, quality=92)
    columns = {
        "labels": np.zeros(len(images), np.int64),
        "heights": np.array([image.height for image in images], np.int64),
        "widths": np.array([image.width for image in images], np.int64),
        "num_bytes": np.array([(folder / name).stat().st_size for name in names], np.int64),
    }
    is_val = np.ones(len(images), np.bool_)
    return make_dataset(folder, ["drawn"], [name.encode() for name in names], columns, is_val=is_val)
