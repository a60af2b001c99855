"""The command line: flags become configs, configs go to commands, errors become one line and an exit code.

Exit codes: 0 done, 1 a failure of the run or of this program, 2 something the user gave, 75 stopped by a signal and
resumable, 130 interrupted with Ctrl-C before there was anything to resume.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, Parameter
from cyclopts.argument import Argument, ArgumentCollection
from cyclopts.config import Dict
from cyclopts.exceptions import CycloptsError
from cyclopts.utils import UNSET

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
    config_file,
    read_toml,
    recipe_command,
)
from dali_fixres.config import (
    recipes as shipped_recipes,
)
from dali_fixres.errors import ConfigError, Interrupted, RunError, UserError
from dali_fixres.runtime.run_folder import FIXRES, RunFolder, run_to_resume
from dali_fixres.runtime.system import prepare_host
from pipelines.processes import max_restarts, num_local, num_processes, num_restarts

__all__ = ["app", "main"]

PART_OF = {"model": "model_arg", "base_lr": "lr", "lr_decay": "decay_epochs", "policy": "blocks"}
"""A flag on the left makes a lower layer's value on the right stale: another network's arguments, a rate as it is."""

RESUMABLE = 75
"""EX_TEMPFAIL of sysexits.h: not done, but not wrong either; try again."""

FLAT = Parameter(name="*")
"""A config's fields are flags of their own, without its name before them."""

app = App(
    name="dali-fixres",
    help="Train image classifiers at a low resolution, and fix them for a higher one.",
    version=__version__,
    version_flags=["--version"],
    default_parameter=Parameter(negative_iterable=()),
)


@app.command
def train(config: Annotated[TrainConfig, FLAT] = TrainConfig()) -> None:  # noqa: B008 - frozen
    """Train at a low resolution.

    Without --data it makes a synthetic demo data set and trains a small network on it, with settings for that.
    """
    from dali_fixres.commands.train import train as command  # noqa: PLC0415 - loads torch and DALI

    command(config)


@app.command
def finetune(config: Annotated[FinetuneConfig, FLAT]) -> None:
    """Fix a network for a higher test resolution: tune its classifier and its last norm there (FixRes)."""
    from dali_fixres.commands.finetune import finetune as command  # noqa: PLC0415

    command(config)


@app.command
def evaluate(config: Annotated[EvaluateConfig, FLAT] = EvaluateConfig()) -> None:  # noqa: B008
    """Test a network at one or several resolutions, crop ratios and views, and recommend one."""
    from dali_fixres.commands.evaluate import evaluate as command  # noqa: PLC0415

    command(config)


@app.command
def analyze(config: Annotated[AnalyzeConfig, FLAT] = AnalyzeConfig()) -> None:  # noqa: B008
    """Compare training crops with test crops: how large objects appear, and what a network makes of them."""
    from dali_fixres.commands.analyze import analyze as command  # noqa: PLC0415

    command(config)


@app.command
def fixres(config: Annotated[FixresConfig, FLAT] = FixresConfig()) -> None:  # noqa: B008
    """The whole story: train low, sweep over test resolutions, fine-tune at the best one, sweep again, report.

    Without --data it is told of the synthetic demo data set, with settings for that.
    """
    from dali_fixres.commands.fixres import fixres as command  # noqa: PLC0415

    command(config)


@app.command
def export(config: Annotated[ExportConfig, FLAT]) -> None:
    """Write a run's network as safetensors that timm or torchvision load, with a model card, and as ONNX."""
    from dali_fixres.commands.export import export as command  # noqa: PLC0415

    command(config)


@app.command
def index(config: Annotated[IndexConfig, FLAT] = IndexConfig()) -> None:  # noqa: B008
    """List what is in a data set, and what of it cannot be used."""
    from dali_fixres.commands.index import index as command  # noqa: PLC0415

    command(config)


@app.command
def verify(
    data: Annotated[Path, Parameter(help="The data set, as for --data of other commands.")],
    config: Annotated[VerifyConfig, FLAT] = VerifyConfig(),  # noqa: B008
) -> int:
    """Decode every image of a data set and list those that cannot be read; exit code 1 if there are any."""
    from dali_fixres.commands.verify import verify as command  # noqa: PLC0415

    return 1 if command(data, config) else 0


