"""The command that a results file says it is from."""

from dataclasses import dataclass
from pathlib import Path

from harness import command_of


@dataclass(frozen=True)
class Flags:
    """Some of each kind."""

    data: Path | None = None
    quick: bool = False
    sync: bool = True
    peers: str = "timm"
    mean: tuple[float, ...] = (1.0,)
    json: Path | None = None


def test_commands_can_be_typed_anywhere() -> None:
    """What is left at its default is left out, and so is where figures go; folders are called by their last name."""
    start = "uv run python bench/some.py"
    assert command_of("some", Flags(json=Path("/home/me/x.json"))) == start
    given = Flags(Path("/home/me/pictures"), quick=True, sync=False, peers="", mean=(0.5, 0.25))
    assert command_of("some", given) == f"{start} --data pictures --quick --no-sync --peers= --mean 0.5 0.25"
    peers = Flags(peers="timm,ffcv=/home/me/ffcv/bin/python,ffcv-raw50=/home/me/ffcv/bin/python")
    assert command_of("some", peers).endswith("--peers timm,ffcv=FFCV_ENV/bin/python,ffcv-raw50=FFCV_ENV/bin/python")
