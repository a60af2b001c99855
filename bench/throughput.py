"""What limits a training at each resolution: storage, the loader, the network, or the cores that both share?

Each part is measured alone, in interleaved rounds: reading from storage; decoding (the loader at 32 px, with the crop
boxes of the resolution); the loader; the training step on a batch in memory; and loader and step together.
Under five minutes on two cores; --quick takes about one, --full has more resolutions, rounds and baselines. Other
programs on the machine slow our loader down more than others, because its threads have a lower priority; they hardly
change its core time per image.

    uv run python -m bench.throughput
    uv run python -m bench.throughput --data DIR --res 128,224 --model resnet50
    uv run python -m bench.throughput --baselines torchvision,timm,ffcv=FFCV_ENV/bin/python
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[1])

from bench.baselines.run import parse_baselines, settings_of, started
from bench.bottleneck import Sharing, find_bottleneck
from bench.harness import OURS, Bench, Effort, Flags, Key, Table, segment_row
from bench.loaders import loader_tables, measured
from bench.saved import Content
from bench.segment import Segment
from bench.workloads import (
    build_setup,
    default_model,
    endless,
    open_loader,
    read_from_storage,
    running,
    steps,
    synthetic_batch,
    timed,
    training_plan,
)
from dali_fixres.models import ModelSpec
from dali_fixres.runtime import Reporter
from dali_fixres.training import TrainingSetup
from pipelines import Dataset, Loader, Resolution, TrainPlan, loader_threads, usable_cores

STAGES = ("storage", "decode", "loader", "train step", "together")

LEAST_RESIZING = Resolution(32)

Found = Mapping[Key, Sequence[Segment]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputFlags(Flags):
    """Flags."""

    model: str | None = None
    """As for `dali-fixres train`; resnet50 on a GPU, timm/mobilenetv3_small_050 on a CPU if left out."""

    color_jitter: float = 0.0
    """As for `dali-fixres train`; none by default, as in the baselines."""

    baselines: str | None = None
    """Other loaders to measure, separated by commas: torchvision, torchvision-v2, timm, ffcv, ffcv-raw50, spdl; with
    =ENV/bin/python those of another environment. If left out torchvision, none with --quick, three with --full."""

    def chosen_baselines(self, dataset: Dataset) -> dict[str, Path]:
        """Return the baselines asked for, or those that there is time for and that can read the data."""
        if self.baselines is not None:
            return parse_baselines(self.baselines)
        few = "torchvision,torchvision-v2,timm" if self.full else "torchvision"
        return {} if self.quick or dataset.in_shards else parse_baselines(few)


def measure(flags: ThroughputFlags, dataset: Dataset, reporter: Reporter) -> dict[str, Any]:
    """Measure every stage at every resolution, and find the bottlenecks."""
    device, effort = flags.torch_device, flags.effort
    plans = [training_plan(dataset, one, flags.batch_size, flags.color_jitter) for one in flags.resolutions]
    baselines = flags.chosen_baselines(dataset)
    settings = settings_of(plans[0], effort.num_batches) if baselines else {}
    threads = loader_threads()
    model = flags.model or default_model(device)
    setup = build_setup(ModelSpec(model, len(dataset.classes)), flags.resolutions[-1], device)
    with (
        open_loader(dataset, flags.batch_size, device) as loader,
        ThreadPoolExecutor(threads) as pool,
        started(baselines, settings, reporter) as processes,
    ):
        work: dict[Key, Callable[[], Segment]] = {}
        for plan in plans:
            res = plan.schedule.last.crop_px
            stages = _stages(plan, loader, setup, pool, effort)
            work |= {Key(stage, OURS, res): stages[stage] for stage in STAGES}
            work |= {Key("loader", one.name, res): partial(one.measure, res) for one in processes}
        found = measured(work, effort.repeats, reporter, processes)
    sides = [plan.schedule.last.crop_px for plan in plans]
    return {
        "model": model,
        "loader_threads": threads,
        "torch_threads": torch.get_num_threads(),
        "baselines": {one.name: one.about for one in processes},
        "results": [segment_row(key, segments) for key, segments in found.items()],
        "bottlenecks": [_bottleneck(found, res, shares_cores=device.type == "cpu") for res in sides],
    }


def _stages(
    plan: TrainPlan, loader: Loader, setup: TrainingSetup, pool: ThreadPoolExecutor, effort: Effort
) -> dict[str, Callable[[], Segment]]:
    """Return the measurements at a plan's resolution."""
    device = next(setup.network.parameters()).device
    time_it = partial(timed, batch_size=plan.batch_size, effort=effort, device=device)
    same = synthetic_batch(plan, device)

    def from_storage() -> Segment:
        return time_it(read_from_storage(plan.dataset, endless(plan), pool), ahead=1)

    def decoding() -> Segment:
        plans = (replace(one, resolution=LEAST_RESIZING) for one in endless(plan))
        with running(loader, plans) as batches:
            return time_it(batches)

    def loading() -> Segment:
        with running(loader, endless(plan)) as batches:
            return time_it(batches, effort=effort.of_loader())

    def together() -> Segment:
        with running(loader, endless(plan)) as batches:
            return time_it(steps(setup, batches))

    def stepping() -> Segment:
        return time_it(steps(setup, repeat(same)), ahead=1)

    return dict(zip(STAGES, (from_storage, decoding, loading, stepping, together), strict=True))


