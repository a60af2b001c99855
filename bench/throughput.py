"""What limits a training at each resolution: reading, decoding, the loader, the network, and both together.

    uv run python bench/throughput.py
    uv run python bench/throughput.py --quick --data DIR --res 128,224 --model resnet50
    uv run python bench/throughput.py --peers torchvision,torchvision-v2,timm,ffcv=FFCV_ENV/bin/python

Each part is measured by itself, on the machine's own terms, and in turn with the others: read ratios of one run, not
absolute figures. Other programs on the machine disturb our loader more than others: its threads give way. Ten minutes
on two cores, two with --quick; peers come on top, about two minutes each. On a CPU, loader and network want the same
cores; the table says how well they share them.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dali_fixres.runtime.system import prepare_host

prepare_host()  # as the command line does, before torch is loaded

import torch
from cyclopts import App, Parameter
from graphs import GraphPart, Operator
from harness import Flags, Key, in_turns, open_bench_data, report, row_of, start
from loaders import training_plan
from peers import INSTALLED, Peer, parse_peers, settings_of, started
from stages import OURS, SHOWN, Limits, Repeat, Stages, learner_of, peak_host_mib
from throughput_tables import SPEEDS, conclusion, drawn, tables
from torch import nn
from verdict import Sharing, crossover, judge

from dali_fixres.config import Device
from dali_fixres.errors import UserError
from dali_fixres.models import ModelSpec, build_model
from dali_fixres.models.head import run_once
from dali_fixres.report.tables import print_table
from dali_fixres.runtime.decoding import decoding_for
from dali_fixres.runtime.devices import choose_device
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from dali_fixres.training.setup import prepare
from pipelines import Decoding, Loader
from pipelines.dataset import Dataset
from pipelines.plan import TrainPlan
from pipelines.processes import loader_threads, usable_cores

PEERS_MAX_SIDE, PEERS_QUALITY = 500, 90
"""Of FFCV's copies; size and quality are those of its recipe for ImageNet, which leaves half of them uncompressed."""

Found = dict[Key, list[Repeat]]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Flags):
    """Flags."""

    model: str | None = None
    """As for `dali-fixres train`; if left out resnet50 on a GPU, timm/mobilenetv3_small_050 on a CPU."""

    device: Device = "auto"
    """As for `dali-fixres train`."""

    loader_threads: int | None = None
    """DALI's threads; one more than cores if left out, as for `dali-fixres train`."""

    torch_threads: int | None = None
    """torch's threads on a CPU; its own choice, which is one per core, if left out."""

    jitter: float = 0.0
    """Colour jitter, as for `dali-fixres train`, which has 0.3 by default; none if left out, as other loaders here."""

    peers: str | None = None
    """Other loaders to measure beside ours, with commas between: torchvision, torchvision-v2, timm, ffcv, ffcv-raw50,
    spdl; with =ENV/bin/python those of another environment. If left out the first three, but none with --quick or
    for data in shards."""

    def __post_init__(self) -> None:
        super(Bench, self).__post_init__()
        for flag, found in (("--loader-threads", self.loader_threads), ("--torch-threads", self.torch_threads)):
            if found is not None and found < 1:
                raise UserError(f"{flag} must be at least 1; found {found}")

    @property
    def limits(self) -> Limits:
        """When a repeat of our own measures has lasted long enough."""
        return Limits(self.effort.num_batches, 1.0 if self.quick else 5.0 if self.full else 2.0)


def main(bench: Bench) -> None:
    """Measure, say what limits what, write JSON and plot."""
    reporter = Reporter()
    device = choose_device(bench.device)
    opened = open_bench_data(bench)
    peers = _peers(bench, opened.dataset)
    plans = [training_plan(opened.dataset, one, bench.batch_size, bench.jitter) for one in bench.resolutions]
    model = bench.model or ("resnet50" if device.type == "cuda" else "timm/mobilenetv3_small_050")
    if bench.torch_threads:
        torch.set_num_threads(bench.torch_threads)
    threads = bench.loader_threads or loader_threads()
    settings = settings_of(plans[0], bench.effort.num_batches, PEERS_MAX_SIDE, PEERS_QUALITY) if peers else {}
    decoding = decoding_for(device, World(), reporter)
    with (
        Loader(
            opened.dataset, max_batch_size=bench.batch_size, device=device, num_threads=threads, decoding=decoding
        ) as loader,
        started(peers, settings, reporter) as running,
    ):
        parts = _parts(opened.dataset, bench.batch_size, threads, device, decoding)
        stages = Stages(loader, parts, learner_of(_network(model, plans, device)), device, bench.limits)
        found = in_turns(_measures(stages, plans, running), bench.effort.repeats, reporter, _told)
    failed = {peer.name for peer in running if peer.failed}
    found = {key: repeats for key, repeats in found.items() if key.loader not in failed}
    verdicts = [_verdict(found, plan.schedule.last.crop_px, device) for plan in plans]
    content = {
        "model": model,
        "device": device.type,
        "decoding": asdict(decoding) if device.type == "cuda" else None,
        "loader_threads": threads,
        "torch_threads": torch.get_num_threads(),
        "peers": {peer.name: peer.about for peer in running},
        "results": _results(found, bench.batch_size),
        "verdicts": verdicts,
        "crossover_px": _crossover(found, verdicts),
        "peak_host_mib": peak_host_mib(),
        "peak_device_mib": max(repeat.device_mib for repeats in found.values() for repeat in repeats),
    }
    split = f"{threads} loader threads, {torch.get_num_threads()} of torch"
    title = f"{model} on {device.type}, batches of {bench.batch_size}, {split}"
    for heading, table in tables(content).items():
        print_table(f"{heading}: {title}" if heading == SPEEDS else heading, table)
    out = report("throughput", bench, opened, content, drawn(content, title))
    reporter.line(f"{conclusion(content)}\nfigures in {out}, plot in {out.with_suffix('.png')}")


