"""One case of a damaged picture on a GPU, in a process of its own, as it may crash.

    python bench/gpu_damaged.py CASE DECODING

Both are JSON. One picture of a batch is damaged after it was indexed. The last line that is printed says what the GPU
and the CPU have made of it, and how far each picture of the batch is from the CPU's.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gpu_check import ending
from pictures import bench_pictures

from dali_fixres.batch import BatchPlan
from dali_fixres.errors import UnreadableError
from dali_fixres.index import Index, open_data
from dali_fixres.plan import EvaluationPlan
from dali_fixres.resolution import Resolution
from pipelines import Decoding, Loader

__all__ = ["CASES", "Case", "differences", "tried_apart"]

CASE_S = 40.0
"""Longest that a case may take, starting included."""

LEVEL = 255 * 0.225
"""Grey levels of a normalised pixel's unit, about."""

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda file: file[: len(file) // 2],
    "last 2 bytes missing": lambda file: file[:-2],
    "hole of zeros": lambda file: file[: len(file) // 2] + bytes(2000) + file[len(file) // 2 + 2000 :],
    "cut after the header": lambda file: file[:700],
}
"""Ways to damage a JPEG of more than 10 kB."""


@dataclass(frozen=True, slots=True)
class Case:
    """A way to damage a picture, and the share of a batch that hardware is to decode."""

    damage: str
    hw_decoder_load: float


CASES = tuple(Case(damage, load) for damage in DAMAGES for load in (0.0, 1.0))


def tried_apart(case: Case, decoding: Decoding) -> dict[str, Any]:
    """Try a case in a process of its own; return what came of it, whatever that is.

    Returns:
        ``gpu`` and ``cpu``: what each has made of the batch, in words. ``differences``: how far each of the GPU's
        pictures, the damaged one first, is from the CPU's, or if the CPU refuses the batch from what it was, of 255 on
        average; None where the GPU has given no batch. Or else ``problem``: how the process has ended.
    """
    command = [sys.executable, __file__, json.dumps(asdict(case)), json.dumps(asdict(decoding))]
    try:
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, timeout=CASE_S)  # noqa: S603
        problem = ending(done.returncode)
    except subprocess.TimeoutExpired:
        problem = f"no answer within {CASE_S:g} s"
    if problem:
        return {"problem": problem}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(case: Case, decoding: Decoding) -> dict[str, Any]:
    """Damage, and compare."""
    way = replace(decoding, hw_decoder_load=case.hw_decoder_load)
    with tempfile.TemporaryDirectory() as scratch:
        index = _some_pictures(Path(scratch))
        plans = list(EvaluationPlan(index, batch_size=len(index)).batches(Resolution(128)))
        whole, _ = _images(index, plans, Loader(index, max_batch_size=len(index)))
        victim = index.path(int(plans[0].ids[0]))
        victim.write_bytes(DAMAGES[case.damage](victim.read_bytes()))
        on_cpu, cpu = _images(index, plans, Loader(index, max_batch_size=len(index)))
        on_gpu, gpu = _images(index, plans, Loader(index, max_batch_size=len(index), device="cuda", decoding=way))
    right = whole if on_cpu is None else on_cpu
    assert right is not None, "the CPU decodes what is not damaged"
    return {"gpu": gpu, "cpu": cpu, "differences": None if on_gpu is None else differences(on_gpu, right)}


def _some_pictures(folder: Path) -> Index:
    """Return an index of copies of 8 pictures."""
    (folder / "thing").mkdir()
    for number, source in enumerate(sorted(bench_pictures().glob("val/*/*.jpg"))[:8]):
        (folder / "thing" / f"{number}.jpg").write_bytes(source.read_bytes())
    return open_data(folder, val_fraction=1.0).index


def _images(index: Index, plans: list[BatchPlan], loader: Loader) -> tuple[torch.Tensor | None, str]:
    """Return the one batch's pictures on the CPU, if there are any, and what became of it in words."""
    with loader:
        try:
            (batch,) = loader.run(plans)
        except UnreadableError as error:
            reasons = (f"{index.path(row).name}: {reason}" for row, (_, reason) in error.pictures.items())
            return None, f"refuses {'; '.join(reasons)}"
        except RuntimeError as error:
            return None, f"fails: {error}"
        return batch.images.float().cpu(), "decodes"


def differences(found: torch.Tensor, expected: torch.Tensor) -> list[float]:
    """Return the mean difference of each picture, in grey levels, of normalised (n, 3, h, w); 255 for no number."""
    means = ((found - expected).abs().mean(dim=(1, 2, 3)) * LEVEL).nan_to_num(255)
    return [round(value, 3) for value in means.tolist()]


if __name__ == "__main__":
    case, way = (json.loads(word) for word in sys.argv[1:])
    print(json.dumps(main(Case(**case), Decoding(**way))))  # noqa: T201 - the result