def _bottleneck(found: Found, res: int, *, shares_cores: bool) -> dict[str, Any]:
    stages = {stage: found[Key(stage, OURS, res)] for stage in STAGES}
    speeds = {stage: [segment.images_per_s for segment in segments] for stage, segments in stages.items()}
    core_ms = ([segment.core_ms for segment in stages[stage]] for stage in ("loader", "train step"))
    sharing = Sharing(usable_cores(), *core_ms) if shares_cores else None
    return {"res": res, **asdict(find_bottleneck(speeds, sharing))}


def tables(content: Content) -> list[Table]:
    """Return speeds and bottlenecks by resolution, and how our loader compares with baselines."""
    rows = {(row["stage"], row["res"]): row for row in content["results"] if row["loader"] == OURS}
    lines = []
    for one in content["bottlenecks"]:
        speeds = (f"{rows[stage, one['res']]['images_per_s']:.0f}" for stage in STAGES)
        lines.append([f"{one['res']} px", *speeds, f"{one['share_of_possible']:.0%}", one["limit"]])
    threads = f"{content['loader_threads']} loader threads, {content['torch_threads']} of torch"
    title = f"Images/s, {content['model']} on {content['device']}, batches of {content['environment']['batch_size']}"
    speeds_table = Table(f"{title}, {threads}", ("", *STAGES, "of possible", "limit"), lines)
    return [speeds_table, *loader_tables(content["results"], {OURS: "Our loader"})]


def answer(content: Content) -> str:
    """Say what limits the training, at which resolution."""
    by_limit: dict[str, list[str]] = {}
    for one in content["bottlenecks"]:
        by_limit.setdefault(one["limit"], []).append(str(one["res"]))
    limits = "; ".join(f"{_NAMES[limit]} at {', '.join(sides)} px" for limit, sides in by_limit.items())
    ms = {one["res"]: _loader_and_network(one["ms_per_image"]) for one in content["bottlenecks"]}
    slower = [str(res) for res, (loader, network) in ms.items() if network > loader]
    times = ", ".join(f"{loader:.1f} + {network:.1f} at {res} px" for res, (loader, network) in ms.items())
    return (
        f"Loader + network alone, ms per image: {times}.\n"
        f"The network is slower than the loader at {', '.join(slower) or 'none of these'} px.\n"
        f"What limits the training: {limits}."
    )


def _loader_and_network(ms: Mapping[str, float]) -> tuple[float, float]:
    return ms["decode"] + ms["resize"], ms["network"]


_NAMES = {
    "storage": "storage",
    "network": "the network",
    "decode": "the loader (reading and decoding)",
    "resize": "the loader (resizing)",
    "cores": "the CPU cores that loader and network share",
}
"""Of limits, in the answer."""

BENCH = Bench("throughput", __doc__, ThroughputFlags, measure, tables, answer)

if __name__ == "__main__":
    BENCH.main()
