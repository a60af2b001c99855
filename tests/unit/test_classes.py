from pathlib import Path

import pytest
import torch

from dali_fixres.errors import ConfigError
from dali_fixres.models.class_map import ClassMap, map_classes, read_names

NAMES = ("n01", "n02", "n03", "n04")


@pytest.mark.parametrize(
    ("classes", "outputs"),
    [
        (NAMES, (0, 1, 2, 3)),
        (("n02", "n04"), (1, 3)),
        (("0", "2", "3"), (0, 2, 3)),
        (("n03", "0"), (2, 0)),
    ],
)
def test_classes_are_found_by_name_or_number(classes: tuple[str, ...], outputs: tuple[int, ...]) -> None:
    """A class folder stands for the output of its name, or of the number that is its name."""
    class_map = map_classes(NAMES, classes, "names.txt")
    assert class_map == ClassMap(outputs, 4)
    assert class_map.is_plain == (classes == NAMES)


def test_names_go_before_numbers() -> None:
    """Where outputs are named by numbers in another order, as ten folders sorted by name, the name counts."""
    names = ("0", "1", "10", "2")
    assert map_classes(names, ("2", "10"), "names.txt").outputs == (3, 2)


def test_an_unknown_class_is_named() -> None:
    """A class that is no output stops, with how many there are and the name it may have been meant as."""
    with pytest.raises(
        ConfigError, match=r"^1 of the 2 classes .* names.txt, which names 4: n044; did you mean 'n04'\?$"
    ):
        map_classes(NAMES, ("n01", "n044"), "names.txt")
    with pytest.raises(ConfigError, match="1 of the 1 classes"):
        map_classes(NAMES, ("4",), "names.txt")


def test_two_classes_of_one_output_are_refused() -> None:
    """A name and a number may mean the same output, and images of one would count as the other's."""
    with pytest.raises(ConfigError, match=r"the classes n02 and 1 of the data are both output 1 by names.txt"):
        map_classes(NAMES, ("n02", "1"), "names.txt")


def test_labels_and_logits() -> None:
    """Labels become numbers of outputs; outputs without a class cannot be the answer if that is asked for."""
    class_map = ClassMap((3, 1), 4)
    assert class_map.right_outputs(torch.tensor([0, 1, 1])).tolist() == [3, 1, 1]
    logits = torch.tensor([[9.0, 1.0, 8.0, 2.0]])
    assert class_map.without_others(logits).tolist() == [[-torch.inf, 1.0, -torch.inf, 2.0]]


def test_names_files(tmp_path: Path) -> None:
    """One name a line; a missing file, an empty one and a name twice are refused with the file."""
    path = tmp_path / "names.txt"
    path.write_text("n01\nn02 \n\n")
    assert read_names(path) == ("n01", "n02")
    for content, problem in (("\n", "is empty"), ("a\nb\na\n", "names 'a' twice")):
        path.write_text(content)
        with pytest.raises(ConfigError, match=f"--class-map {path} {problem}"):
            read_names(path)
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ConfigError, match="is not text"):
        read_names(path)
    with pytest.raises(ConfigError, match="cannot read --class-map"):
        read_names(tmp_path / "none.txt")