@app.command
def prepare(
    source: Annotated[Path, Parameter(help="The data set, as for --data of other commands.")],
    target: Annotated[Path, Parameter(help="Folder to make; give it to --data of other commands.")],
    config: Annotated[PrepareConfig, FLAT] = PrepareConfig(),  # noqa: B008
) -> None:
    """Write resized copies of a data set: training at a low resolution then decodes small images."""
    from dali_fixres.commands.prepare import prepare as command  # noqa: PLC0415

    command(source, target, config)


@app.command
def preview(config: Annotated[PreviewConfig, FLAT] = PreviewConfig()) -> None:  # noqa: B008
    """Draw what the network sees: sources with their crop boxes, training crops, test crops."""
    from dali_fixres.commands.preview import preview as command  # noqa: PLC0415

    command(config)


@app.command
def recipes() -> None:
    """List the recipes that --config takes by name: the commands of published results, with their figures."""
    from dali_fixres.commands.recipes import recipes as command  # noqa: PLC0415

    command()


@app.command
def doctor(*, json: Path | None = None) -> int:
    """Show versions and hardware, check that the graph runs on each device, and time both ways to decode on a GPU.

    Args:
        json: Also write what was found here, as JSON.
    """
    from dali_fixres.commands.doctor import doctor as command  # noqa: PLC0415

    return 0 if command(json) else 1


def _layers(app_: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill flags that were not given: from --config, then from a resumed run, then from the demo's recipe."""
    if not commands:
        return
    known = {_key(name) for argument in arguments for name in argument.names} - {"*"}
    given: dict[str, Any] = {_key(argument.name): _said(argument) for argument in arguments if argument.tokens}
    layers: list[tuple[dict[str, Any], str]] = []
    if "config" in given:
        path = config_file(Path(given["config"]))
        of = recipe_command(path)
        if of not in {None, commands[-1], *(["train"] if commands[-1] == FIXRES else [])}:
            raise ConfigError(f"--config {given['config']} is a recipe of {of}, and not of {commands[-1]}")
        layers.append((read_toml(path, known), str(path)))
        given = {**layers[0][0], **given}
    run = _run_to_resume(commands[-1], given) if commands[-1] in {"train", "finetune", FIXRES} else None
    if run is not None:
        settings = {**read_toml(run.config, known), "out": str(run.path), "resume": True}
        layers.append((settings, str(run.config)))
    elif commands[-1] in {"train", FIXRES} and not given.keys() & {"data", "checkpoint"}:
        recipe = read_toml(shipped_recipes()["demo"], known)
        if commands[-1] == FIXRES:
            del recipe["test_res"]  # what training is tested at, not what the network is to be fixed for
        layers.append((recipe, "the demo's recipe"))
    said = {_key(argument.name) for argument in arguments if argument.tokens}
    for values, source in layers:
        # Each layer fills what no earlier one has set, but for parts of something that an earlier one replaces.
        stale = {part for name, part in PART_OF.items() if name in said and part not in said}
        kept = {name: value for name, value in values.items() if name not in stale}
        Dict(kept, source=source, use_commands_as_keys=False)(app_, commands, arguments)
        said |= values.keys()


def _run_to_resume(command: str, given: dict[str, Any]) -> RunFolder | None:
    """Return the run that goes on: asked for, or begun before torchrun started the command again."""
    out = Path(given["out"]) if "out" in given else None
    if max_restarts() > 0:
        if out is None:
            raise ConfigError("torchrun may start this run again, which then has to find its folder; give it an --out")
        if num_processes() > num_local():
            raise ConfigError(
                "torchrun's --max-restarts works on one node; on several leave it out, and start the run again with "
                "--resume"
            )
        begun = RunFolder(out).config if command == FIXRES else RunFolder(out).last
        if num_restarts() > 0 and begun.exists():
            return RunFolder(out)
    return run_to_resume(command, out) if given.get("resume") else None


def _key(flag: str) -> str:
    """Return the config field that a flag sets."""
    return flag.removeprefix("--").replace("-", "_")


def _said(argument: Argument) -> Any:
    """Return what the command line gives for a flag: its word, or the truth value that a bare flag stands for."""
    token = argument.tokens[0]
    return token.value if token.implicit_value is UNSET else token.implicit_value


app.config = (_layers,)


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
    """Print an error and exit."""
    rank = f"rank {os.environ['RANK']}: " if num_processes() > 1 else ""
    _end(f"error: {rank}{message}", code)


def _end(message: str, code: int) -> NoReturn:
    """Print one line, if there is something to say, and exit."""
    if message:
        print(message, file=sys.stderr)  # noqa: T201
    sys.exit(code)
