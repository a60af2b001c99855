"""The parts of `gpu_check.py` that no other bench has; it starts each in a process of its own.

Each writes ``results`` (a list of rows), and ``left_out``: what its time was too short for.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as ET

# As the command line does, and for the same reason; it is read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from cyclopts import App, Parameter
from gpu_loader import measured_loaders
from gpu_training import measured_steps, measured_waits
from harness import start
from pictures import bench_pictures

from dali_fixres.commands.decoding import decoding_for, trials_of, try_ways
from dali_fixres.distributed import World
from dali_fixres.errors import UnreadableError, UserError
from dali_fixres.index import Index, open_data
from dali_fixres.plan import EvaluationPlan
from dali_fixres.report.environment import environment
from dali_fixres.report.progress import Reporter
from dali_fixres.resolution import Resolution
from dali_fixres.runs import write_json
from pipelines import Loader
from pipelines.decoding import CANDIDATES

CUDA = torch.device("cuda")

BATCH = 256

PartName = Literal["decoding", "tests", "damaged", "loader", "waits", "steps", "evaluation"]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What `gpu_check.py` tells a part."""

    seconds: float
    """It begins nothing new after this."""

    json: Path
    """Where the figures go."""

    data: Path | None = None
    """For evaluation."""

    weights: Path | None = None
    """For evaluation."""

    model: str = "resnet50"
    """Of the weights."""

    res: str = "224"
    """Pixels of evaluation, with commas between."""

    quick: bool = False
    """Do less."""


def decoding(told: Told) -> dict[str, Any]:
    """Try the ways that are tried at the first start, then those without the CPU's upsampling."""
    kept = trials_of(CUDA, Reporter())
    rough = [] if told.quick else [replace(way, fancy_upsampling=False) for way in CANDIDATES]
    more = try_ways(CUDA, rough, lambda done: None)  # noqa: ARG005
    attempts = (*kept.attempts, *more.attempts)
    return {
        "results": [{**attempt.as_json(), "flaw": attempt.flaw} for attempt in attempts],
        "hardware_engines": kept.hardware_engines,
        "choice": str(kept.choice.decoding),
        "why": kept.choice.why,
    }


def tests(told: Told) -> dict[str, Any]:  # noqa: ARG001 - as all parts
    """Run the tests marked gpu: pictures, hand-over, poison, damaged files."""
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch) / "found.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests/pipeline", f"--junitxml={found}"]
        subprocess.run(command, cwd=root, check=False)  # noqa: S603
        return counted(found.read_text(encoding="utf-8"))


def counted(junit: str) -> dict[str, Any]:
    """Return how many tests have passed, failed and been skipped, of pytest's report in JUnit's XML."""
    cases = list(ET.fromstring(junit).iter("testcase"))  # noqa: S314 - written by pytest just now
    failed, skipped = (
        [case.attrib["name"] for case in cases if any(case.find(tag) is not None for tag in tags)]
        for tags in (("failure", "error"), ("skipped",))
    )
    return {
        "results": [{"test": case.attrib["name"], "seconds": float(case.attrib["time"])} for case in cases],
        "num_passed": len(cases) - len(failed) - len(skipped),
        "num_failed": len(failed),
        "num_skipped": len(skipped),
        "failed": failed,
    }


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda file: file[: len(file) // 2],
    "last 2 bytes missing": lambda file: file[:-2],
    "hole of zeros": lambda file: file[: len(file) // 2] + bytes(2000) + file[len(file) // 2 + 2000 :],
    "cut after the header": lambda file: file[:700],
}
"""Ways to damage a JPEG of more than 10 kB."""


def damaged(told: Told) -> dict[str, Any]:  # noqa: ARG001 - as all parts
    """Damage one picture of a batch; see whether hardware and CUDA decoders name it or pass something off for it."""
    chosen = decoding_for(CUDA, World(), Reporter())
    rows = []
    for damage, spoil in DAMAGES.items():
        for load in (0.0, 1.0):
            way = replace(chosen, hw_decoder_load=load)
            with tempfile.TemporaryDirectory() as scratch:
                index = _with_one_damaged(Path(scratch), spoil)
                plans = list(EvaluationPlan(index, batch_size=len(index)).batches(Resolution(128)))
                with Loader(index, max_batch_size=len(index), device=CUDA, decoding=way) as loader:
                    on_cpu = {reason for _, reason in loader.unreadable(plans).values()}
                    try:
                        (batch,) = loader.run(plans)
                        answer = f"a picture, of mean {batch.images[0].float().mean().item():.3f}"
                    except (UnreadableError, RuntimeError) as error:
                        answer = f"{type(error).__name__}: {error}"
            rows.append(
                {"damage": damage, "hw_decoder_load": load, "gpu": answer, "cpu": ", ".join(on_cpu) or "decodes"}
            )
    return {"results": rows}


def _with_one_damaged(folder: Path, spoil: Callable[[bytes], bytes]) -> Index:
    """Return an index of 8 pictures, the first of which has been damaged since."""
    (folder / "thing").mkdir()
    for number, source in enumerate(sorted(bench_pictures().glob("val/*/*.jpg"))[:8]):
        (folder / "thing" / f"{number}.jpg").write_bytes(source.read_bytes())
    index = open_data(folder, val_fraction=1.0).index
    index.path(0).write_bytes(spoil(index.path(0).read_bytes()))
    return index


def loader(told: Told) -> dict[str, Any]:
    """Measure the loader alone at all resolutions and settings, on originals and on scaled-down copies."""
    return measured_loaders(decoding_for(CUDA, World(), Reporter()), BATCH, told.seconds)


def waits(told: Told) -> dict[str, Any]:
    """Train, and see how long the host waits for data, and how busy the GPU is."""
    return measured_waits(decoding_for(CUDA, World(), Reporter()), BATCH, 20 if told.quick else 60)


def steps(told: Told) -> dict[str, Any]:
    """Measure bare training steps by network, batch size, resolution, and with torch.compile."""
    return measured_steps(told.seconds)


def evaluation(told: Told) -> dict[str, Any]:
    """Test the same weights on CPU and GPU."""
    found = {device: _tested(told, device) for device in ("cuda", "cpu")}
    pairs = zip(found["cpu"], found["cuda"], strict=True)
    rows = [{"res": cpu["test_res"], "cpu_top1": cpu["top1"], "gpu_top1": gpu["top1"]} for cpu, gpu in pairs]
    return {"results": rows}


def _tested(told: Told, device: str) -> list[dict[str, Any]]:
    if told.data is None or told.weights is None:
        raise UserError("evaluation needs --data and --weights")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "found.json"
        words = [f"--data={told.data}", f"--weights={told.weights}", f"--model={told.model}", f"--test-res={told.res}"]
        words += [f"--device={device}", f"--json={out}", f"--plot={out.with_suffix('.png')}"]
        subprocess.run([sys.executable, "-m", "dali_fixres", "evaluate", *words], check=True)  # noqa: S603
        results: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))["results"]
        return results


MEASURES: dict[PartName, Callable[[Told], dict[str, Any]]] = {
    "decoding": decoding,
    "tests": tests,
    "damaged": damaged,
    "loader": loader,
    "waits": waits,
    "steps": steps,
    "evaluation": evaluation,
}

app = App(name="gpu_parts.py", help=__doc__)


@app.default
def _run_app(part: PartName, /, told: Told) -> None:
    write_json(told.json, {"bench": f"gpu_check/{part}", "environment": environment(), **MEASURES[part](told)})


if __name__ == "__main__":
    start(app)
