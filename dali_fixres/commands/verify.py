"""`dali-fixres verify`: decode everything, list what cannot be read."""

import time
from pathlib import Path

from dali_fixres.commands.dataset import NUM_NAMED, open_dataset
from dali_fixres.commands.unreadable import Unreadable
from dali_fixres.config import VerifyConfig
from dali_fixres.errors import ConfigError, SaveError
from dali_fixres.processes import usable_cores
from dali_fixres.report.progress import Reporter
from dali_fixres.runs import write_json, write_text
from pipelines import Probe

__all__ = ["verify"]


def verify(data: Path, config: VerifyConfig) -> bool:
    """Decode every picture on the CPU, and list the files that cannot be read; return whether there are any.

    On machines with a GPU too: hardware decoders may take a truncated file for a good one.

    Raises:
        DataError: If there is no such data set.
        ConfigError: If a file cannot be written.
    """
    started = time.perf_counter()
    reporter = Reporter()
    dataset = open_dataset(data, 1.0, reporter)
    try:
        write_text(config.out, "")  # before hours of decoding, not after
    except SaveError as error:
        raise ConfigError(f"{error}; give another --out") from error
    probe = Probe(dataset.index, config.workers or usable_cores())
    with reporter.bar("decoding", dataset.index.num_files) as bar:
        reasons = probe.whole(bar.update)
    unreadable = Unreadable(dataset, reasons, strict=False, reporter=reporter, listed_in=config.out)
    seconds = time.perf_counter() - started
    lines = unreadable.lines()
    for line in lines[:NUM_NAMED]:
        print(f"unreadable: {line}")  # noqa: T201 - the command's result
    if len(lines) > NUM_NAMED:
        print(f"and {len(lines) - NUM_NAMED} more")  # noqa: T201
    where = f", listed in {config.out}" if lines else ""
    num_files = dataset.index.num_files + len(dataset.left_out)
    print(f"{len(lines)} of {num_files} files cannot be read{where}")  # noqa: T201
    reporter.line(f"decoded in {seconds:.1f} s, {num_files / seconds:.0f} images/s")
    if config.json is not None:
        content = {
            "num_files": num_files,
            "unreadable": lines,
            "fingerprint": dataset.index.fingerprint,
            "seconds": round(seconds, 3),
        }
        write_json(config.json, content)
    return bool(lines)
