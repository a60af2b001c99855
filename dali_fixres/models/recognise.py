"""Finds the network of a weights file: by the name in the file, or by the names and shapes of its tensors."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dali_fixres.errors import CheckpointError, ModelError
from dali_fixres.models.build import RESNEXT_48D, TIMM_PREFIX, ModelSpec, build_on_meta
from dali_fixres.models.weights import Fit, WeightsFile, compare

__all__ = ["recognise"]

NUM_CLASSES = 1000
"""Of the networks compared; a file with another number of classes fits as well."""


@dataclass(frozen=True, slots=True)
class _Family:
    """Modules of torchvision and timm whose networks name their tensors alike."""

    torchvision: tuple[str, ...] = ()
    timm: tuple[str, ...] = ()


FAMILIES = {
    "layer0.conv1.weight": _Family(timm=("senet",)),
    "layer1.0.conv1.weight": _Family(("resnet",), ("resnet", "senet")),
    "cell_stem_0.conv_1x1.conv.weight": _Family(timm=("pnasnet",)),
    "conv2d_1a.conv.weight": _Family(timm=("inception_resnet_v2",)),
    "conv_stem.weight": _Family(timm=("efficientnet", "mobilenetv3")),
    "features.0.0.weight": _Family(("convnext", "efficientnet", "mobilenetv2", "mobilenetv3")),
    "features.0.weight": _Family(("alexnet", "vgg")),
    "features.conv0.weight": _Family(("densenet",)),
    "stem.0.weight": _Family(timm=("convnext",)),
    "patch_embed.proj.weight": _Family(timm=("vision_transformer", "deit")),
    "conv_proj.weight": _Family(("vision_transformer",)),
}
"""By a tensor that all networks of the family have; the first that is in the file counts."""


def recognise(weights: WeightsFile) -> str:
    """Return the name of a weights file's network, as `--model` takes it.

    If networks of torchvision and of timm fit, torchvision's is returned.

    Raises:
        CheckpointError: If no network fits, or several of one library do; the message names them, or the nearest.
    """
    if weights.arch is not None:
        for name in (weights.arch, TIMM_PREFIX + weights.arch):
            fit = _fit(name, weights)
            if fit is not None and fit.holds:
                return name
    family = next((family for marker, family in FAMILIES.items() if marker in weights.state), _Family())
    likeness: dict[str, float] = {}
    for names in (_torchvision(family), _timm(family, weights)):
        fits = []
        for name in names:
            fit = _fit(name, weights)
            if fit is None:
                continue
            likeness[name] = fit.num_same / (fit.num_same + len(fit.missing) + len(fit.unknown) + len(fit.shapes))
            if fit.holds:
                fits.append(name)
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise CheckpointError(
                f"{weights.path} fits {len(fits)} networks alike: {', '.join(fits)}; say which with --model"
            )
    near = sorted(likeness, key=lambda name: -likeness[name])[:3]
    close = f" (nearest: {', '.join(f'{name}, {likeness[name]:.0%}' for name in near)})" if near else ""
    raise CheckpointError(f"{weights.path} is of no network that is recognised{close}; say which with --model NAME")


def _fit(name: str, weights: WeightsFile) -> Fit | None:
    """Compare a file with a network; None if there is no such network."""
    try:
        return compare(build_on_meta(ModelSpec(name, NUM_CLASSES)).network.state_dict(), weights.state)
    except ModelError:
        return None


def _torchvision(family: _Family) -> Iterator[str]:
    from torchvision import models as tv  # noqa: PLC0415 - slow to import, as in build.py

    for name in tv.list_models(module=tv):
        if tv.get_model_builder(name).__module__.rpartition(".")[2] in family.torchvision:
            yield name
    if "resnet" in family.torchvision:
        yield RESNEXT_48D


def _timm(family: _Family, weights: WeightsFile) -> Iterator[str]:
    """Yield timm's networks of a family; of transformers only those with the file's patch and image sizes."""
    import timm  # noqa: PLC0415

    patterns, embedding = ["*"], weights.state.get("pos_embed")
    if "patch_embed.proj.weight" in weights.state and embedding is not None and embedding.ndim == 3:
        patch = weights.state["patch_embed.proj.weight"].shape[-1]
        # One or two tokens come before those of the patches. Not all names contain the image size.
        patterns = [f"*_patch{patch}*_{math.isqrt(embedding.shape[1]) * patch}*", f"*_patch{patch}*"]
    named = [[name for module in family.timm for name in timm.list_models(each, module=module)] for each in patterns]
    yield from (TIMM_PREFIX + name for name in next(filter(None, named), []))
