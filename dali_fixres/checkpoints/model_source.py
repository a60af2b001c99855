"""The network a command works on: a run's, a checkpoint's, a weights file's, or one by name."""

from dataclasses import dataclass, replace
from pathlib import Path

from dali_fixres.checkpoints.checkpoint import Checkpoint, checkpoint_file, load_trained, rebuild
from dali_fixres.config import AnalyzeConfig, EvaluateConfig, FinetuneConfig, NetworkConfig
from dali_fixres.errors import CheckpointError, ConfigError
from dali_fixres.models import (
    DataConfig,
    Model,
    ModelSpec,
    WeightsFile,
    build_model,
    load_into,
    read_weights,
    recognise,
)
from dali_fixres.models.build import num_parameters
from dali_fixres.models.class_map import ClassMap, map_classes, read_names
from dali_fixres.models.weights_config import WeightsConfig, config_beside, config_of_pretrained
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.run_folder import newest_run
from pipelines.dataset import Dataset

__all__ = [
    "ModelSource",
    "StartCheckpoint",
    "build_source",
    "build_start",
    "build_to_test",
    "check_classes",
    "data_config_of_source",
    "data_config_of_start",
    "find_source",
    "find_start",
    "rebuild_start",
]


@dataclass(frozen=True, slots=True)
class StartCheckpoint:
    """A checkpoint to start from, and where it lies."""

    path: Path
    checkpoint: Checkpoint

    @property
    def title(self) -> str:
        """What the network is, for lines, tables and plots."""
        checkpoint = self.checkpoint
        fixed = f", fixed for {checkpoint.test_res} px" if checkpoint.command == "finetune" else ""
        return f"{checkpoint.model.name}, trained at {checkpoint.train_res} px{fixed}"

    @property
    def data(self) -> Path | None:
        """The data set it was trained on; None for the demo."""
        data = self.checkpoint.config.get("data")
        return Path(data) if data else None

    @property
    def val_fraction(self) -> float | None:
        """The share of that data set it was tested on."""
        return self.checkpoint.config.get("val_fraction")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A network by name with its constructor's arguments, and the weights file it starts from.

    Attributes:
        name: As `--model` takes it.
        weights: None for none.
        weights_config: What lies beside that file; None for nothing.
        model_arg: As ``--model-arg`` takes them: those given, or else those that lie beside the file.
    """

    name: str
    weights: WeightsFile | None
    weights_config: WeightsConfig | None
    model_arg: tuple[str, ...]


def find_start(
    config: FinetuneConfig | EvaluateConfig | AnalyzeConfig, command: str | None, reporter: Reporter
) -> StartCheckpoint | None:
    """Return the checkpoint a command starts from, or None if it names a network instead.

    Args:
        config: Its `checkpoint`, `model` and `weights` decide.
        command: Whose runs to choose the newest of, if neither is given; None for any.
        reporter: Shows which checkpoint it is.

    Raises:
        CheckpointError: If there is none, or it is of another network than ``--model``.
    """
    if config.checkpoint is None:
        if config.model is not None or config.weights is not None:
            return None
        if config.pretrained:
            raise ConfigError("--pretrained needs --model NAME")
    path = config.checkpoint or newest_run(command).path
    checkpoint = load_trained(path)
    if config.model not in {None, checkpoint.model.name}:
        raise CheckpointError(f"{path} is of {checkpoint.model.name}, not of --model {config.model}; leave --model out")
    if config.weights is not None or config.pretrained or config.model_arg:
        raise ConfigError("--weights, --pretrained and --model-arg do not go with a checkpoint; give --model instead")
    start = StartCheckpoint(path, checkpoint)
    reporter.line(f"checkpoint: {checkpoint_file(path)}, of epoch {checkpoint.epoch} ({start.title})")
    return start


def build_start(start: StartCheckpoint, config: NetworkConfig, dataset: Dataset, reporter: Reporter) -> Model:
    """Rebuild a checkpoint's network, after checking that it has the data's classes.

    Raises:
        CheckpointError: If the classes differ, or the tensors do not fit.
    """
    check_classes(start, dataset)
    return rebuild_start(start, config, reporter)


def check_classes(start: StartCheckpoint, dataset: Dataset) -> None:
    """Make sure that a checkpoint's network has the data's classes.

    Raises:
        CheckpointError: If they differ.
    """
    if start.checkpoint.classes != dataset.classes:
        raise _other_classes(start, dataset, "give the data it was trained on")


def _other_classes(start: StartCheckpoint, dataset: Dataset, advice: str) -> CheckpointError:
    known, found = _few(start.checkpoint.classes), _few(dataset.classes)
    return CheckpointError(f"{start.path} has the {known}, and {dataset.root} has the {found}; {advice}")


def rebuild_start(start: StartCheckpoint, config: NetworkConfig, reporter: Reporter) -> Model:
    """Rebuild a checkpoint's network, and say which images it takes.

    Raises:
        CheckpointError: If the tensors do not fit.
    """
    built = rebuild(start.checkpoint, start.path)
    return replace(built, data_config=data_config_of_start(start, config, reporter))


def data_config_of_start(start: StartCheckpoint, config: NetworkConfig, reporter: Reporter) -> DataConfig:
    """Return the images that a checkpoint's network takes, flags first, and say so."""
    data_config = start.checkpoint.data_config.from_checkpoint().given("flag", config.data_values())
    reporter.line(f"{data_config}")
    return data_config


