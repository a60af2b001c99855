"""What tests of the real DALI graph share."""

import shutil
from pathlib import Path

import pytest

from pipelines.dataset import Dataset, open_dataset


@pytest.fixture
def dataset(images: Path) -> Dataset:
    """Return the small data set: 40 training and 20 test images."""
    return open_dataset(images)


@pytest.fixture(scope="session")
def few_images(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the first two images of each class and split of the small data set: 16."""
    root = tmp_path_factory.mktemp("few") / "images"
    for path in sorted([*images.rglob("00.jpg"), *images.rglob("01.jpg")]):
        (root / path.relative_to(images)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.relative_to(images))
    return root
