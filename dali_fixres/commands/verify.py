"""`dali-fixres verify`: decode everything, list what cannot be read."""

import time
from pathlib import Path

from dali_fixres.config import VerifyConfig
from dali_fixres.errors import ConfigError, SaveError
from dali_fixres.runtime.data import NUM_NAMED, open_data
from dali_fixres.runtime.json_files import VerifyFile
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.skipped import unreadable_lines
from pipelines.dali.decodability import DecodabilityCheck
from pipelines.processes import usable_cores
from pipelines.storage.files import write_json, write_text

__all__ = ["verify"]


def verify(folder: Path, config: VerifyConfig) -> bool:
    """Decode every image on the CPU, and list the files that cannot be read; return whether there are any.

    On machines with a GPU too: hardware decoders may accept a truncated file.

    Raises:
        DataError: If there is no such data set.
        ConfigError: If a file cannot be written.
    """
    started = time.perf_counter()
    reporter = Reporter()
    dataset = open_data(folder, 1.0, reporter).dataset
    _write_list(config.out, [])  # finds out that it can be written before hours of decoding, not after
    check = DecodabilityCheck(dataset, config.workers or usable_cores())
    with reporter.bar("decoding", dataset.num_files) as bar:
        reasons = check.whole(bar.update)
    lines = unreadable_lines(dataset, reasons)
    if lines:
        _write_list(config.out, lines)
    else:
        config.out.unlink()
    num_files = dataset.num_files + len(dataset.left_out)
    _print_result(lines, num_files, config.out)
    seconds = time.perf_counter() - started
    reporter.line(f"decoded in {seconds:.1f} s, {num_files / seconds:.0f} images/s")
    if config.json is not None:
        content: VerifyFile = {
            "num_files": num_files,
            "unreadable": lines,
            "fingerprint": dataset.fingerprint,
            "seconds": round(seconds, 3),
        }
        write_json(config.json, content)
    return bool(lines)


def _write_list(path: Path, lines: list[str]) -> None:
    try:
        write_text(path, "".join(f"{line}\n" for line in lines), errors="surrogateescape")
    except SaveError as error:
        raise ConfigError(f"{error}; give another --out") from error


def _print_result(lines: list[str], num_files: int, out: Path) -> None:
    for line in lines[:NUM_NAMED]:
        print(f"unreadable: {line}")  # noqa: T201 - the command's result
    if len(lines) > NUM_NAMED:
        print(f"and {len(lines) - NUM_NAMED} more")  # noqa: T201
    where = f", listed in {out}" if lines else ""
    print(f"{len(lines)} of {num_files} files cannot be read{where}")  # noqa: T201
