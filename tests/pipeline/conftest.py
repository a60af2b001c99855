"""What tests of the real DALI graph share."""

from pathlib import Path

import pytest

from dali_fixres.index import Index, open_data


@pytest.fixture
def index(pictures: Path) -> Index:
    """Return the index of the small data set: 40 training and 20 test pictures."""
    return open_data(pictures).index
