"""How many pictures a second the cores can decode, scale and encode at all, without anything being written.

    python bench/encode_limit.py DATA 160,256,384 500 90

Prints images/s. `bench/prepared.py` compares `dali-fixres prepare` with it. It is a script of its own because each
process imports the script it comes from, and is to start fast.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from dali_fixres.prepare.encode import Sizes, encode_copies
from dali_fixres.processes import usable_cores

CHUNK = 32


def _encode(paths: list[Path], sizes: Sizes) -> int:
    return sum(bool(encode_copies(path.read_bytes(), sizes)) for path in paths)


def _main(data: Path, sizes: Sizes) -> None:
    paths = sorted(path for path in data.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    chunks = [paths[first : first + CHUNK] for first in range(0, len(paths), CHUNK)]
    with ProcessPoolExecutor(usable_cores(), mp_context=get_context("spawn")) as pool:
        warm = [pool.submit(_encode, chunk, sizes) for chunk in chunks[: 2 * usable_cores()]]
        assert all(task.result() for task in warm)
        started = time.perf_counter()
        count = sum(task.result() for task in [pool.submit(_encode, chunk, sizes) for chunk in chunks])
        print(count / (time.perf_counter() - started))  # noqa: T201 - the result


if __name__ == "__main__":
    _, folder, sides, max_side, quality = sys.argv
    _main(Path(folder), Sizes(tuple(map(int, sides.split(","))), int(max_side), int(quality)))
