"""`fixres`, all stages in one command: its folder and report, stops, processes, and what is refused before training."""

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from page import Page
from ranks import run_ranks
from steps import after_step
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from dali_fixres.commands.fixres import fixres
from dali_fixres.config import FixresConfig
from dali_fixres.errors import CheckpointError, ConfigError, Interrupted, ModelError
from dali_fixres.runtime.run_folder import RunFolder

SIDES = [64, 96, 128]


@pytest.fixture(scope="module")
def config(images: Path, tmp_path_factory: pytest.TempPathFactory) -> FixresConfig:
    """Return a run of one epoch of 5 steps at 64 px, and one of tuning, on data whose path looks like HTML."""
    folder = tmp_path_factory.mktemp("data") / "<script>alert(1)"
    data = Path(shutil.copytree(images, folder))
    return FixresConfig(
        data=data, model="timm/test_resnet", batch_size=8, train_res="64", epochs=1, lr=0.05, sweep="96,128",
        finetune_epochs=1, method="sgd", workers=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def given(config: FixresConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was never stopped, at its best resolution."""
    folder = tmp_path_factory.mktemp("runs") / "fixres"
    fixres(replace(config, out=folder))
    return folder


def read(path: Path) -> dict[str, Any]:
    """Return a file of figures."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Return what a run ended with."""
    tensors: dict[str, torch.Tensor] = torch.load(run / "last.pt", weights_only=True)["state_dict"]
    return tensors


def test_a_run_leaves_its_parts_and_figures(given: Path) -> None:
    """All parts are there, and the report's figures are those of the parts."""
    names = {"config.toml", "train", "before.json", "finetune", "after.json", "report.html", "report.json"}
    assert names <= {path.name for path in given.iterdir()}
    report, before, after = (read(given / f"{name}.json") for name in ("report", "before", "after"))
    assert [row["test_res"] for row in before["results"]] == SIDES
    assert (report["before"], report["after"]) == (before["results"], after["results"])
    sources = read(given / "train" / "results.json")["data_config"]["sources"]
    assert (sources["train_res"], sources["test_res"]) == ("flag", "default")
    best = max(before["results"], key=lambda row: row["top1"])["test_res"]
    assert (report["fixed_for"], report["chosen"], report["trained_at"]) == (best, True, 64)
    tuned = read(given / "finetune" / "results.json")["after"][-1]
    assert [(row["top1"], row["num_images"]) for row in after["results"] if row["test_res"] == best] == [
        (tuned["top1"], 20)
    ]


def test_the_costs_count_what_was_forwarded(given: Path) -> None:
    """Training: 5 steps of 8, tested once on 20; each sweep: 20 at three sides; minutes are those of the records."""
    costs = read(given / "report.json")["costs"]
    counts = {name: cost["num_images"] for name, cost in costs.items()}
    assert (counts["training"], counts["tests of training"], counts["tuning"]) == (40, 20, 40)
    assert (counts["sweep before"], counts["sweep after"]) == (60, 60)
    assert costs["training"]["area_px"] == 40 * 64**2
    assert costs["sweep before"]["area_px"] == 20 * (64**2 + 96**2 + 128**2)
    (epoch,) = (record for record in RunFolder(given / "train").records() if record["event"] == "epoch")
    assert costs["training"]["seconds"] == epoch["seconds"]


def test_the_page_stands_alone_and_escapes(given: Path, config: FixresConfig) -> None:
    """It is well-formed, runs nothing, loads nothing, and shows paths as text."""
    page = Page((given / "report.html").read_text())
    assert page.open == []
    assert "script" not in page.names
    assert len(page.sources) == 3
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in page.sources)
    assert str(config.data) in page.texts
    for row in read(given / "after.json")["results"]:
        assert any(word.startswith(f"{row['top1']:.1f}") for word in page.texts)


@contextmanager
def signal_in_a_test(after: Path) -> Iterator[None]:
    """Send a signal when the first batch of an evaluation reaches a network, once a file is there."""

    def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        if after.exists() and torch.is_inference_mode_enabled() and inputs[0].shape[0] > 1:
            handle.remove()
            signal.raise_signal(signal.SIGTERM)

    handle = register_module_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()


def test_stopped_in_every_stage_it_ends_the_same(config: FixresConfig, given: Path, tmp_path: Path) -> None:
    """In training, its test, the sweep, and tuning: it says how to resume, and what is done is not done again."""
    out = tmp_path / "part"
    part, again = replace(config, out=out), replace(config, out=out, resume=True)
    terminate = partial(signal.raise_signal, signal.SIGTERM)
    training, tuning = RunFolder(out / "train"), RunFolder(out / "finetune")
    with after_step(3, terminate), pytest.raises(Interrupted, match=f"dali-fixres fixres --resume --out {out}$"):
        fixres(part)
    assert torch.load(training.last, weights_only=True)["step"] == 3
    with signal_in_a_test(training.last), pytest.raises(Interrupted, match="resume"):
        fixres(again)
    assert not training.results.exists()
    with signal_in_a_test(training.results), pytest.raises(Interrupted, match="resume"):
        fixres(again)
    assert not (out / "before.json").exists()
    trained = training.results.stat().st_mtime_ns
    with after_step(2, terminate), pytest.raises(Interrupted, match="resume"):
        fixres(again)
    assert torch.load(tuning.last, weights_only=True)["step"] == 2
    swept = (out / "before.json").stat().st_mtime_ns
    fixres(again)
    assert training.results.stat().st_mtime_ns == trained
    assert (out / "before.json").stat().st_mtime_ns == swept
    report, other = read(out / "report.json"), read(given / "report.json")
    assert [cost["num_images"] for cost in report["costs"].values()] == [
        cost["num_images"] for cost in other["costs"].values()
    ]
    ours, theirs = weights(tuning.path), weights(given / "finetune")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_processes_give_the_figures_of_one(config: FixresConfig, given: Path, tmp_path: Path) -> None:
    """Two processes with the same global batch join once for all stages; one of them writes; the figures agree."""
    several = replace(
        config, batch_size=4, test_res=str(read(given / "report.json")["fixed_for"]), out=tmp_path / "two"
    )
    run_ranks(2, fixres, several)
    report, alone = read(tmp_path / "two" / "report.json"), read(given / "report.json")
    for sweep in ("before", "after"):
        assert [row["test_res"] for row in report[sweep]] == SIDES
        assert [row["num_images"] for row in report[sweep]] == [20, 20, 20]
    counts = [cost["num_images"] for cost in report["costs"].values()]
    assert counts == [cost["num_images"] for cost in alone["costs"].values()]
    tuned = read(tmp_path / "two" / "finetune" / "results.json")["after"]
    assert {row["test_res"]: row["top1"] for row in tuned}.items() <= {
        row["test_res"]: row["top1"] for row in report["after"]
    }.items()


def test_a_checkpoint_takes_the_place_of_training(config: FixresConfig, given: Path, tmp_path: Path) -> None:
    """It brings data and settings; cached features count one pass; a training at another size is compared with."""
    start = given / "train"
    from_checkpoint = FixresConfig(
        checkpoint=start, baseline=start, test_res="96", sweep="128", batch_size=8, workers=2,
        out=tmp_path / "run", finetune_epochs=2,
    )  # fmt: skip
    fixres(from_checkpoint)
    report = read(tmp_path / "run" / "report.json")
    assert not (tmp_path / "run" / "train").exists()
    assert (report["checkpoint"], report["data"], report["fixed_for"]) == (str(start), str(config.data), 96)
    assert report["chosen"] is False
    assert report["costs"]["training"] == read(given / "report.json")["costs"]["training"]
    (collected,) = (row for row in RunFolder(tmp_path / "run" / "finetune").records() if row["event"] == "pass")
    assert report["costs"]["tuning"]["num_images"] == collected["num_images"] == 2 * 40, "statistics and features"
    other = report["baseline"]
    assert other["rows"] == read(tmp_path / "run" / "baseline.json")["results"]
    assert [row["top1"] for row in other["rows"]] == [row["top1"] for row in report["before"]], "it is the same network"
    assert (other["trained_at"], other["same_images"], other["same_machine"]) == (64, True, True)
    assert any("was not trained at 96 px" in sentence for sentence in report["summary"])
    with pytest.raises(CheckpointError, match="is fixed for 96 px already"):
        fixres(replace(from_checkpoint, checkpoint=tmp_path / "run" / "finetune", out=tmp_path / "more"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "timm/test_vit", "sweep": "64,72"}, ModelError, "cannot take images of 72 px.*--sweep"),
        ({"model": "timm/test_vit", "test_res": "72", "sweep": "96"}, ModelError, "cannot take images of 72 px"),
        ({"model": "squeezenet1_1", "method": "cached-features"}, ModelError, "runs before the pooling.*--method sgd"),
        ({"model": "squeezenet1_1"}, ModelError, "no norm before its pooling.*--no-norm-stats"),
        ({"baseline": Path("nowhere")}, CheckpointError, "finished `train` run; nowhere has no results.json"),
        ({"resume": True}, CheckpointError, "holds no run"),
    ],
)
def test_what_cannot_end_well_does_not_begin(
    config: FixresConfig, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What a later stage would refuse is refused before there is a folder, let alone a training."""
    with pytest.raises(error, match=message):
        fixres(replace(config, out=tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stage", ["train", "before.json"])
def test_stages_of_others_are_not_taken_over(config: FixresConfig, given: Path, tmp_path: Path, stage: str) -> None:
    """A new run in a folder with another one's training or sweep would report that as its own."""
    (tmp_path / "run").mkdir()
    copy: Any = shutil.copytree if (given / stage).is_dir() else shutil.copyfile
    copy(given / stage, tmp_path / "run" / stage)
    with pytest.raises(ConfigError, match=f"holds {stage} already, which would be taken for this run's"):
        fixres(replace(config, out=tmp_path / "run"))


def test_a_finished_run_is_kept(config: FixresConfig, given: Path) -> None:
    """Its folder takes no other run, no other settings, and no other command; resumed, its figures stay."""
    with pytest.raises(ConfigError, match=r"holds train, before.json, finetune, after.json already"):
        fixres(replace(config, out=given))
    with pytest.raises(ConfigError, match="begun with seed = 0, sweep = 96,128; a resumed run keeps that"):
        fixres(replace(config, out=given, resume=True, seed=1, sweep="96"))
    with pytest.raises(CheckpointError, match="is the folder of train, not of fixres"):
        fixres(replace(config, out=given / "train", resume=True))
    figures = read(given / "report.json")
    fixres(replace(config, out=given, resume=True))
    assert read(given / "report.json") == figures


def test_it_runs_from_the_command_line(cli: Any, given: Path, tmp_path: Path) -> None:
    """Flags of training beside a checkpoint are refused; --resume takes its settings from the folder."""
    refused = cli("fixres", "--checkpoint", given / "train", "--epochs", 3, "--out", tmp_path / "no")
    assert refused.returncode == 2
    assert refused.stderr.strip().endswith("there is no use for --epochs")
    result = cli("fixres", "--resume", "--out", given, "--json", tmp_path / "figures.json")
    assert result.returncode == 0, result.stderr
    assert f"report: {given / 'report.html'}" in result.stderr
    assert read(tmp_path / "figures.json") == read(given / "report.json")
    assert cli("fixres", "--resume").stderr.startswith("error: --resume needs the folder")
