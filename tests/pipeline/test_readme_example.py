"""The README's example of the loader runs as it stands there."""

import re
import shutil
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def test_the_loader_example_runs(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten lines and one import line: the example prints batches at 128 px, and from epoch 5 on at 160 px."""
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(example.strip().splitlines()) <= 10
    for number in range(2):  # 80 training images make one batch of 64
        for image in images.rglob("*.jpg"):
            copy = tmp_path / "FOLDER" / image.relative_to(images).with_stem(f"{image.stem}-{number}")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, copy)
    monkeypatch.chdir(tmp_path)
    exec(example, {})  # noqa: S102 - our own
    lines = capsys.readouterr().out.splitlines()
    sides = [128] * 5 + [160] * 5
    assert lines == [
        f"{epoch} torch.Size([64, 3, {side}, {side}]) torch.Size([64])" for epoch, side in enumerate(sides)
    ]
