"""What fine-tuning trains: the classifier and as much before it as is asked for; the rest is frozen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dali_fixres.config import FinetuneConfig, Policy
from dali_fixres.errors import ModelError
from dali_fixres.finetuning.features import check_features
from dali_fixres.models import Head, find_head, last_blocks
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
    resolution, policy = config.test_resolution, config.tuned
    head = find_head(network, resolution)
    if config.chosen in {"one-pass", "frechet"}:
        check_features(network, head.classifier, resolution)
    blocks: tuple[str, ...] = ()
    if policy == "last-block":
        blocks = last_blocks(network, resolution, head.classifier_name, config.blocks)
    trainable = freeze_for_tuning(network, head, policy, blocks)
    if config.chosen == "frechet":
        return head, replace(trainable, summary=f"mapping what reaches {head.classifier_name}; nothing is trained")
    return head, trainable


def freeze_for_tuning(network: nn.Module, head: Head, policy: Policy, blocks: Sequence[str] = ()) -> Trainable:
    """Freeze all of a network but what `policy` tunes.

    Args:
        network: Is changed.
        head: Its parts.
        policy: What is trained.
        blocks: Names of the last blocks, from `last_blocks`; for the policy ``last-block``.

    Raises:
        ModelError: If the policy needs a norm before the pooling and the network has none.
    """
    norm = head.norm
    with_norm = policy in {"classifier+norm-stats", "classifier+norm"}
    if with_norm and norm is None:
        raise ModelError(
            f"{type(network).__name__} has no norm before its pooling, which --policy {policy} tunes; "
            "use --policy classifier"
        )
    # Modules whose running statistics follow the batches, and modules whose parameters are trained.
    following = [network.get_submodule(name) for name in blocks]
    learning = [head.classifier, *following]
    if policy == "all":
        following, learning = [network], [network]
    elif with_norm and norm is not None:
        following = [norm]
        learning += [norm] if policy == "classifier+norm" else []
    network.requires_grad_(False)
    for module in learning:
        module.requires_grad_(True)

    def set_mode() -> None:
        network.eval()
        for module in following:
            module.train()

    trained = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    num_parameters = sum(parameter.numel() for _, parameter in trained)
    parts = ["all layers"] if policy == "all" else [head.classifier_name, *reversed(blocks)]
    if policy == "classifier+norm":
        parts.append(head.norm_name)
    if with_norm and isinstance(norm, _BatchNorm):
        parts.append(f"the running statistics of {head.norm_name}")
    summary = f"tuning {', '.join(parts)}: {num_parameters} parameters"
    return Trainable(tuple(name for name, _ in trained), num_parameters, set_mode, summary)


def tuning_plan(config: FinetuneConfig, data: Data, world: World) -> TrainPlan:
    """Plan the batches of a fine-tuning, all at the test resolution."""
    schedule = Schedule((Phase(0, config.test_res),), config.ratio)
    return training_plan(config, data, config.augmentation, schedule, world)
