"""`dali-fixres doctor`: what this machine can do, and whether the graph runs on it."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.table import Table

from dali_fixres.report.tables import print_table
from dali_fixres.runtime.decoding import Trials, trials_of
from dali_fixres.runtime.environment import environment
from dali_fixres.runtime.progress import Reporter
from pipelines import Loader
from pipelines.dali.decoding import WHOLE, Decoding, fallback
from pipelines.dataset.table import make_dataset
from pipelines.plan import EvalPlan
from pipelines.plan.colour import IMAGENET
from pipelines.resolution import Resolution
from pipelines.storage.cache_folder import cache_folder
from pipelines.storage.files import write_json

__all__ = ["doctor"]


def doctor(json: Path | None, *, again: bool = False) -> bool:
    """Print versions and hardware, run one image through the graph on each device; return whether all is well.

    Args:
        json: Also write what was found here, as JSON.
        again: Whether to try the ways to decode on a GPU once more.
    """
    found: dict[str, object] = {**environment(), "cache folder": str(cache_folder())}
    trials = trials_of(torch.device("cuda"), Reporter(), again=again) if torch.cuda.is_available() else None
    decodings = {"cpu": WHOLE} if trials is None else {"cpu": WHOLE, "cuda": trials.choice.decoding}
    checks = {device: _run_graph(device, decoding) for device, decoding in decodings.items()}
    gpu = {} if trials is None else decoding_rows(trials)
    table = Table(show_header=False)
    for name, value in {**found, **gpu}.items():
        table.add_row(name, "none" if value is None else str(value))
    for device, problem in checks.items():
        table.add_row(f"graph on {device}", problem or "works")
    print_table("dali-fixres doctor", table)
    if json is not None:
        content: dict[str, Any] = {
            "environment": found,
            "graph": {device: problem or "works" for device, problem in checks.items()},
        }
        if trials is not None:
            content["decoding"] = {**gpu, **trials.as_json()}
        write_json(json, content)
    return not any(checks.values())


def decoding_rows(trials: Trials) -> dict[str, str]:
    """Return how a GPU decodes: the choice, why, its hardware, and whether an older DALI might help."""
    engines = trials.hardware_engines
    return {
        "decoding on the GPU": str(trials.choice.decoding),
        "because": trials.choice.why,
        "hardware JPEG engines": "the decoder has not told" if engines is None else str(engines),
        "fallback": fallback(trials.attempts),
    }


def _run_graph(device: str, decoding: Decoding) -> str:
    """Return what is wrong with the graph on a device, or an empty string: one grey image must come out grey."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "grey.png"
        Image.fromarray(np.full((60, 80, 3), 128, np.uint8)).save(image)
        size = {"labels": 0, "heights": 60, "widths": 80, "num_bytes": image.stat().st_size, "mtimes_ns": 0}
        columns = {name: np.array([value], dtype=np.int64) for name, value in size.items()}
        dataset = make_dataset(Path(folder), ["grey"], [b"grey.png"], columns, is_val=np.array([True]))
        plan = EvalPlan(dataset, batch_size=1)
        try:
            with Loader(dataset, max_batch_size=1, device=device, decoding=decoding) as loader:
                (batch,) = loader.run(plan.batches(Resolution(32)))
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the finding to show
            return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        mean, std = np.array(IMAGENET.mean), np.array(IMAGENET.std)
        expected = torch.from_numpy((128 / 255 - mean) / std).float()
        difference = (batch.images.float().cpu()[0].mean(dim=(1, 2)) - expected).abs().max().item()
        return "" if difference < 0.01 else f"the image came out wrong by {difference:.3f}"
