from pathlib import Path

import numpy as np
import pytest

from dali_fixres.errors import ConfigError
from dali_fixres.evaluation.predictions import Outputs, merge, new_folder
from dali_fixres.evaluation.real import RealLabels
from dali_fixres.models.class_map import ClassMap


def _outputs(rows: list[int], logits: list[list[float]], labels: list[int]) -> Outputs:
    return Outputs(
        rows=np.array(rows, dtype=np.int64),
        paths=np.array([b"val/ILSVRC2012_val_%08d.JPEG" % (row + 1) for row in rows], dtype=np.bytes_),
        labels=np.array(labels, dtype=np.int64),
        logits=np.array(logits, dtype=np.float32).reshape(len(rows), 7),
        features=None,
    )


OUTPUTS = _outputs(
    [0, 1, 2],
    [
        [9, 1, 2, 3, 4, 5, 6],  # answers 0, then 6, 5, 4, 3
        [1, 2, 3, 4, 5, 6, 7],  # answers 6, then 5, 4, 3, 2
        [3, 2, 1, 4, 5, 6, 7],  # answers 6, then 5, 4, 3, 0
    ],
    [0, 1, 1],
)


def test_counts() -> None:
    """With classes 0 and 1 at the outputs 0 and 2, one is right at once and one more among five answers."""
    counts = OUTPUTS.counts(ClassMap((0, 2), 7), only_mapped=False, real=None)
    assert counts.tolist() == [1, 2, 3, 0, 0]


def test_counts_of_mapped_outputs() -> None:
    """Where no other output may answer, the second image is right as well: 3 > 1; the third is not: 1 < 3."""
    counts = OUTPUTS.counts(ClassMap((0, 2), 7), only_mapped=True, real=None)
    assert counts.tolist() == [2, 3, 3, 0, 0]


def test_counts_by_several_labels() -> None:
    """Any label of an image is right; an image without any is not counted there."""
    real = RealLabels((frozenset({0, 3}), frozenset(), frozenset({1, 2})))
    counts = OUTPUTS.counts(ClassMap((0, 2), 7), only_mapped=False, real=real)
    assert counts.tolist() == [1, 2, 3, 1, 2]


def test_outputs_of_processes_are_put_in_order() -> None:
    """Rows are assigned in turn; a process may have none."""
    logits = OUTPUTS.logits.tolist()
    parts = [_outputs([0, 2], [logits[0], logits[2]], [0, 1]), _outputs([], [], []), _outputs([1], [logits[1]], [1])]
    whole = merge(parts)
    for name in ("rows", "paths", "labels", "logits"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(OUTPUTS, name))
    assert whole.features is None


def test_a_folder_is_there_when_it_is_complete(tmp_path: Path) -> None:
    """An error leaves nothing; what a killed process has left is cleared; an empty folder is taken."""
    folder = tmp_path / "outputs"
    with pytest.raises(KeyError), new_folder(folder):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    left = tmp_path / ".outputs.partial"
    left.mkdir()
    (left / "half").touch()
    folder.mkdir()
    with new_folder(folder) as partial:
        (partial / "whole").touch()
        assert not any(folder.iterdir())
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_with_other_things(tmp_path: Path) -> None:
    """A folder that holds something, or a file in its place, is refused and left alone."""
    (tmp_path / "thing").touch()
    for place in (tmp_path, tmp_path / "thing"):
        with pytest.raises(ConfigError, match="is there already and not empty; give another folder"), new_folder(place):
            pytest.fail("it was taken")
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]
