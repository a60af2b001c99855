import io
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from pipelines import Loader
from pipelines.dataset import TRAIN, VAL, open_dataset
from pipelines.errors import DataError
from pipelines.plan import EvalPlan
from pipelines.resolution import Resolution

NAMES = ["zebra", "ant"]


def image(grey: int) -> dict[str, Any]:
    """Return a grey JPEG as Hugging Face's Image column has it."""
    file = io.BytesIO()
    Image.fromarray(np.full((30, 40, 3), grey, np.uint8)).save(file, "JPEG")
    return {"bytes": file.getvalue(), "path": f"{grey}.jpg"}


def write_table(path: Path, labels: list[int]) -> None:
    """Write a Parquet file as `datasets` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    columns = {"image": [image(20 * (number + 1)) for number in range(len(labels))], "label": labels}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(path))


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Return a folder of Parquet files as on the hub: two shards to train on, one to test on, one more split."""
    data = tmp_path / "hub" / "data"
    write_table(data / "train-00000-of-00002.parquet", [0, 1, 0])
    write_table(data / "train-00001-of-00002.parquet", [1])
    write_table(data / "validation-00000-of-00001.parquet", [1, 0])
    write_table(data / "test-00000-of-00001.parquet", [1])
    return data.parent


def test_a_folder_of_the_hub(tables: Path) -> None:
    """Images, splits and class names are those of the files, and the classes stay in their order."""
    opened = open_dataset(tables)
    dataset = opened
    assert dataset.classes == tuple(NAMES)
    assert (len(dataset.rows(TRAIN)), len(dataset.rows(VAL))) == (4, 2)
    assert dataset.labels.tolist() == [0, 1, 0, 1, 1, 0]
    assert dataset.read(1).tobytes() == image(40)["bytes"]
    (plan,) = EvalPlan(dataset, batch_size=2).batches(Resolution(32))
    with Loader(dataset, max_batch_size=2) as loader:
        (batch,) = loader.run([plan])
    assert batch.labels.tolist() == [1, 0]


def test_tables_beside_the_files_do_not_matter(tables: Path) -> None:
    """A .csv file beside Parquet files is not the data set."""
    for file in list((tables / "data").iterdir()):
        file.rename(tables / file.name)
    (tables / "data").rmdir()
    (tables / "stats.csv").write_text("name,count\n", encoding="utf-8")
    assert len(open_dataset(tables)) == 6


def test_they_are_unpacked_once(tables: Path) -> None:
    """The second time nothing is written, and the data set is the same."""
    first = open_dataset(tables)
    shards = sorted(first.root.iterdir())
    times = [path.stat().st_mtime_ns for path in shards]
    second = open_dataset(tables)
    assert second.fingerprint == first.fingerprint
    assert [path.stat().st_mtime_ns for path in shards] == times


@pytest.mark.parametrize("lost", ["train-00003.tar", "content.json"])
def test_what_has_gone_from_the_cache_is_made_again(tables: Path, lost: str) -> None:
    """A cache that somebody has tidied is not taken for the whole data set."""
    first = open_dataset(tables)
    (found,) = first.root.glob(lost.replace("00003", "*1"))
    found.unlink()
    assert open_dataset(tables).fingerprint == first.fingerprint
    assert found.exists()


def test_a_single_file_needs_a_split(tables: Path) -> None:
    """A file alone is taken for itself."""
    file = tables / "data" / "validation-00000-of-00001.parquet"
    dataset = open_dataset(file)
    assert (len(dataset.rows(TRAIN)), len(dataset.rows(VAL))) == (0, 2)


def test_without_datasets(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named, with the ways that need nothing."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'dali-fixres\[parquet\]'; or give class folders, tar shards"):
        open_dataset(tables)


def test_labels_of_no_class(tables: Path, own_cache: Path) -> None:
    """Rows without a label are named; nothing half-unpacked is left."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    file = tables / "one.parquet"
    datasets.Dataset.from_dict({"image": [image(9)], "label": [None]}, features=features).to_parquet(str(file))
    with pytest.raises(DataError, match=r"one.parquet, row 0: its label is None, which names no class"):
        open_dataset(file, val_fraction=1.0)
    assert [path.suffix for path in (own_cache / "parquet").iterdir()] == [".lock"]


def test_files_with_other_classes(tables: Path) -> None:
    """Numbers that stand for other names in another file are refused, not mixed up."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES[::-1])})
    file = tables / "data" / "train-00002.parquet"
    datasets.Dataset.from_dict({"image": [image(9)], "label": [0]}, features=features).to_parquet(str(file))
    with pytest.raises(DataError, match=r"train-00002.parquet has the classes ant, zebra and .* has zebra, ant"):
        open_dataset(tables)


@pytest.mark.parametrize("content", [b"no table", b""])
def test_a_file_that_is_no_table(tmp_path: Path, content: bytes) -> None:
    """It is named in one line."""
    file = tmp_path / "train.parquet"
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"cannot unpack {file.parent}"):
        open_dataset(file, val_fraction=1.0)


def test_tables_of_other_things(tmp_path: Path) -> None:
    """A table without images is refused with its columns."""
    file = tmp_path / "train.parquet"
    datasets.Dataset.from_dict({"text": ["a"], "label": [1]}).to_parquet(str(file))
    with pytest.raises(DataError, match="has the columns text, label; expected one of images"):
        open_dataset(file, val_fraction=1.0)
