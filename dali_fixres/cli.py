"""The command line: flags become configs, configs go to commands, errors become one line and an exit code.

Exit codes: 0 done, 1 a failure of the run or of this program, 2 a mistake in the input, 75 stopped by a signal and
resumable, 130 interrupted with Ctrl-C before there was anything to resume.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError

from dali_fixres import __version__
from dali_fixres.config import (
    AnalyzeConfig,
    EvaluateConfig,
    ExportConfig,
    FinetuneConfig,
    FixresConfig,
    IndexConfig,
    PrepareConfig,
    PreviewConfig,
    TrainConfig,
    VerifyConfig,
)
from dali_fixres.config.rules import with_flags
from dali_fixres.config_sources import fill_from_sources
from dali_fixres.errors import Interrupted, RunError, UserError
from dali_fixres.runtime.system import prepare_host
from pipelines.processes import num_processes

__all__ = ["app", "main"]

RESUMABLE = 75
"""EX_TEMPFAIL of sysexits.h: not done, but not wrong either; try again."""

FLAT = Parameter(name="*")
"""The fields of a config are flags, without the config's name before them."""

DATA_SET = Parameter(help="The data set, as for --data of other commands.")

app = App(
    name="dali-fixres",
    help="Train image classifiers at a low resolution, and fix them for a higher one.",
    version=__version__,
    version_flags=["--version"],
    default_parameter=Parameter(negative=(), negative_iterable=()),
    config=(fill_from_sources,),
)


@app.command
def train(config: Annotated[TrainConfig, FLAT] = TrainConfig()) -> None:  # noqa: B008 - frozen
    """Train at a low resolution.

    Without --data it makes a synthetic demo data set and trains a small network on it.
    """
    from dali_fixres.commands.train import train as command  # noqa: PLC0415 - loads torch and DALI

    command(config)


@app.command
def finetune(config: Annotated[FinetuneConfig, FLAT]) -> None:
    """Fix a network for a higher test resolution: fine-tune its classifier and its last norm there (FixRes)."""
    from dali_fixres.commands.finetune import finetune as command  # noqa: PLC0415

    command(config)


@app.command
def evaluate(config: Annotated[EvaluateConfig, FLAT] = EvaluateConfig()) -> None:  # noqa: B008
    """Test a network at one or several resolutions, crop ratios and views, and recommend a setting."""
    from dali_fixres.commands.evaluate import evaluate as command  # noqa: PLC0415

    command(config)


@app.command
def analyze(config: Annotated[AnalyzeConfig, FLAT] = AnalyzeConfig()) -> None:  # noqa: B008
    """Compare training crops with test crops: how large objects appear, and how a network's activations differ."""
    from dali_fixres.commands.analyze import analyze as command  # noqa: PLC0415

    command(config)


@app.command
def fixres(config: Annotated[FixresConfig, FLAT] = FixresConfig()) -> None:  # noqa: B008
    """Train low, sweep over test resolutions, fine-tune at the best one, sweep again, and write a report.

    Without --data it uses a synthetic demo data set and a small network.
    """
    from dali_fixres.commands.fixres import fixres as command  # noqa: PLC0415

    command(config)


@app.command
def export(config: Annotated[ExportConfig, FLAT]) -> None:
    """Write the network of a run as safetensors for timm or torchvision, with a model card, and as ONNX."""
    from dali_fixres.commands.export import export as command  # noqa: PLC0415

    command(config)


@app.command
def index(config: Annotated[IndexConfig, FLAT] = IndexConfig()) -> None:  # noqa: B008
    """List what a data set contains, and which files cannot be used."""
    from dali_fixres.commands.index import index as command  # noqa: PLC0415

    command(config)


@app.command
def verify(
    data: Annotated[Path, DATA_SET],
    config: Annotated[VerifyConfig, FLAT] = VerifyConfig(),  # noqa: B008
) -> int:
    """Decode every image of a data set and list those that cannot be read; exit code 1 if there are any."""
    from dali_fixres.commands.verify import verify as command  # noqa: PLC0415

    return 1 if command(data, config) else 0


@app.command
def prepare(
    source: Annotated[Path, DATA_SET],
    target: Annotated[Path, Parameter(help="Folder to make; give it to --data of other commands.")],
    config: Annotated[PrepareConfig, FLAT] = PrepareConfig(),  # noqa: B008
) -> None:
    """Write resized copies of a data set: training at a low resolution then decodes small images."""
    from dali_fixres.commands.prepare import prepare as command  # noqa: PLC0415

    command(source, target, config)


@app.command
def preview(config: Annotated[PreviewConfig, FLAT] = PreviewConfig()) -> None:  # noqa: B008
    """Draw what the network sees: images with their crop boxes, training crops, test crops."""
    from dali_fixres.commands.preview import preview as command  # noqa: PLC0415

    command(config)


@app.command
def recipes() -> None:
    """List the recipes that --config takes by name: the commands of published results, with their accuracies."""
    from dali_fixres.commands.recipes import recipes as command  # noqa: PLC0415

    command()


@app.command
def doctor(*, json: Path | None = None) -> int:
    """Show versions and hardware, check that the graph runs on each device, and time both decoders on a GPU.

    Args:
        json: Also write what was found here, as JSON.
    """
    from dali_fixres.commands.doctor import doctor as command  # noqa: PLC0415

    return 0 if command(json) else 1


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    prepare_host()
    run = _run
    if "TORCHELASTIC_ERROR_FILE" in os.environ:  # where torchrun's report takes the first error from
        from torch.distributed.elastic.multiprocessing.errors import record  # noqa: PLC0415 - loads torch

        run = record(_run)
    try:
        result = run(argv)
    except (CycloptsError, UserError) as error:
        _fail(str(error), code=2)
    except RunError as error:
        _fail(str(error), code=1)
    except Interrupted as interruption:
        _end(str(interruption), code=RESUMABLE)
    except KeyboardInterrupt:
        _fail("interrupted", code=130)
    sys.exit(result if isinstance(result, int) else 0)


def _run(argv: list[str] | None) -> Any:
    """Run a command and return what it returns; expected errors are raised without the traceback of their cause."""
    try:
        return app(argv, exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, UserError, RunError, Interrupted) as error:
        raise error.with_traceback(None) from None


def _fail(message: str, code: int) -> NoReturn:
    """Print an error, in the words of the command line, and exit."""
    rank = f"rank {os.environ['RANK']}: " if num_processes() > 1 else ""
    _end(f"error: {rank}{with_flags(message)}", code)


def _end(message: str, code: int) -> NoReturn:
    """Print one line, if there is something to say, and exit."""
    if message:
        print(message, file=sys.stderr)  # noqa: T201
    sys.exit(code)
