"""What tests of the real DALI graph share."""

from pathlib import Path

import pytest

from pipelines.dataset import Dataset, open_dataset


@pytest.fixture
def dataset(images: Path) -> Dataset:
    """Return the small data set: 40 training and 20 test images."""
    return open_dataset(images)
