"""What fine-tuning tunes: the classifier and as much before it as a policy says, the rest frozen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dali_fixres.config import Policy
from dali_fixres.errors import ModelError
from dali_fixres.models import Head, find_head, last_blocks
from pipelines.resolution import Resolution

__all__ = ["Tuned", "freeze_for_tuning", "tune"]


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """A network whose trunk is frozen.

    Attributes:
        names: Parameters that learn.
        num_parameters: How many numbers these are.
        set_mode: Puts the network into the mode of this stage: everything evaluates, but for what is tuned before the
            classifier.
    """

    names: tuple[str, ...]
    num_parameters: int
    set_mode: Callable[[], None]


def tune(network: nn.Module, resolution: Resolution, policy: Policy, num_blocks: int) -> tuple[Head, Tuned, str]:
    """Find a network's parts, freeze all but what `policy` tunes, and say what that is.

    Raises:
        ModelError: If it has not the parts that the policy tunes, or cannot take images of this size.
    """
    head = find_head(network, resolution)
    blocks: tuple[str, ...] = ()
    if policy == "last-block":
        blocks = last_blocks(network, resolution, head.classifier_name, num_blocks)
    tuned = freeze_for_tuning(network, head, policy, blocks)
    parts = ["all layers"] if policy == "all" else [head.classifier_name, *reversed(blocks)]
    if policy == "classifier+norm":
        parts.append(head.norm_name)
    if policy in {"classifier+norm", "classifier+norm-stats"} and isinstance(head.norm, _BatchNorm):
        parts.append(f"the running statistics of {head.norm_name}")
    return head, tuned, f"tuning {', '.join(parts)}: {tuned.num_parameters} parameters"


def freeze_for_tuning(network: nn.Module, head: Head, policy: Policy, blocks: Sequence[str] = ()) -> Tuned:
    """Freeze all of a network but what `policy` tunes.

    Args:
        network: Is changed.
        anatomy: Its parts.
        policy: What learns.
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
    # Modules whose statistics follow the stage's images, and modules whose parameters learn.
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

    tuned = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    return Tuned(tuple(name for name, _ in tuned), sum(p.numel() for _, p in tuned), set_mode)
