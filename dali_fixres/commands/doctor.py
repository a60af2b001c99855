"""`dali-fixres doctor`: what this machine can do, and whether the graph runs on it."""

from collections.abc import Mapping
from pathlib import Path

import torch
from rich.table import Table

from dali_fixres.errors import RunError
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.data import announce_compiling
from dali_fixres.runtime.environment import environment
from dali_fixres.runtime.json_files import DoctorEnvironment, DoctorFile, PrecisionRow
from dali_fixres.runtime.precision import auto_precision, has_fast_bf16
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.self_check import check_graph, cpu_operator, time_drawn_images
from pipelines.dali.choose_decoder import DECODERS, Decoder, Timing
from pipelines.storage.cache_folder import cache_folder
from pipelines.storage.files import write_json

__all__ = ["doctor"]


def doctor(json: Path | None) -> bool:
    """Print versions and hardware, run one image through the graph on each device; return whether all is well.

    On a GPU both decoders are checked and timed; one that works is enough.

    Args:
        json: Also write what was found here, as JSON.
    """
    announce_compiling(Reporter())
    found: DoctorEnvironment = {**environment(), "cache_folder": str(cache_folder()), "operator": cpu_operator()}
    problems = {"cpu": check_graph("cpu", "cpu")}
    broken = any(problems.values())
    timing = None
    if torch.cuda.is_available():
        problems |= {_gpu(decoder): check_graph("cuda", decoder) for decoder in DECODERS}
        try:
            timing = time_drawn_images()
        except RunError as error:
            problems["cuda, decode auto"] = str(error)
            broken = True
        else:
            problems |= {_gpu(decoder): reason for decoder, reason in timing.failed.items()}
            broken |= bool(problems[_gpu(timing.faster)])
    graph = {name: problem or "works" for name, problem in problems.items()}
    on_devices = {f"graph on {device}": state for device, state in graph.items()}
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    precision = {device: _precision(torch.device(device)) for device in devices}
    table = Table(show_header=False)
    for name, value in {**found, **on_devices, **precision_rows(precision), **decoding_rows(timing)}.items():
        table.add_row(name, "none" if value is None else str(value))
    print_table("dali-fixres doctor", table)
    if json is not None:
        content: DoctorFile = {"environment": found, "graph": graph, "precision": precision}
        if timing is not None:
            content["decoding"] = {
                "images_per_s": {str(decoder): speed for decoder, speed in timing.images_per_s.items()},
                "auto": timing.faster,
            }
        write_json(json, content)
    return not broken


def precision_rows(precision: Mapping[str, PrecisionRow]) -> dict[str, str]:
    """Return what ``--precision auto`` takes on each device."""
    bf16 = {True: "has instructions for bfloat16", False: "no instructions for bfloat16: --precision bf16 is slow"}
    return {f"precision auto on {name}": f"{row['auto']} ({bf16[row['fast_bf16']]})" for name, row in precision.items()}


def _precision(device: torch.device) -> PrecisionRow:
    return {"auto": auto_precision(device), "fast_bf16": has_fast_bf16(device)}


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
