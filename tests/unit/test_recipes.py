"""The shipped recipes, each run through the command line as far as --dry-run goes."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from drawing import natural_image

from dali_fixres.cli import app
from dali_fixres.config import recipe_header, recipes
from dali_fixres.errors import ConfigError

STEPS = [(1, 30, 1.0), (31, 60, 0.1), (61, 90, 0.01), (91, 120, 0.001)]
"""A tenth every 30 epochs (arXiv 1906.06423)."""

EXPECTED: dict[str, dict[str, Any]] = {
    "rn50-128": {"res": 128, "tests": [128], "lr": 0.16 * 504 / 512, "gmacs": 1.34, "learns": "all layers"},
    "rn50-160": {"res": 160, "tests": [160], "lr": 0.16 * 504 / 512, "gmacs": 2.09, "learns": "all layers"},
    "rn50-224": {"res": 224, "tests": [224], "lr": 0.16 * 504 / 512, "gmacs": 4.09, "learns": "all layers"},
    "fixres-rn50-v1": {"res": 384, "tests": [224, 384], "lr": 1e-3, "gmacs": 12.0, "learns": "fc, the running"},
    "fixres-rn50-v2": {"res": 384, "tests": [224, 384], "lr": 1e-3, "gmacs": 12.0, "learns": "fc, the running"},
    "fixres-rn50-cutmix": {"res": 320, "tests": [224, 320], "lr": 1e-3, "gmacs": 8.34, "learns": "fc, the running"},
    "fixres-rnx101-32x48d": {"res": 320, "tests": [224, 320], "lr": 1e-3, "gmacs": 313, "learns": "fc, the running"},
    "fixres-pnasnet5": {
        "res": 480, "tests": [331, 480], "lr": 1e-4, "gmacs": 49.7,
        "learns": "last_linear, cell_11, cell_10, cell_9",
    },
}  # fmt: skip
"""Multiplications are those of torchvision's and timm's model tables, times the area."""

EPOCHS = {
    **dict.fromkeys(("rn50-128", "rn50-160", "rn50-224"), 120),
    "fixres-rn50-v1": 56, "fixres-rn50-v2": 31, "fixres-rn50-cutmix": 11, "fixres-rnx101-32x48d": 1,
    "fixres-pnasnet5": 1,
}  # fmt: skip

PUBLISHED = {
    "rn50-128": "77.1",
    "rn50-224": "77.0 / 93.4",
    "fixres-rn50-v1": "79.0 / 94.6",
    "fixres-rn50-v2": "79.1 / 94.6",
    "fixres-rn50-cutmix": "79.8 / 94.9",
    "fixres-rnx101-32x48d": "86.3 / 97.9",
    "fixres-pnasnet5": "83.7 / 96.8",
}
"""Top-1 and top-5 in %, from the tables of the paper and of the authors' repository."""

PROCESSES = {"fixres-rnx101-32x48d": 32}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a manifest with as many training images as a global batch of the recipes and some: two files."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    lines = ["path,label,split"]
    for label in ("ant", "bee"):
        natural_image(rng, 40, 50).save(folder / f"{label}.jpg")
        (folder / label).mkdir()
        for number in range(600):
            (folder / label / f"{number}.jpg").hardlink_to(folder / f"{label}.jpg")
            lines.append(f"{label}/{number}.jpg,{label},{'val' if number < 10 else 'train'}")
    manifest = folder / "many.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def words(name: str) -> list[str]:
    """Return the words of a recipe's command behind the program's name."""
    return recipe_header(recipes()[name])[0].partition("dali_fixres ")[2].split()