def build_to_test(
    config: EvaluateConfig, start: StartCheckpoint | None, dataset: Dataset, reporter: Reporter
) -> tuple[str, Model, ClassMap]:
    """Build a network to test, and say what it is called and which of its outputs is which class of the data.

    The data may have a part of a checkpoint's classes, or those that ``--class-map`` finds among the outputs.

    Raises:
        ConfigError: If the map lacks a class of the data, or is of another network.
        CheckpointError: If there is no map and the checkpoint lacks one; or as `build_start` and `build_source`.
    """
    named, classes = str(config.class_map), dataset.classes
    names = read_names(config.class_map) if config.class_map is not None else None
    if start is None:
        outputs = names or classes
        spec, built = build_source(config, find_source(config, reporter), dataset, reporter, len(outputs))
        if names is not None and built.new_head:
            raise ConfigError(
                f"--class-map {named} names {len(names)} outputs, and the network of these weights has another number"
            )
        if built.new_head or (not config.pretrained and config.weights is None):
            advice = "; for data of a part of the network's classes give --class-map" if built.new_head else ""
            reporter.warn(f"the classifier has not been trained: only the timing means something{advice}")
        return spec.name, built, map_classes(outputs, classes, named)
    known = start.checkpoint.classes
    if names is None:
        if not set(classes) <= set(known):
            raise _other_classes(
                start, dataset, "give data of some of its classes, or say with --class-map which are which"
            )
        class_map = map_classes(known, classes, str(start.path))
    elif len(names) != len(known):
        raise ConfigError(
            f"--class-map {named} names {len(names)} outputs, and the network of {start.path} has {len(known)}"
        )
    else:
        class_map = map_classes(names, classes, named)
    return start.checkpoint.model.name, rebuild_start(start, config, reporter), class_map


def find_source(config: NetworkConfig, reporter: Reporter) -> ModelSource:
    """Read the weights file, if there is one, and say which network it is of where `--model` does not.

    Args:
        config: Its `model` and `weights` decide.
        reporter: Shows which network has been recognised.

    Raises:
        CheckpointError: If the file cannot be read, or its network is not recognised.
    """
    weights = read_weights(config.weights) if config.weights is not None else None
    beside = config_beside(config.weights) if config.weights is not None else None
    model_arg = config.model_arg or (beside.model_arg if beside else ())
    if config.model is not None:
        return ModelSource(config.model, weights, beside, model_arg)
    assert weights is not None, "callers have one of the two"
    if beside is not None and beside.model is not None:
        return ModelSource(beside.model, weights, beside, model_arg)
    reporter.line(f"looking for the network that {config.weights} is of; --model NAME saves the time")
    name = recognise(weights)
    reporter.line(
        f"recognised: {name}, by the names and shapes of {len(weights.state)} tensors; these do not say the images it "
        "takes and its constructor's arguments, for which there are --mean, --std, --interpolation, --crop-ratio, "
        "--model-arg"
    )
    return ModelSource(name, weights, beside, model_arg)


def build_source(
    config: NetworkConfig, source: ModelSource, dataset: Dataset, reporter: Reporter, num_outputs: int | None = None
) -> tuple[ModelSpec, Model]:
    """Build a network by name for the data's classes and load what ``--weights`` or ``--pretrained`` say.

    Args:
        config: What else is asked for.
        source: The network, and its weights file.
        dataset: The data.
        reporter: Shows what it is.
        num_outputs: Instead of one for each class of the data.

    Raises:
        ModelError: If it cannot be built.
        CheckpointError: If the weights are of another network.
    """
    spec = ModelSpec(source.name, num_outputs or len(dataset.classes), source.model_arg)
    model = build_model(spec, pretrained=config.pretrained)
    start = "pretrained weights" if config.pretrained else "random weights"
    new_head = model.new_head
    if source.weights is not None:
        new_head = load_into(model.network, source.weights.state, str(source.weights.path))
        start = f"weights of {source.weights}"
    if new_head:
        start += f", with a new head for {spec.num_classes} classes ({', '.join(new_head)})"
    reporter.line(f"network: {source.name}, {num_parameters(model.network) / 1e6:.2f} M parameters, {start}")
    return spec, Model(model.network, data_config_of_source(config, source, model, reporter), new_head)


def data_config_of_source(config: NetworkConfig, source: ModelSource, model: Model, reporter: Reporter) -> DataConfig:
    """Return the images that a network by name takes, and say so: flags first, then what its weights say.

    Weights count if they are loaded: the library's with ``--pretrained``, or those of a file with its configuration.

    Args:
        config: The flags.
        source: The network's name and its weights file.
        model: As it is built; it may be on the meta device.
        reporter: Shows the images, and what the weights ask for in vain.
    """
    own = config_of_pretrained(source.name, model.network) if config.pretrained else source.weights_config
    data_config = model.data_config
    if own is not None:
        data_config = data_config.given("weights", own.values)
    data_config = data_config.given("default", config.default_values()).given("flag", config.data_values())
    reporter.line(f"{data_config}")
    for note in () if own is None else own.notes:
        reporter.warn(note)
    return data_config


def _few(classes: tuple[str, ...]) -> str:
    """Say how many classes there are, and name some."""
    return f"{len(classes)} classes {', '.join(classes[:3])}{' …' if len(classes) > 3 else ''}"
