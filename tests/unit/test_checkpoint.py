import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dali_fixres.checkpoints import EpochStatistics
from dali_fixres.checkpoints.checkpoint import Checkpoint, load_checkpoint, rebuild, save_checkpoint
from dali_fixres.errors import CheckpointError, SaveError, TrainingDivergedError
from dali_fixres.models import DataConfig, ModelSpec, build_model, insert_mapping
from dali_fixres.models.frechet_distribution import Frechet
from dali_fixres.models.weights import read_weights
from pipelines.plan.colour import Normalisation

ARCHITECTURE = ModelSpec("timm/test_resnet", 3, ("drop_rate=0.1",))
"""A network of timm's for tests: half a million parameters."""


IMAGES = DataConfig(
    (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", 0.95, "squash", 128, 160, sources={"mean": "flag", "std": "weights"}
)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """Return a small network, none of whose tensors are as they were built."""
    torch.manual_seed(0)
    built = build_model(ARCHITECTURE).network
    with torch.no_grad():
        for tensor in built.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) if tensor.is_floating_point() else tensor + 5)
    return built


@pytest.fixture
def checkpoint(network: torch.nn.Module) -> Checkpoint:
    """Return the state of a run in its third epoch."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    state = {
        "state": {0: {"momentum_buffer": torch.arange(4.0)}},
        "param_groups": optimizer.state_dict()["param_groups"],
    }
    return Checkpoint(
        command="train",
        model=ARCHITECTURE,
        state_dict=network.state_dict(),
        data_config=IMAGES,
        before=None,
        classes=("ant", "Bär", "odd \udcff"),
        fingerprint="ab" * 32,
        config={"train_res": "96@0,128@8", "lr": 0.1, "model_arg": ["a=1"], "pretrained": False},
        epoch=3,
        global_batch=31,
        num_done=640,
        statistics=EpochStatistics(loss_sum=1234.5, num_images=640, seconds=12.25, waited_s=0.5),
        step=93,
        optimizer=state,
        scaler={"scale": 1024.0, "growth_factor": 2.0, "_growth_tracker": 7},
        unreadable={17: "empty file", 2: "cut \u2014 off"},
        top1=61.25,
        best_top1=None,
    )


def _names(folder: Path) -> list[str]:
    """Return the names of all files in a folder, hidden ones included."""
    return [path.name for path in folder.iterdir()]


def _assert_same(one: Any, other: Any, where: str = "") -> None:
    """Compare nested containers with tensors in them, types included."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            _assert_same(one[key], other[key], f"{where}.{key}")
    else:
        assert one == other, where


def test_round_trip(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Every part of a checkpoint comes back as it was, types and tensors included."""
    checkpoint = replace(checkpoint, data_config=DataConfig.from_json(IMAGES.as_json()))
    save_checkpoint(tmp_path / "last.pt", checkpoint)
    again = load_checkpoint(tmp_path / "last.pt")
    assert [field.name for field in fields(again)] == [field.name for field in fields(checkpoint)]
    for field in fields(checkpoint):
        one, other = getattr(checkpoint, field.name), getattr(again, field.name)
        if field.name in {"state_dict", "optimizer"}:
            one, other = dict(one), dict(other)
        _assert_same(one, other, field.name)


def test_rebuild(checkpoint: Checkpoint, network: torch.nn.Module, tmp_path: Path) -> None:
    """The network of a checkpoint is built from it alone and answers as the one that was saved."""
    save_checkpoint(tmp_path / "last.pt", checkpoint)
    built = rebuild(load_checkpoint(tmp_path / "last.pt"), tmp_path)
    assert built.normalisation == Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert str(built.data_config).startswith("images: mean 0.1 0.2 0.3 (flag), std 0.4 0.5 0.6 (weights), bicubic")
    for name, tensor in network.state_dict().items():
        assert torch.equal(built.network.state_dict()[name], tensor), name
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(built.network.eval()(images), network.eval()(images))


def test_rebuild_with_a_mapping(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A Fréchet mapping before the classifier is built again, with its numbers."""
    adapted = build_model(ARCHITECTURE).network
    insert_mapping(adapted, "fc").fill(Frechet(0.1, 0.2, 0.3), Frechet(0.4, 0.5, -0.1), rectified=True)
    state = replace(checkpoint, model=replace(ARCHITECTURE, frechet="fc"), state_dict=adapted.state_dict())
    save_checkpoint(tmp_path / "last.pt", state)
    again = rebuild(load_checkpoint(tmp_path / "last.pt"), tmp_path).network
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), adapted.eval()(images))


