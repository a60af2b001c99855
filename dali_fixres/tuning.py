"""What FixRes tunes: the classifier and the last norm before the pooling, the rest frozen."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from dali_fixres.config import Policy
from dali_fixres.errors import ModelError
from dali_fixres.models import Anatomy

__all__ = ["Tuned", "freeze_for_tuning"]


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """A network whose trunk is frozen.

    Attributes:
        names: Parameters that learn.
        num_parameters: How many numbers these are.
        set_mode: Puts the network into the mode of this stage: everything evaluates, but for the tuned norm.
    """

    names: tuple[str, ...]
    num_parameters: int
    set_mode: Callable[[], None]


def freeze_for_tuning(network: nn.Module, anatomy: Anatomy, policy: Policy) -> Tuned:
    """Freeze all of a network but what `policy` tunes.

    Raises:
        ModelError: If the policy needs a norm before the pooling and the network has none.
    """
    norm = anatomy.norm
    if policy != "classifier" and norm is None:
        raise ModelError(
            f"{type(network).__name__} has no norm before its pooling, which --policy {policy} tunes; "
            "use --policy classifier"
        )
    network.requires_grad_(False)
    anatomy.classifier.requires_grad_(True)
    if norm is not None and policy == "classifier+norm":
        norm.requires_grad_(True)

    def set_mode() -> None:
        network.eval()
        if norm is not None and policy != "classifier":
            norm.train()

    learning = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    return Tuned(tuple(name for name, _ in learning), sum(p.numel() for _, p in learning), set_mode)
