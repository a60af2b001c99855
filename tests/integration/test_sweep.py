"""`evaluate` beyond one resolution: several views, saved outputs, other classes, several right answers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks

from dali_fixres.checkpoints.checkpoint import load_checkpoint, rebuild
from dali_fixres.commands.evaluate import evaluate
from dali_fixres.commands.train import train
from dali_fixres.config import EvaluateConfig, TrainConfig
from dali_fixres.errors import CheckpointError, ConfigError, DataError, ModelError
from pipelines import Loader
from pipelines.dataset import open_dataset
from pipelines.plan import EvalPlan
from pipelines.resolution import Resolution


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of one epoch, of a network that knows four classes."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    train(TrainConfig(data=images, model="timm/test_resnet", batch_size=8, train_res="64", epochs=1, lr=0.05, out=run))
    return run


@pytest.fixture
def config(trained: Path, tmp_path: Path) -> EvaluateConfig:
    """Return an evaluation of it."""
    return EvaluateConfig(
        checkpoint=trained, test_res="64", batch_size=8, workers=1, json=tmp_path / "figures.json",
        plot=tmp_path / "plot.png",
    )  # fmt: skip


def figures(config: EvaluateConfig) -> dict[str, Any]:
    """Run an evaluation and return what it writes."""
    evaluate(config)
    assert config.json is not None
    content: dict[str, Any] = json.loads(config.json.read_text())
    return content


def array(folder: Path, name: str) -> Any:
    """Read an array of saved outputs."""
    return np.load(folder / f"{name}.npy", allow_pickle=False)


def test_all_settings_are_tested(config: EvaluateConfig, tmp_path: Path) -> None:
    """Resolutions x crop ratios x views, in that order, with cost by views and area; one is best, one recommended."""
    content = figures(replace(config, test_res="64,128", crop_ratio="1,0.875", views="flip,single"))
    rows = content["results"]
    assert [(row["test_res"], row["crop_ratio"], row["views"]) for row in rows] == [
        (side, ratio, views) for side in (64, 128) for ratio in (0.875, 1) for views in ("single", "flip")
    ]
    assert all(row["num_images"] == 20 and row["top1_low"] <= row["top1"] <= row["top1_high"] for row in rows)
    assert rows[1]["gmacs"] == pytest.approx(2 * rows[0]["gmacs"], rel=1e-4)
    assert rows[4]["gmacs"] == pytest.approx(4 * rows[0]["gmacs"], rel=0.01)
    assert content["best"]["top1"] == max(row["top1"] for row in rows)
    assert content["recommended"] in rows
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_views_are_averaged_as_probabilities(
    config: EvaluateConfig, trained: Path, images: Path, tmp_path: Path
) -> None:
    """The network itself, run on the test crops and their mirror images, gives the saved outputs and the accuracy."""
    content = figures(replace(config, views="flip", save_outputs=tmp_path / "outputs"))
    built = rebuild(load_checkpoint(trained), trained)
    dataset = open_dataset(images)
    with Loader(dataset, max_batch_size=20, normalisation=built.normalisation) as loader:
        (batch,) = loader.run(EvalPlan(dataset, 20).batches(Resolution(64)))
    network = built.network.eval()
    with torch.inference_mode():
        one, other = (network(images).softmax(dim=1) for images in (batch.images, batch.images.flip(3)))
    mean = (one + other) / 2
    logits = torch.from_numpy(array(tmp_path / "outputs", "logits"))
    torch.testing.assert_close(logits.softmax(dim=1), mean, rtol=0, atol=1e-5)
    assert (one - other).abs().max() > 1e-3, "the two views differ"
    assert content["results"][0]["num_top1"] == (logits.argmax(dim=1) == batch.labels).sum()


def test_saved_outputs_are_the_networks(config: EvaluateConfig, trained: Path, tmp_path: Path) -> None:
    """Features times the classifier's weights are the logits; labels and paths are those of the index."""
    folder = tmp_path / "new" / "outputs"
    content = figures(replace(config, save_outputs=folder))
    names = {"features", "labels", "logits", "paths", "rows"}
    assert {path.name for path in folder.iterdir()} == {"outputs.json", *(f"{name}.npy" for name in names)}
    state = load_checkpoint(trained).state_dict
    logits = array(folder, "features") @ state["fc.weight"].numpy().T + state["fc.bias"].numpy()
    np.testing.assert_allclose(array(folder, "logits"), logits, atol=1e-5)
    assert array(folder, "labels").tolist() == [label for label in range(4) for _ in range(5)]
    assert array(folder, "paths")[7] == b"val/bee/02.jpg"
    assert array(folder, "rows").tolist() == list(range(40, 60))
    assert (array(folder, "logits").argmax(1) == array(folder, "labels")).sum() == content["results"][0]["num_top1"]