@pytest.mark.parametrize("num_classes", [2, 4])
def test_rebuild_takes_no_other_head(checkpoint: Checkpoint, num_classes: int, tmp_path: Path) -> None:
    """Tensors that do not fit the network named beside them are an error, also if only the classes differ."""
    other = replace(checkpoint, model=ModelSpec(ARCHITECTURE.name, num_classes))
    with pytest.raises(CheckpointError, match=rf"^{tmp_path} does not fit this network: 2 of another shape: fc"):
        rebuild(other, tmp_path)


def test_saving_replaces(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A second save takes the first one's place and leaves no other file."""
    save_checkpoint(tmp_path / "last.pt", checkpoint)
    save_checkpoint(tmp_path / "last.pt", replace(checkpoint, epoch=4))
    assert load_checkpoint(tmp_path / "last.pt").epoch == 4
    assert _names(tmp_path) == ["last.pt"]


def test_a_failing_save_leaves_the_old_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """If a save breaks off half way, the file before it stays whole and no half file is left behind."""
    save_checkpoint(tmp_path / "last.pt", checkpoint)
    # A lambda cannot be pickled; the fields before it are written by then.
    broken = replace(checkpoint, epoch=4, config={"weights": torch.zeros(100), "lr": lambda: 0.1})
    with pytest.raises(Exception, match=r"(?i)pickle.*lambda"):
        save_checkpoint(tmp_path / "last.pt", broken)
    assert load_checkpoint(tmp_path / "last.pt").epoch == 3
    assert _names(tmp_path) == ["last.pt"]


def test_a_failing_first_save_leaves_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """If there was no file before, there is none after a save that breaks off."""
    with pytest.raises(Exception, match=r"(?i)pickle.*lambda"):
        save_checkpoint(tmp_path / "last.pt", replace(checkpoint, config={"lr": lambda: 0.1}))
    assert _names(tmp_path) == []


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_diverged_network_replaces_no_checkpoint(checkpoint: Checkpoint, number: float, tmp_path: Path) -> None:
    """A network with a number that is not finite is not saved: the error names tensor, step and what to do."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    tensors = {name: tensor.clone() for name, tensor in checkpoint.state_dict.items()}
    tensors["fc.weight"][1, 3] = number
    with pytest.raises(TrainingDivergedError) as caught:
        save_checkpoint(path, replace(checkpoint, epoch=4, state_dict=tensors))
    assert str(caught.value) == (
        f"fc.weight has numbers that are not finite by step 93; {path} keeps the last good state; "
        "lower --lr, or limit the gradient with --clip-grad 1"
    )
    assert load_checkpoint(path).epoch == 3
    assert _names(tmp_path) == ["last.pt"]


def test_where_nothing_can_be_written(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A folder that has gone is named with the system's reason."""
    path = tmp_path / "gone/last.pt"
    with pytest.raises(SaveError) as caught:
        save_checkpoint(path, checkpoint)
    assert str(caught.value) == (f"cannot write {path}: No such file or directory")


NO_ROOM = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from dali_fixres.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from dali_fixres.errors import SaveError

source, path = map(Path, sys.argv[1:])
checkpoint = replace(load_checkpoint(source), epoch=4)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_checkpoint(path, checkpoint)
except SaveError as error:
    print(error)
"""


@pytest.mark.parametrize("exists", [True, False])
def test_a_full_disk(checkpoint: Checkpoint, exists: bool, tmp_path: Path) -> None:
    """Where there is no room for all of a checkpoint, the one before stays whole and no half file is left behind."""
    source, path = tmp_path / "source.pt", tmp_path / "run/last.pt"
    path.parent.mkdir()
    save_checkpoint(source, checkpoint)
    if exists:
        save_checkpoint(path, checkpoint)
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, source, path], capture_output=True, text=True, check=True, timeout=120
    )
    before = "; what was there before is intact" if exists else ""
    assert done.stdout == f"cannot write {path}: File too large{before}; make room and try again\n"
    assert _names(path.parent) == (["last.pt"] if exists else [])
    if exists:
        assert load_checkpoint(path).epoch == 3


def test_a_folder_stands_for_its_best_then_its_last(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A run folder is read as best.pt, and as last.pt as long as there is no best one."""
    save_checkpoint(tmp_path / "last.pt", replace(checkpoint, epoch=5))
    assert load_checkpoint(tmp_path).epoch == 5
    save_checkpoint(tmp_path / "best.pt", replace(checkpoint, epoch=2))
    assert load_checkpoint(tmp_path).epoch == 2
    assert load_checkpoint(tmp_path / "last.pt").epoch == 5


def test_a_folder_without_checkpoints(tmp_path: Path) -> None:
    """A folder without checkpoints is named, with what was looked for."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds neither best.pt nor last.pt; give a run folder or a checkpoint file"
    )


def test_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "none.pt")
    assert str(caught.value) == f"no such file: {tmp_path / 'none.pt'}"


@pytest.mark.parametrize("content", [{"conv.weight": torch.zeros(1)}, {"state_dict": {}}, [1], {"format": 1}, 3])
def test_files_of_others(content: object, tmp_path: Path) -> None:
    """A weights file from elsewhere is refused, with the flags that would take it."""
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert str(caught.value) == (
        f"{path} is not a dali-fixres checkpoint; for other weights files give --model NAME --weights {path}"
    )


@pytest.mark.parametrize("text", ["hello\n", "the weights are elsewhere\n", ""])
def test_text_is_refused(text: str, tmp_path: Path) -> None:
    """A text file is refused in one line that names it."""
    path = tmp_path / "last.pt"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=rf"^(cannot read )?{path}[^\n]*$"):
        load_checkpoint(path)


def test_a_cut_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Half of a checkpoint is refused in one line that names it."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    content = path.read_bytes()
    for length in (len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=rf"^[^\n]*{path}[^\n]*$"):
            load_checkpoint(path)


def test_other_formats_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A checkpoint of another format is refused with both formats and the way on; its weights can be read."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    torch.save(torch.load(path, weights_only=True) | {"format": 4}, path)
    message = rf"^{path} is a dali-fixres checkpoint of format 4, and this version reads format 5; .* --weights {path}$"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)
    assert read_weights(path).state.keys() == checkpoint.state_dict.keys()


@pytest.mark.parametrize("name", ["classes", "model", "data_config", "optimizer", "num_done", "statistics"])
def test_a_checkpoint_that_lacks_a_part(checkpoint: Checkpoint, name: str, tmp_path: Path) -> None:
    """A checkpoint without one of its parts is refused, and the part is named."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    content = torch.load(path, weights_only=True)
    del content[name]
    torch.save(content, path)
    with pytest.raises(
        CheckpointError, match=rf"^{path} lacks a part of a checkpoint, or has it in a wrong form: '{name}'$"
    ):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "part",
    [
        {"data_config": {"mean": [0.5, 0.5]}},
        {"data_config": {**IMAGES.as_json(), "mean": [0.5, 0.5]}},
        {"data_config": {**IMAGES.as_json(), "interpolation": "nearest"}},
        {"data_config": {**IMAGES.as_json(), "test_res": 8}},
        {"data_config": {**IMAGES.as_json(), "sources": {"mean": "elsewhere"}}},
        {"before": {"mean": [0.5, 0.5, 0.5]}},
        {"statistics": {"loss_sum": 1.0, "images": 3}},
        {"statistics": 3},
        {"model": None},
        {"model": {"name": "resnet18", "num_classes": 3, "args": (), "frechet": 1}},
    ],
    ids=[
        "images-cut",
        "mean",
        "interpolation",
        "size",
        "source",
        "before",
        "statistics",
        "statistics-number",
        "model",
        "model-mapping",
    ],
)
def test_parts_of_another_form(checkpoint: Checkpoint, part: dict[str, Any], tmp_path: Path) -> None:
    """A part of another type than a checkpoint's is refused."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    content = torch.load(path, weights_only=True)
    torch.save(content | part, path)
    with pytest.raises(CheckpointError, match=rf"^{path} lacks a part of a checkpoint"):
        load_checkpoint(path)


class _Code:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def test_no_code_is_run(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A checkpoint with code in it is refused, and the code does not run."""
    path, marker = tmp_path / "last.pt", tmp_path / "ran"
    save_checkpoint(path, replace(checkpoint, config={"lr": _Code(marker)}))
    with pytest.raises(CheckpointError, match=rf"^{path} is not a plain checkpoint: .* would run code"):
        load_checkpoint(path)
    assert not marker.exists()
    # The trap itself works: read with trust, it leaves its mark.
    torch.load(path, weights_only=False)
    assert marker.exists()