def _peers(bench: Bench, dataset: Dataset) -> dict[str, Path]:
    """Return those asked for, or those that are at hand where there is time for them and they can read the data."""
    if bench.peers is not None:
        return parse_peers(bench.peers)
    return {} if bench.quick or dataset.in_shards else parse_peers(INSTALLED)


def _parts(
    dataset: Dataset, batch_size: int, num_threads: int, device: torch.device, decoding: Decoding
) -> dict[str, GraphPart]:
    names: tuple[Operator, ...] = ("read", "decode")
    return {
        name: GraphPart(
            name,
            in_shards=dataset.in_shards,
            batch_size=batch_size,
            num_threads=num_threads,
            device=device,
            decoding=decoding,
        )
        for name in names
    }


def _network(model: str, plans: Sequence[TrainPlan], device: torch.device) -> nn.Module:
    """Build the network as `dali-fixres train` does, and make sure that it takes every resolution."""
    network = build_model(ModelSpec(model, len(plans[0].dataset.classes)), pretrained=False).network
    for plan in plans:
        run_once(network, plan.schedule.last)
    return prepare(network, device, sync_bn=False)


def _measures(stages: Stages, plans: Sequence[TrainPlan], peers: Sequence[Peer]) -> dict[Key, Callable[[], Repeat]]:
    measures: dict[Key, Callable[[], Repeat]] = {}
    for plan in plans:
        res = plan.schedule.last.crop_px
        measures |= {Key(stage, OURS, res): measure for stage, measure in stages.of(plan).items()}
        measures |= {Key("loader", peer.name, res): partial(_of_peer, peer, res) for peer in peers}
    return measures


def _of_peer(peer: Peer, res: int) -> Repeat:
    """Let a peer measure itself; what its processes take is not known."""
    return Repeat(peer.measure(res), cores=None, device_mib=0)


def _told(key: Key, repeat: Repeat) -> str:
    return f"{key.stage}, {key.loader} at {key.res} px: {repeat.images_per_s:.0f} img/s"


def _speeds(found: Found, stage: str, res: int) -> list[float]:
    return [repeat.images_per_s for repeat in found.get(Key(stage, OURS, res), [])]


def _cores(found: Found, stage: str, res: int) -> list[float]:
    return [repeat.cores for repeat in found[Key(stage, OURS, res)] if repeat.cores is not None]


def _results(found: Found, batch_size: int) -> list[dict[str, Any]]:
    """Return the documented rows; what Python takes is a row ``overhead`` of its own."""
    rows = []
    for key, repeats in found.items():
        if key.stage in SHOWN:
            row = row_of(key, [repeat.images_per_s for repeat in repeats])
            if cores := [repeat.cores for repeat in repeats if repeat.cores is not None]:
                row["cores"] = round(statistics.median(cores), 2)
            if key.stage == "together":
                row["device_mib"] = max(repeat.device_mib for repeat in repeats)
            rows.append(row)
        if key.stage == "python":
            rows.append(_overhead(found, key.res, batch_size))
    return rows


def _overhead(found: Found, res: int, batch_size: int) -> dict[str, Any]:
    """Return what Python takes between the steps: that of a network that costs nothing, less its bare steps."""
    rounds = zip(_speeds(found, "python", res), _speeds(found, "null step", res), strict=True)
    seconds = [batch_size / whole - batch_size / bare for whole, bare in rounds]
    step_s = batch_size / statistics.median(_speeds(found, "train step", res))
    median_s = statistics.median(seconds)
    row = {
        # By chance, a difference of next to nothing may be below it, and that is no speed.
        **row_of(Key("overhead", OURS, res), [batch_size / max(value, 1e-6) for value in seconds]),
        "ms_per_step": round(1000 * median_s, 3),
        "share_of_step": round(median_s / step_s, 5),
    }
    if bare := _speeds(found, "bare step", res):
        together = zip(_speeds(found, "together", res), bare, _speeds(found, "loader", res), strict=True)
        longer = [1 / both - max(1 / stepped, 1 / loaded) for both, stepped, loaded in together]
        not_hidden_s = batch_size * statistics.median(longer)
        row |= {"not_hidden_ms": round(1000 * not_hidden_s, 3), "not_hidden_share": round(not_hidden_s / step_s, 5)}
    return row


def _verdict(found: Found, res: int, device: torch.device) -> dict[str, Any]:
    speeds = {stage: _speeds(found, stage, res) for stage in SHOWN}
    sharing = Sharing(usable_cores(), *(_cores(found, stage, res) for stage in ("loader", "train step")))
    return {"res": res, **asdict(judge(speeds, sharing if device.type == "cpu" else None))}


def _crossover(found: Found, verdicts: Sequence[dict[str, Any]]) -> int | None:
    points = []
    for verdict in verdicts:
        loader, step = (statistics.median(_speeds(found, stage, verdict["res"])) for stage in ("loader", "train step"))
        points.append((verdict["res"], loader, step))
    return crossover(points)


app = App(name="throughput.py", help=__doc__, help_format="plaintext")


@app.default
def _run_app(bench: Bench = Bench()) -> None:
    main(bench)


if __name__ == "__main__":
    start(app)
