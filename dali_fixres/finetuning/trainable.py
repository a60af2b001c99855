"""What fine-tuning trains: the classifier and as much before it as is asked for; the rest is frozen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dali_fixres.config import FinetuneConfig, FrechetSettings, SgdSettings, TrainableParts
from dali_fixres.errors import ModelError
from dali_fixres.finetuning.features import check_features
from dali_fixres.models import DataConfig, Head, find_head, last_blocks
from dali_fixres.runtime.data import Data
from dali_fixres.runtime.distributed import World
from dali_fixres.training.setup import training_plan
from pipelines import Schedule, TrainPlan
from pipelines.resolution import Phase

__all__ = ["Trainable", "freeze_for_tuning", "freeze_network", "tuning_plan"]


@dataclass(frozen=True, slots=True, eq=False)
class Trainable:
    """A network whose trunk is frozen.

    Attributes:
        names: Trained parameters.
        num_parameters: How many numbers these are.
        set_mode: Puts the network into evaluation mode, but for what is tuned before the
            classifier.
        summary: What is trained, in words.
    """

    names: tuple[str, ...]
    num_parameters: int
    set_mode: Callable[[], None]
    summary: str


def freeze_network(config: FinetuneConfig, network: nn.Module) -> tuple[Head, Trainable]:
    """Freeze all of a network but what is trained at the test resolution; return its parts, and what is trained.

    Raises:
        ModelError: If it cannot take images of this size, lacks the parts to train, or has no features to cache.
    """
    resolution, settings = config.test_resolution, config.settings
    head = find_head(network, resolution)
    if not isinstance(settings, SgdSettings):
        check_features(network, head.classifier, resolution)
    if isinstance(settings, FrechetSettings):
        trainable = freeze_for_tuning(network, head, "classifier", norm_stats=False)
        return head, replace(trainable, summary=f"mapping what reaches {head.classifier_name}; nothing is trained")
    blocks: tuple[str, ...] = ()
    if isinstance(settings, SgdSettings) and settings.trainable == "last-blocks":
        blocks = last_blocks(network, resolution, head.classifier_name, settings.num_blocks)
    return head, freeze_for_tuning(network, head, settings.trainable, norm_stats=settings.norm_stats, blocks=blocks)


def freeze_for_tuning(
    network: nn.Module, head: Head, parts: TrainableParts, *, norm_stats: bool = True, blocks: Sequence[str] = ()
) -> Trainable:
    """Freeze all of a network but the parts that are trained.

    Args:
        network: Is changed.
        head: Its classifier and its last norm.
        parts: What is trained.
        norm_stats: Whether the running statistics of the last norm follow the batches, unless more than it is trained.
        blocks: Names of the last blocks, from `last_blocks`; for ``last-blocks``.

    Raises:
        ModelError: If the last norm is needed and the network has none before the pooling.
    """
    norm = head.norm
    if norm is None and (parts == "classifier+norm" or (parts == "classifier" and norm_stats)):
        raise ModelError(
            f"{type(network).__name__} has no norm before its pooling to fine-tune; use --trainable classifier with "
            "--no-norm-stats"
        )
    # Modules whose running statistics follow the batches, and modules whose parameters are trained.
    following = [network.get_submodule(name) for name in blocks]
    learning = [head.classifier, *following]
    if parts == "all":
        following, learning = [network], [network]
    elif norm is not None and parts in {"classifier", "classifier+norm"}:
        following = [norm] if norm_stats else []
        learning += [norm] if parts == "classifier+norm" else []
    network.requires_grad_(False)
    for module in learning:
        module.requires_grad_(True)

    def set_mode() -> None:
        network.eval()
        for module in following:
            module.train()

    trained = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    num_parameters = sum(parameter.numel() for _, parameter in trained)
    names = ["all layers"] if parts == "all" else [head.classifier_name, *reversed(blocks)]
    if parts == "classifier+norm":
        names.append(head.norm_name)
    if norm in following and isinstance(norm, _BatchNorm):
        names.append(f"the running statistics of {head.norm_name}")
    summary = f"tuning {', '.join(names)}: {num_parameters} parameters"
    return Trainable(tuple(name for name, _ in trained), num_parameters, set_mode, summary)


def tuning_plan(config: FinetuneConfig, data_config: DataConfig, data: Data, world: World) -> TrainPlan:
    """Plan the batches of a fine-tuning, all at the test resolution."""
    schedule = Schedule((Phase(0, config.test_res),), config.ratio)
    return training_plan(config, data_config, data, config.augmentation, schedule, world)
