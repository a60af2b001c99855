"""Networks by name: torchvision's by default, timm's as ``timm/NAME``.

Both libraries are imported where they are used: they are slow to import (torchvision 6 of a command's 9 s at the
start, with torch 2.15), and wrong flags or data should be found before.
"""

import ast
from dataclasses import dataclass, replace
from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from dali_fixres.errors import ModelError, did_you_mean
from dali_fixres.models.data_config import DataConfig
from dali_fixres.models.frechet_mapping import insert_mapping
from dali_fixres.models.head import takes_other_sizes
from dali_fixres.models.weights import load_into
from pipelines.plan.colour import Normalisation

__all__ = [
    "RESNEXT_48D",
    "TIMM_PREFIX",
    "Model",
    "ModelSpec",
    "build_model",
    "build_on_meta",
    "num_parameters",
    "parse_argument",
]

TIMM_PREFIX = "timm/"

RESNEXT_48D = "resnext101_32x48d"
"""The largest network of FixRes' authors (829 M parameters): a torchvision ResNet without a name in torchvision."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a network is built from.

    Attributes:
        name: A torchvision name, or ``timm/`` and a timm name.
        num_classes: Outputs of the classifier.
        args: ``KEY=VALUE`` arguments of the model's constructor.
        frechet: Layer after the `FrechetMapping`; empty if there is no mapping.
    """

    name: str
    num_classes: int
    args: tuple[str, ...] = ()
    frechet: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A network, the images it takes, and the names of the classifier's tensors if they start at zero."""

    network: nn.Module
    data_config: DataConfig
    new_head: tuple[str, ...] = ()

    @property
    def normalisation(self) -> Normalisation:
        """What its images are normalised by."""
        return self.data_config.normalisation


def build_model(spec: ModelSpec, *, pretrained: bool = False) -> Model:
    """Build a network with random weights, or with the library's pretrained ones.

    The classifier of a pretrained network starts at zero if the number of classes differs. A Fréchet mapping changes
    nothing until tensors are loaded into it. The images are the usual ones, with timm's mean and std for the network:
    what weights say about theirs is in `weights_config`.

    Raises:
        ModelError: If there is no such network, it refuses an argument, or its weights cannot be downloaded.
    """
    model = _build(spec, pretrained=pretrained)
    if spec.frechet:
        insert_mapping(model.network, spec.frechet)
    return model


def _build(spec: ModelSpec, *, pretrained: bool) -> Model:
    arguments = dict(parse_argument(text) for text in spec.args)
    try:
        if spec.name.startswith(TIMM_PREFIX):
            return _build_timm(spec, arguments, pretrained=pretrained)
        return _build_torchvision(spec, arguments, pretrained=pretrained)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelError(
            f"{spec.name} cannot be built with {' '.join(spec.args) or 'its defaults'}: {error}"
        ) from error
    except (URLError, OSError) as error:
        raise ModelError(
            f"the pretrained weights of {spec.name} cannot be downloaded ({error}); give a file with --weights"
        ) from error


def build_on_meta(spec: ModelSpec) -> Model:
    """Build a network on torch's ``meta`` device: its tensors have names and shapes, and take no memory.

    Raises:
        ModelError: As `build_model`.
    """
    try:
        with torch.device("meta"):
            return build_model(spec)
    except ModelError:
        return build_model(spec)  # torchvision's RegNets compute their sizes with tensors


def parse_argument(text: str) -> tuple[str, Any]:
    """Return the name and value of a ``KEY=VALUE`` argument; a value that is not a Python literal is a string.

    Raises:
        ModelError: If it has another form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise ModelError(f"--model-arg takes KEY=VALUE, as in pad_type=same; found {text!r}")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def _build_timm(spec: ModelSpec, arguments: dict[str, Any], *, pretrained: bool) -> Model:
    import timm  # noqa: PLC0415

    name = spec.name.removeprefix(TIMM_PREFIX)
    if not timm.is_model(name):
        raise ModelError(f"timm has no network {name!r}{did_you_mean(name, timm.list_models())}")
    arguments = {"pretrained": pretrained, "num_classes": spec.num_classes, **arguments}
    try:
        # Transformers take one image size unless they interpolate their position embeddings.
        network: nn.Module = timm.create_model(name, **{"dynamic_img_size": True, **arguments})
    except TypeError:  # it has no such argument; one of the user's that it lacks is refused again here
        network = timm.create_model(name, **arguments)
    config: Any = network.pretrained_cfg
    new_head: tuple[str, ...] = ()
    if pretrained and spec.num_classes != config["num_classes"]:
        timm_network: Any = network
        head = {id(tensor) for tensor in timm_network.get_classifier().parameters()}
        new_head = tuple(name for name, tensor in network.named_parameters() if id(tensor) in head)
        for name in new_head:
            nn.init.zeros_(network.get_parameter(name))  # as in `load_into`
    images = DataConfig(mean=tuple(config["mean"]), std=tuple(config["std"]))
    if config["fixed_input_size"]:  # which says that a size is built in, not that no other is taken
        images = _for_one_size(network, images, arguments.get("img_size", config["input_size"][1:]))
    return Model(network, images, new_head)


def _for_one_size(network: nn.Module, images: DataConfig, size: int | tuple[int, ...]) -> DataConfig:
    """Return the images of a network that is built for a size, which is its only one if it takes no other."""
    side = size if isinstance(size, int) else size[0]
    return images if takes_other_sizes(network, side) else replace(images, fixed_size=True, test_res=side)


def _build_torchvision(spec: ModelSpec, arguments: dict[str, Any], *, pretrained: bool) -> Model:
    if spec.name == RESNEXT_48D:
        network = _resnext101_32x48d(spec.num_classes, arguments, pretrained=pretrained)
        return Model(network, DataConfig())
    from torchvision import models as tv  # noqa: PLC0415

    # These two return several outputs in training, which the training loop does not take.
    excluded = ("inception_v3", "googlenet")
    names = [name for name in tv.list_models(module=tv) if name not in excluded]
    if spec.name not in names:
        import timm  # noqa: PLC0415

        hint = f"; timm has it as timm/{spec.name}" if timm.is_model(spec.name) else did_you_mean(spec.name, names)
        raise ModelError(f"torchvision has no classification network {spec.name!r}{hint}")
    network = tv.get_model(spec.name, weights=None, num_classes=spec.num_classes, **arguments)
    images = DataConfig()
    if isinstance(network, tv.VisionTransformer | tv.MaxVit):
        size = arguments.get("image_size", arguments.get("input_size", images.test_res))
        images = _for_one_size(network, images, size)
    if not pretrained:
        return Model(network, images)
    weights: Any = tv.get_model_weights(spec.name)
    new_head = load_into(network, weights.DEFAULT.get_state_dict(progress=False), f"torchvision's {spec.name}")
    return Model(network, images, new_head)


def _resnext101_32x48d(num_classes: int, arguments: dict[str, Any], *, pretrained: bool) -> nn.Module:
    if pretrained:
        raise ModelError("torchvision has no weights of resnext101_32x48d; give a file with --weights")
    from torchvision.models.resnet import Bottleneck, ResNet  # noqa: PLC0415

    sizes = {"groups": 32, "width_per_group": 48, "num_classes": num_classes}
    network: nn.Module = ResNet(Bottleneck, [3, 4, 23, 3], **sizes, **arguments)
    return network


def num_parameters(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
