"""`dali-fixres verify`: decode everything, list what cannot be read."""

import time
from pathlib import Path

from dali_fixres.config import VerifyConfig
from dali_fixres.errors import ConfigError, SaveError
from dali_fixres.runtime.data import NUM_NAMED, open_data
from dali_fixres.runtime.progress import Reporter
from dali_fixres.training.unreadable import Unreadable
from pipelines.dali.decodability import DecodabilityCheck
from pipelines.processes import usable_cores
from pipelines.storage.files import write_json, write_text

__all__ = ["verify"]


def verify(folder: Path, config: VerifyConfig) -> bool:
    """Decode every image on the CPU, and list the files that cannot be read; return whether there are any.

    On machines with a GPU too: hardware decoders may take a truncated file for a good one.

    Raises:
        DataError: If there is no such data set.
        ConfigError: If a file cannot be written.
    """
    started = time.perf_counter()
    reporter = Reporter()
    data = open_data(folder, 1.0, reporter)
    try:
        write_text(config.out, "")  # before hours of decoding, not after
    except SaveError as error:
        raise ConfigError(f"{error}; give another --out") from error
    check = DecodabilityCheck(data.dataset, config.workers or usable_cores())
    with reporter.bar("decoding", data.dataset.num_files) as bar:
        reasons = check.whole(bar.update)
    unreadable = Unreadable(data, reasons, strict=False, reporter=reporter, listed_in=config.out)
    seconds = time.perf_counter() - started
    lines = unreadable.lines()
    for line in lines[:NUM_NAMED]:
        print(f"unreadable: {line}")  # noqa: T201 - the command's result
    if len(lines) > NUM_NAMED:
        print(f"and {len(lines) - NUM_NAMED} more")  # noqa: T201
    where = f", listed in {config.out}" if lines else ""
    num_files = data.dataset.num_files + len(data.dataset.left_out)
    print(f"{len(lines)} of {num_files} files cannot be read{where}")  # noqa: T201
    reporter.line(f"decoded in {seconds:.1f} s, {num_files / seconds:.0f} images/s")
    if config.json is not None:
        content = {
            "num_files": num_files,
            "unreadable": lines,
            "fingerprint": data.dataset.fingerprint,
            "seconds": round(seconds, 3),
        }
        write_json(config.json, content)
    return bool(lines)