def test_figures_of_saved_outputs_are_the_same(config: EvaluateConfig, images: Path, tmp_path: Path) -> None:
    """--from-outputs gives every figure again, throughput included, of all settings and without the run."""
    folder = tmp_path / "outputs"
    first = figures(replace(config, test_res="64,96", views="single,flip", save_outputs=folder))
    assert {path.name for path in folder.iterdir()} == {
        f"{side}px_0.875_{views}" for side in (64, 96) for views in ("single", "flip")
    }
    again = EvaluateConfig(from_outputs=folder, data=images, json=tmp_path / "again.json", plot=tmp_path / "again.png")
    assert figures(again) == first


def test_processes_answer_what_one_answers(config: EvaluateConfig, images: Path, tmp_path: Path) -> None:
    """Two processes, one unreadable image and ten views: the same counts and the same outputs as one process."""
    data = Path(shutil.copytree(images, tmp_path / "data"))
    victim = data / "val" / "cat" / "02.jpg"
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    found = {}
    for num_processes in (1, 2):
        folder, path = tmp_path / f"of-{num_processes}", tmp_path / f"{num_processes}.json"
        several = replace(config, data=data, views="flip,ten-crop", batch_size=3, save_outputs=folder, json=path)
        run_ranks(num_processes, evaluate, several)
        content = json.loads(path.read_text())
        for row in content["results"]:
            assert (row["num_images"], row["num_unreadable"]) == (19, 1)
            found[num_processes, row["views"]] = (row["num_top1"], row["num_top5"])
    for views in ("flip", "ten-crop"):
        assert found[1, views] == found[2, views]
        one, other = (tmp_path / f"of-{number}" / f"64px_0.875_{views}" for number in (1, 2))
        assert b"val/cat/02.jpg" not in array(one, "paths")
        for name in ("rows", "paths", "labels"):
            np.testing.assert_array_equal(array(one, name), array(other, name))
        for name in ("logits", "features"):
            np.testing.assert_allclose(array(one, name), array(other, name), atol=1e-4)


def subset(images: Path, root: Path, names: dict[str, str]) -> Path:
    """Return a data set with some of the classes' test images, under other names."""
    for name, other in names.items():
        shutil.copytree(images / "val" / name, root / other)
    return root


def test_a_part_of_the_classes(config: EvaluateConfig, images: Path, tmp_path: Path) -> None:
    """A checkpoint finds its classes by name; named by numbers with a map, they are the same; both ways to answer."""
    by_name = subset(images, tmp_path / "by-name", {"bee": "bee", "dog": "dog"})
    by_number = subset(images, tmp_path / "by-number", {"bee": "1", "dog": "3"})
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\ndog\n")
    folder = tmp_path / "outputs"
    named = figures(replace(config, data=by_name, save_outputs=folder))["results"][0]
    logits, right = array(folder, "logits"), np.array([1, 3])[array(folder, "labels")]
    assert logits.shape == (10, 4)
    assert named["num_top1"] == (logits.argmax(1) == right).sum()
    numbered = figures(replace(config, data=by_number, class_map=names))["results"][0]
    assert (numbered["num_top1"], numbered["num_top5"]) == (named["num_top1"], named["num_top5"])
    limited = figures(replace(config, data=by_name, only_mapped=True))["results"][0]
    assert limited["num_top1"] == ((logits[:, 1] < logits[:, 3]) == (right == 3)).sum()
    saved = EvaluateConfig(from_outputs=folder, only_mapped=True, json=config.json, plot=config.plot)
    assert figures(saved)["results"][0]["num_top1"] == limited["num_top1"]


def test_a_named_network_keeps_its_outputs(config: EvaluateConfig, trained: Path, images: Path, tmp_path: Path) -> None:
    """With --class-map, weights of four outputs are loaded as they are to test on two classes."""
    data = subset(images, tmp_path / "part", {"bee": "bee", "dog": "dog"})
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\ndog\n")
    torch.save(load_checkpoint(trained).state_dict, tmp_path / "weights.pth")
    of_checkpoint = figures(replace(config, data=data))["results"][0]
    named = replace(config, checkpoint=None, model="timm/test_resnet", weights=tmp_path / "weights.pth", data=data)
    assert figures(replace(named, class_map=names))["results"][0]["num_top1"] == of_checkpoint["num_top1"]
    names.write_text("ant\nbee\ndog\n")
    with pytest.raises(ConfigError, match=r"names 3 outputs, and the network of these weights has another number"):
        evaluate(replace(named, class_map=names))


