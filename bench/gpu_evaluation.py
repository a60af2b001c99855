"""The same weights on CPU and GPU: what the decoder changes in the answers, and what the precision."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from gpu_check import Check
from torch import nn

from dali_fixres.commands.learner import prepare
from dali_fixres.commands.network import build_to_test
from dali_fixres.config import EvaluateConfig
from dali_fixres.errors import UserError
from dali_fixres.index import VAL, Index, open_data
from dali_fixres.models import BuiltModel
from dali_fixres.plan import EvaluationPlan
from dali_fixres.precision import forward_precision
from dali_fixres.processes import loader_threads
from dali_fixres.report.progress import Reporter
from dali_fixres.resolution import Resolution, parse_resolutions
from pipelines import Decoding, Loader

__all__ = ["Answering", "answerings", "answers_counted", "network_to_test"]

MOST_PICTURES = 500
"""As the CPU is slow; spread over all test pictures."""

BATCH = 50

WAYS = (("cpu", "float32"), ("cuda", "float32"), ("cuda", "bfloat16"))
"""The second differs from the first by the decoder, the third from the second by the precision."""


@dataclass(frozen=True, slots=True)
class Answering:
    """Where and how pictures are made and answered."""

    res: int
    device: str
    precision: str


def answerings(sides: str) -> list[Answering]:
    """Return how pictures are answered at some resolutions, pixels with commas between."""
    return [Answering(one.crop_px, *way) for one in parse_resolutions(sides) for way in WAYS]


def answers_counted(check: Check, decoding: Decoding) -> Callable[[Answering], dict[str, Any]]:
    """Return what lets the network answer, and counts right answers and those that are not the CPU's."""
    assert check.data is not None, "the part needs it"
    index = open_data(check.data, val_fraction=1.0).index
    built = network_to_test(check, index)
    every = max(1, -(-len(index.rows(VAL)) // MOST_PICTURES))
    plan = EvaluationPlan(index, BATCH, every=every)
    labels = torch.from_numpy(index.labels[plan.rows])
    answers = cache(lambda one: _answers(one, built, plan, decoding))

    def count(one: Answering) -> dict[str, Any]:
        found, on_cpu = answers(one), answers(Answering(one.res, *WAYS[0]))
        num_right = int((found == labels).sum())
        return {
            "num_images": len(labels),
            "num_right": num_right,
            "top1": round(100 * num_right / len(labels), 3),
            "num_changed": int((found != on_cpu).sum()),
        }

    return count


def network_to_test(check: Check, index: Index) -> BuiltModel:
    """Build the network that is tested.

    Raises:
        UserError: If it does not know the data's classes: a new head would give the same answer everywhere.
    """
    config = EvaluateConfig(data=check.data, model=check.tested_model, weights=check.tested_weights)
    _, built, _ = build_to_test(config, None, index, Reporter())
    if built.new_head:
        raise UserError(
            f"--tested-weights {check.tested_weights} are not of the {len(index.classes)} classes of {index.root}; "
            "give those of a network that was trained on them"
        )
    return built


@torch.inference_mode()
def _answers(one: Answering, built: BuiltModel, plan: EvaluationPlan, decoding: Decoding) -> torch.Tensor:
    """Return the class that the network answers for each picture, (n,)."""
    torch.backends.cudnn.allow_tf32 = False  # float32 is to be that
    device = torch.device(one.device)
    network = prepare(built.network, device, sync_bn=False).eval()
    with Loader(
        plan.index,
        max_batch_size=plan.batch_size,
        device=device,
        num_threads=loader_threads(),
        normalisation=built.normalisation,
        decoding=decoding,
    ) as loader:
        chosen = [_answered(network, batch.images, one) for batch in loader.run(plan.batches(Resolution(one.res)))]
    return torch.cat(chosen)


def _answered(network: nn.Module, images: torch.Tensor, one: Answering) -> torch.Tensor:
    with forward_precision(images.device) if one.precision == "bfloat16" else nullcontext():
        # The loader's pictures are of half precision on a GPU.
        logits: torch.Tensor = network(images if one.precision == "bfloat16" else images.float())
    return logits.argmax(dim=1).cpu()