@pytest.mark.parametrize("name", EXPECTED)
def test_recipes_say_what_the_authors_say(
    name: str, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each recipe by its own command: network, what learns, resolutions, the authors' learning rates and epochs."""
    processes = PROCESSES.get(name, 8)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setenv("RANK", "0")
    command, *rest = words(name)
    assert rest[:4] == ["--config", name, "--data", "IMAGENET"]
    given = ["--config", name, "--data", str(many), "--dry-run", "--json", str(tmp_path / "dry.json")]
    app([command, *given], exit_on_error=False, result_action="return_value")
    content = json.loads((tmp_path / "dry.json").read_text())
    expected, phases = EXPECTED[name], content["phases"]
    assert content["processes"] == processes
    assert content["what_is_trained"].removeprefix("training ").removeprefix("tuning ").startswith(expected["learns"])
    assert [test["test_res"] for test in content["tests"]] == expected["tests"]
    falls = [(first, min(last, EPOCHS[name]), share) for first, last, share in STEPS if first <= EPOCHS[name]]
    assert [phase["epochs"] for phase in phases] == [[first, last] for first, last, _ in falls]
    for phase, (first, last, share) in zip(phases, falls, strict=True):
        assert phase["res"] == expected["res"]
        assert phase["first_lr"] == phase["last_lr"] == pytest.approx(expected["lr"] * share)
        assert phase["gmacs"] == pytest.approx(expected["gmacs"], rel=0.01)
        assert phase["steps"] == (last - first + 1) * (1180 // phase["global_batch"])
    assert "what would be done" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(recipes().keys() - {"demo"}))
def test_recipes_are_headed_by_command_figure_and_source(name: str) -> None:
    """The first lines are the command, the published figure and its source."""
    assert name in EXPECTED
    header = recipe_header(recipes()[name])
    assert re.match(r"torchrun .*-m dali_fixres (train|finetune) --config ", header[0])
    text = " ".join(header)
    assert "Source: arXiv 1906.06423" in text
    figure = re.search(
        r"top-1(?: / top-5)? (\d\d\.\d(?: / \d\d\.\d)?) % on ImageNet; not measured with this tool", text
    )
    if name == "rn50-160":
        assert "Published: no figure for 160 px" in text
    else:
        assert figure is not None
        assert figure[1] == PUBLISHED[name]


def test_an_unknown_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare name that is neither a file nor a recipe is refused with the recipes there are."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"fixres-rn50 is neither a file nor .* rn50-128, .* did you mean 'f"):
        app(["train", "--config", "fixres-rn50"], exit_on_error=False, result_action="return_value")


def test_dry_runs_of_methods_that_run_the_network_once(many: Path, tmp_path: Path) -> None:
    """Passes without training are listed, and epochs after them, if there are any, run the classifier alone."""
    given = ["--data", str(many), "--dry-run", "--json", str(tmp_path / "dry.json"), "--model", "resnet18"]
    sizes = ["--train-res", "64", "--test-res", "96", "--batch-size", "16"]

    def dry(*more: str) -> Any:
        app(["finetune", *given, *sizes, *more], exit_on_error=False, result_action="return_value")
        return json.loads((tmp_path / "dry.json").read_text())

    content = dry("--augmented-views", "2", "--epochs", "4", "--statistics-images", "590")
    assert [(one["res"], one["images"]) for one in content["passes"]] == [(96, 590), (96, 1180), (96, 1180)]
    (phase,) = content["phases"]
    assert phase["gmacs"] == content["trained_parameters"] / 1e9 == 1026 / 1e9
    assert phase["steps"] == 4 * (1180 // 16)

    content = dry("--method", "frechet", "--statistics-images", "590")
    assert [(one["res"], one["images"]) for one in content["passes"]] == [(64, 590), (96, 590)]
    assert content["passes"][0]["gmacs"] < content["passes"][1]["gmacs"]
    assert (content["phases"], content["trained_parameters"]) == ([], 0)

    assert dry("--method", "sgd")["passes"] == []


@pytest.mark.parametrize("dry", [("--dry-run",), ()])
def test_activations_are_not_mapped_for_a_classifier_that_knows_nothing(
    many: Path, tmp_path: Path, dry: tuple[str, ...]
) -> None:
    """Weights with other classes leave a new head, which frechet would never train; a dry run says so, too."""
    torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), tmp_path / "seven.pth")
    given = ["finetune", "--data", str(many), "--model", "resnet18", "--weights", str(tmp_path / "seven.pth"), *dry]
    wanted = ["--method", "frechet", "--test-res", "96", "--out", str(tmp_path / "run")]
    with pytest.raises(ConfigError, match="frechet trains nothing, and resnet18 has a new classifier"):
        app([*given, *wanted], exit_on_error=False, result_action="return_value")
    assert not (tmp_path / "run").exists()


def test_a_dry_run_without_a_network(many: Path, tmp_path: Path) -> None:
    """It is of the network that `train` would take."""
    given = ["train", "--data", str(many), "--dry-run", "--train-res", "64", "--json", str(tmp_path / "dry.json")]
    app(given, exit_on_error=False, result_action="return_value")
    assert json.loads((tmp_path / "dry.json").read_text())["model"] == "resnet50"


def test_a_recipe_of_another_command() -> None:
    """It is said whose it is, instead of which of its keys is unknown."""
    with pytest.raises(ConfigError, match="--config fixres-rn50-v2 is a recipe for finetune, not for train"):
        app(["train", "--config", "fixres-rn50-v2"], exit_on_error=False, result_action="return_value")


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """`recipes` prints every name with its command."""
    app(["recipes"], exit_on_error=False, result_action="return_value")
    lines = capsys.readouterr().out.splitlines()
    assert set(recipes()) <= set(lines)
    assert "  torchrun --nproc-per-node 8 -m dali_fixres train --config rn50-224 --data IMAGENET" in lines


def test_flags_win_over_recipes(many: Path, tmp_path: Path) -> None:
    """What depends on a flag that the command line changes does not stay behind from the recipe."""
    given = ["--config", "fixres-pnasnet5", "--data", str(many), "--dry-run", "--json", str(tmp_path / "dry.json")]
    flags = [
        "--model",
        "resnet18",
        "--no-norm-stats",
        "--trainable",
        "classifier",
        "--lr-decay",
        "cosine",
        "--test-res",
        "64",
        "--train-res",
        "64",
    ]
    app(["finetune", *given, *flags], exit_on_error=False, result_action="return_value")
    content = json.loads((tmp_path / "dry.json").read_text())
    assert content["what_is_trained"] == "tuning fc: 1026 parameters"
    (phase,) = content["phases"]
    assert phase["last_lr"] < phase["first_lr"] == pytest.approx(1e-4 / 8)