def test_real_labels(config: EvaluateConfig, trained: Path, images: Path, tmp_path: Path) -> None:
    """An image is right if its answer is among its labels, and left out if it has none; saved outputs agree."""
    data = tmp_path / "data"
    numbers = {}
    for number, path in enumerate(sorted((images / "val").glob("*/*.jpg")), start=1):
        official = data / "val" / path.parent.name / f"ILSVRC2012_val_{number:08}.JPEG"
        official.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, official)
        numbers[f"val/{path.parent.name}/{official.name}".encode()] = number
    sets = [[] if number % 4 == 0 else [number % 3, 3] for number in range(1, 21)]
    (tmp_path / "real.json").write_text(json.dumps(sets))
    folder = tmp_path / "outputs"
    content = figures(replace(config, data=data, real=tmp_path / "real.json", save_outputs=folder))
    answers = zip(array(folder, "paths").tolist(), array(folder, "logits").argmax(1).tolist(), strict=True)
    right = sum(answer in sets[numbers[path] - 1] for path, answer in answers)
    row = content["results"][0]
    assert (row["num_real_top1"], row["num_real_images"], row["num_images"]) == (right, 15, 20)
    again = EvaluateConfig(from_outputs=folder, real=tmp_path / "real.json", json=config.json, plot=config.plot)
    assert figures(again) == content
    assert trained.is_dir()


def test_before_is_of_the_same_data(config: EvaluateConfig, images: Path, tmp_path: Path) -> None:
    """An earlier result is drawn beside; one of other data, or a file of another kind, is refused."""
    figures(config)
    evaluate(replace(config, before=config.json, json=None))
    other = subset(images, tmp_path / "part", {"bee": "bee", "dog": "dog"})
    with pytest.raises(ConfigError, match=r"^--before .*figures\.json is of another data set"):
        evaluate(replace(config, before=config.json, data=other))
    (tmp_path / "other.json").write_text('{"results": [{"test_res": 64}]}')
    with pytest.raises(ConfigError, match=r"^--before .*other\.json is not what evaluate --json writes"):
        evaluate(replace(config, before=tmp_path / "other.json"))


def test_what_cannot_be_saved_or_read(config: EvaluateConfig, images: Path, tmp_path: Path) -> None:
    """A folder with other things, one without outputs, and outputs of other data or of another length are refused."""
    folder = tmp_path / "outputs"
    evaluate(replace(config, save_outputs=folder))
    with pytest.raises(ConfigError, match=r"--save-outputs .*outputs is there already and not empty"):
        evaluate(replace(config, save_outputs=folder))
    with pytest.raises(DataError, match="holds no outputs"):
        evaluate(EvaluateConfig(from_outputs=images))
    other = subset(images, tmp_path / "part", {"bee": "bee", "dog": "dog"})
    with pytest.raises(DataError, match="holds outputs of another data set"):
        evaluate(EvaluateConfig(from_outputs=folder, data=other))
    np.save(folder / "labels.npy", array(folder, "labels")[:-1])
    with pytest.raises(DataError, match=r"labels\.npy has the shape \(19,\), .* \(20,\)"):
        evaluate(EvaluateConfig(from_outputs=folder))
    (folder / "outputs.json").write_text("{}")
    with pytest.raises(DataError, match=r"outputs\.json is not as evaluate --save-outputs writes it"):
        evaluate(EvaluateConfig(from_outputs=folder))


def test_outputs_of_two_networks(config: EvaluateConfig, trained: Path, tmp_path: Path) -> None:
    """They are not put into one table under one name."""
    evaluate(replace(config, save_outputs=tmp_path / "outputs" / "one"))
    evaluate(replace(config, checkpoint=trained / "last.pt", save_outputs=tmp_path / "outputs" / "two"))
    with pytest.raises(DataError, match="holds outputs of several networks or data sets"):
        evaluate(EvaluateConfig(from_outputs=tmp_path / "outputs"))


def test_classes_that_do_not_fit(config: EvaluateConfig, images: Path, tmp_path: Path) -> None:
    """A class that the checkpoint does not know, and a map of another network, are refused with numbers and names."""
    data = subset(images, tmp_path / "part", {"bee": "bee", "dog": "wolf"})
    with pytest.raises(CheckpointError, match=r"has the 4 classes ant, bee, cat …, and .* has the 2 classes bee, wolf"):
        evaluate(replace(config, data=data))
    (tmp_path / "names.txt").write_text("bee\nwolf\n")
    with pytest.raises(ConfigError, match=r"names\.txt names 2 outputs, and the network of .* has 4"):
        evaluate(replace(config, data=data, class_map=tmp_path / "names.txt"))


def test_sizes_are_tried_before_the_first_image(config: EvaluateConfig, images: Path, tmp_path: Path) -> None:
    """One size of a sweep that the network cannot take stops it at once, with sizes that it takes."""
    vit = replace(config, checkpoint=None, model="timm/test_vit", data=images, test_res="64,100")
    with pytest.raises(ModelError, match=r"cannot take images of 100 px: .*; it takes multiples of .*96"):
        evaluate(replace(vit, save_outputs=tmp_path / "outputs"))
    assert list(tmp_path.iterdir()) == []
