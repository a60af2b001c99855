"""What all tests share: an own cache folder, small image folders, and the skip of GPU tests."""

import os
from pathlib import Path

import numpy as np
import pytest
from drawing import natural_image
from preparing import SMALL, prepare_copies

from dali_fixres.runtime.system import SHORT_SPIN

# Before torch is loaded, as `dali_fixres.runtime.system` does in programs, which inherit this.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", SHORT_SPIN)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep indexes and demo images of tests away from the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    compiled = tmp_path_factory.getbasetemp() / "operator"  # once for all tests: it takes seconds
    compiled.mkdir(exist_ok=True)
    (folder / "operator").symlink_to(compiled)
    monkeypatch.setenv("DALI_FIXRES_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of 4 classes, 10 training and 5 test images each, JPEGs of varied sizes."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(7)
    for split, count in (("train", 10), ("val", 5)):
        for label in ("ant", "bee", "cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = rng.integers(180, 420, 2)
                natural_image(rng, int(height), int(width)).save(folder / f"{number:02}.jpg", quality=92)
    return root


@pytest.fixture(scope="session")
def prepared(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the images with copies of 64 and 128 px, in shards of 15."""
    target = tmp_path_factory.mktemp("prepared") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DALI_FIXRES_CACHE", str(tmp_path_factory.mktemp("cache")))
        prepare_copies(images, target, SMALL)
    return target


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where torch finds none."""
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch  # noqa: PLC0415 - unit tests without it start faster

    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU on this machine"))
