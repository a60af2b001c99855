import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import VisionTransformer

from dali_fixres.config import TrainableParts
from dali_fixres.errors import CheckpointError, ModelError
from dali_fixres.finetuning.trainable import freeze_for_tuning
from dali_fixres.models import Model, ModelSpec, build_model, find_head, load_into, read_weights
from dali_fixres.models.build import num_parameters
from dali_fixres.models.head import count_gmacs, run_once
from dali_fixres.models.weights import strip_prefixes
from pipelines.plan.colour import IMAGENET
from pipelines.resolution import Resolution

SMALL = Resolution(64)
"""The smallest size at which both networks have four positions before their pooling."""


def _resnet18(num_classes: int = 10) -> Model:
    return build_model(ModelSpec("resnet18", num_classes))


def _mobilenet() -> Model:
    return build_model(ModelSpec("timm/mobilenetv2_100", 7, ("pad_type=same",)))


class _Tiny(nn.Module):
    """A trunk with a norm before and one behind the pooling, and a classifier named as in ResNets."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.late_norm = nn.BatchNorm1d(4)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.pool(self.norm(self.conv(images)).relu()).flatten(1)
        logits: torch.Tensor = self.fc(self.late_norm(features))
        return logits


def _state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of a network's tensors."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _changed(before: dict[str, torch.Tensor], network: nn.Module) -> set[str]:
    """Return the names of tensors that are no longer what they were."""
    return {name for name, tensor in network.state_dict().items() if not torch.equal(before[name], tensor)}


# Building


def test_torchvision_network() -> None:
    """A plain name is torchvision's network with as many outputs as there are classes."""
    built = _resnet18(10)
    assert type(built.network).__module__ == "torchvision.models.resnet"
    assert built.normalisation == IMAGENET
    # 11,689,512 with 1000 classes, less 990 times 512 weights and a bias.
    assert num_parameters(built.network) == 11_689_512 - 990 * 513


def test_timm_network_with_an_argument() -> None:
    """timm/NAME is timm's network; KEY=VALUE reaches its constructor."""
    built = _mobilenet()
    assert type(built.network).__module__.startswith("timm.")
    padded = [type(module).__name__ for module in built.network.modules()]
    assert padded.count("Conv2dSame") == 5
    plain = build_model(ModelSpec("timm/mobilenetv2_100", 7)).network
    assert "Conv2dSame" not in {type(module).__name__ for module in plain.modules()}
    assert num_parameters(built.network) == 2_223_872 + 7 * 1281


def test_normalisation_is_the_networks_own() -> None:
    """A timm network trained with another mean brings it along."""
    with torch.device("meta"):
        built = build_model(ModelSpec("timm/vit_tiny_patch16_224", 3))
    assert (built.normalisation.mean, built.normalisation.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_arguments_are_values_or_words() -> None:
    """Numbers, truth values and tuples are read as such, anything else is a word."""
    network: Any = build_model(ModelSpec("resnet18", 3, ("width_per_group=64", "zero_init_residual=True"))).network
    assert network.layer4[1].bn2.weight.abs().max() == 0
    with pytest.raises(ModelError, match=r"cannot be built with zero_init=maybe: .*'zero_init'"):
        build_model(ModelSpec("resnet18", 3, ("zero_init=maybe",)))


@pytest.mark.parametrize("argument", ["pad_type", "=same", "pad type=same", ""])
def test_arguments_need_a_key_and_a_value(argument: str) -> None:
    """Another form of --model-arg is refused with the form expected and the text."""
    with pytest.raises(ModelError, match=rf"--model-arg takes KEY=VALUE, as in pad_type=same; found '{argument}'"):
        build_model(ModelSpec("resnet18", 3, (argument,)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5O", r"torchvision has no classification network 'resnet5O'; did you mean 'resnet50'\?"),
        ("mobilenetv2_100",
         r"torchvision has no classification network 'mobilenetv2_100'; timm has it as timm/mobilenetv2_100"),
        ("fasterrcnn_resnet50_fpn", r"torchvision has no classification network 'fasterrcnn_resnet50_fpn'"),
        ("timm/mobilenetv2_10", r"timm has no network 'mobilenetv2_10'; did you mean 'mobilenetv2_1[0-9]0'\?"),
        ("zzzzzz", r"torchvision has no classification network 'zzzzzz'$"),
        ("timm/", r"timm has no network ''$"),
    ],
)  # fmt: skip
def test_unknown_networks(name: str, message: str) -> None:
    """An unknown name is refused, with the nearest name there is."""
    with pytest.raises(ModelError, match=message):
        build_model(ModelSpec(name, 3))


def test_the_authors_largest_network() -> None:
    """resnext101_32x48d has the 829 M parameters of the paper, and no pretrained weights at torchvision."""
    with torch.device("meta"):
        network = build_model(ModelSpec("resnext101_32x48d", 1000)).network
        assert num_parameters(network) == 828_411_176
        with pytest.raises(ModelError, match=r"no weights of resnext101_32x48d; give a file with --weights"):
            build_model(ModelSpec("resnext101_32x48d", 1000), pretrained=True)


# Weights


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module." * 2])
def test_prefixes_are_stripped(prefix: str) -> None:
    """Prefixes of DistributedDataParallel and torch.compile are removed, however many."""
    state = {f"{prefix}{name}": tensor for name, tensor in _state(_Tiny()).items()}
    network = _Tiny()
    assert load_into(network, strip_prefixes(state), "x.pth") == ()
    assert torch.equal(network.conv.weight, state[f"{prefix}conv.weight"])


def test_a_prefix_of_some_names_stays() -> None:
    """A part of the network that is called module is not a wrapper."""
    state = {"module.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}
    assert set(strip_prefixes(state)) == {"module.weight", "fc.weight"}
    assert strip_prefixes({}) == {}


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_files_of_torch(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    """A .pth file is read bare or in the field's usual wrappers, beside whatever else it holds."""
    state = _state(_Tiny())
    named = OrderedDict((f"{prefix}{name}", tensor) for name, tensor in state.items())
    path = tmp_path / "weights.pth"
    torch.save({wrapper: named, "epoch": 3, "optimizer": {"lr": 0.1}} if wrapper else named, path)
    network = _Tiny()
    assert load_into(network, read_weights(path).state, str(path)) == ()
    assert _changed(state, network) == set()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_files_of_safetensors(tmp_path: Path, prefix: str) -> None:
    """A .safetensors file is read as well."""
    state = _state(_Tiny())
    path = tmp_path / "weights.safetensors"
    save_file({f"{prefix}{name}": tensor for name, tensor in state.items()}, path)
    network = _Tiny()
    assert load_into(network, read_weights(path).state, str(path)) == ()
    assert _changed(state, network) == set()


def test_a_new_head_is_announced() -> None:
    """If only the number of classes differs, all else is loaded and the classifier starts at zero."""
    state = _state(_Tiny(num_classes=1000))
    network = _Tiny(num_classes=5)
    assert load_into(network, state, "x.pth") == ("fc.bias", "fc.weight")
    assert _changed(state, network) == {"fc.bias", "fc.weight"}
    assert torch.equal(network.conv.weight, state["conv.weight"])
    assert not network.fc.weight.any()
    assert not network.fc.bias.any()


def test_a_new_head_of_resnet18() -> None:
    """The same with a network of 1000 classes from torchvision."""
    new_head = load_into(_resnet18(10).network, _resnet18(1000).network.state_dict(), "x.pth")
    assert new_head == ("fc.bias", "fc.weight")


def test_a_new_head_may_be_forbidden() -> None:
    """Without allow_new_head another number of classes is a mismatch like any other."""
    message = (
        r"^x\.pth does not fit this network: 2 of another shape: fc\.weight \(9, 4\) instead of \(5, 4\), fc\.bias"
    )
    with pytest.raises(CheckpointError, match=message):
        load_into(_Tiny(5), _state(_Tiny(9)), "x.pth", allow_new_head=False)


def test_old_files_without_batch_counters() -> None:
    """Files without batch norm's counters load as well."""
    state = {name: tensor for name, tensor in _state(_Tiny()).items() if not name.endswith("num_batches_tracked")}
    network = _Tiny()
    assert load_into(network, state, "x.pth") == ()
    assert torch.equal(network.conv.weight, state["conv.weight"])


def test_mismatches_are_listed() -> None:
    """Missing, unknown and misshapen tensors are counted and the first three named; nothing is loaded."""
    state = _state(_Tiny())
    for name in ("conv.weight", "conv.bias", "norm.weight", "norm.bias"):
        state[f"trunk.{name}"] = state.pop(name)
    state["late_norm.weight"] = torch.zeros(8)
    state["fc.weight"] = torch.zeros(5, 8)
    network = _Tiny()
    before = _state(network)
    with pytest.raises(CheckpointError) as caught:
        load_into(network, state, "x.pth")
    assert str(caught.value) == (
        "x.pth does not fit this network: 4 missing: conv.weight, conv.bias, norm.weight …; "
        "4 unknown: trunk.conv.weight, trunk.conv.bias, trunk.norm.weight …; "
        "2 of another shape: late_norm.weight (8,) instead of (4,), fc.weight (5, 8) instead of (5, 4); "
        "check --model and --model-arg"
    )
    assert _changed(before, network) == set()


def test_a_head_of_other_inputs_is_no_new_head() -> None:
    """A classifier with other inputs belongs to another network."""
    state = _state(_Tiny()) | {"fc.weight": torch.zeros(9, 8), "fc.bias": torch.zeros(9)}
    with pytest.raises(CheckpointError, match=r"2 of another shape: fc\.weight \(9, 8\) instead of \(5, 4\)"):
        load_into(_Tiny(), state, "x.pth")


class _Code:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_code_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    """A file that would run code when loaded is refused, and the code does not run."""
    path, marker = tmp_path / "weights.pth", tmp_path / "ran"
    if form == "torch":
        torch.save({"state_dict": _Code(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(_Code(marker), protocol=2))
    with pytest.raises(CheckpointError, match=r"weights\.pth is not a plain checkpoint: .*; save its state_dict with"):
        read_weights(path)
    assert not marker.exists()
    # The trap itself works: unpickled with trust, it leaves its mark.
    pickle.loads(pickle.dumps(_Code(marker)))  # noqa: S301
    assert marker.exists()


@pytest.mark.parametrize(
    "text",
    ["", "hello\n", "<html></html>", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
     "the weights are elsewhere\n", "epoch,loss\n1,2.5\n", "accuracy 77.1\n", "results\n", '{"state_dict": {}}'],
)  # fmt: skip
def test_text_is_refused(tmp_path: Path, text: str) -> None:
    """A text file is refused in one line that names it, whatever letter it begins with."""
    for name in ("weights.pth", "weights.safetensors"):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(CheckpointError) as caught:
            read_weights(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_cut_files_are_refused(tmp_path: Path, name: str) -> None:
    """Half of a file is refused with its name."""
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(_state(_Tiny()), path)
    else:
        save_file(_state(_Tiny()), path)
    content = path.read_bytes()
    for length in (9, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"weights\.(pth|safetensors)"):
            read_weights(path)


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
def test_missing_files(tmp_path: Path, name: str) -> None:
    """A file that is not there is named."""
    with pytest.raises(CheckpointError, match=rf"[nN]o such file.*{name}|{name}: No such file"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"state_dict": {"a": 1}}, torch.zeros(3), {"model": {}}])
def test_files_without_tensors(tmp_path: Path, content: object) -> None:
    """A file without a state dict is refused, with the places that were looked in."""
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"holds no state dict, neither bare nor under 'state_dict_ema'"):
        read_weights(path)


# Head and last norm


def test_head_of_resnet18() -> None:
    """ResNet-18's last norm is its last block's second, its classifier is fc."""
    network: Any = _resnet18().network
    head = find_head(network, SMALL)
    assert (head.norm_name, head.classifier_name) == ("layer4.1.bn2", "fc")
    assert head.norm is network.layer4[1].bn2
    assert head.classifier is network.fc


def test_head_of_mobilenet() -> None:
    """MobileNetV2's last norm before the pooling is bn2, its classifier is classifier."""
    network: Any = _mobilenet().network
    head = find_head(network, SMALL)
    assert (head.norm_name, head.classifier_name) == ("bn2", "classifier")
    assert head.norm is network.bn2
    assert head.classifier is network.classifier


@pytest.mark.parametrize("build", [_resnet18, _mobilenet])
def test_head_does_not_depend_on_the_resolution(build: Callable[[], Model]) -> None:
    """Images so small that one position is left before the pooling find the same parts as large ones."""
    network = build().network
    parts = [find_head(network, Resolution(side)) for side in (32, 64, 128)]
    assert len({(head.norm_name, head.classifier_name) for head in parts}) == 1
    assert parts[0].norm_name in {"layer4.1.bn2", "bn2"}


def test_head_of_a_transformer() -> None:
    """A transformer's last norm over all its tokens counts, its classifier is its head."""
    arguments = ("embed_dim=12", "depth=1", "num_heads=1", "img_size=32")
    head = find_head(build_model(ModelSpec("timm/vit_tiny_patch16_224", 3, arguments)).network, Resolution(32))
    assert (head.norm_name, head.classifier_name) == ("norm", "head")


def test_cost_of_resnet18() -> None:
    """At 224 px it is torchvision's published 1.81 billion; but for the classifier it grows with the area."""
    network = build_model(ModelSpec("resnet18", 1000)).network
    assert count_gmacs(network, Resolution(224)) == pytest.approx(1.81, abs=0.005)
    classifier = 512 * 1000 / 1e9
    small, large = (count_gmacs(network, Resolution(side)) - classifier for side in (64, 128))
    assert large == pytest.approx(4 * small)


def test_cost_of_attention() -> None:
    """Attention counts, fused as it may be: 16 patches of 3 x 16 x 16 px through one layer of width 8."""
    patches = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.Flatten(2), _Transposed())
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=8, batch_first=True)
    network = nn.Sequential(patches, layer)
    projections, products, feedforward = 16 * 4 * 8 * 8, 2 * 16 * 16 * 8, 16 * 2 * 8 * 8
    expected = 16 * 8 * 3 * 16 * 16 + projections + products + feedforward
    assert count_gmacs(network, Resolution(64)) == expected / 1e9


class _Transposed(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.transpose(1, 2)


def test_norms_behind_the_pooling_do_not_count() -> None:
    """A norm of pooled features is not the last norm before the pooling; the order is that of running."""
    head = find_head(_Tiny(), Resolution(32))
    assert (head.norm_name, head.classifier_name) == ("norm", "fc")
    assert find_head(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), Resolution(32)).norm is None


class _Residual(nn.Module):
    """A last block with a norm on either branch, of which the short one's runs first or last."""

    def __init__(self, *, short_runs_last: bool) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.short, self.short_norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)
        self.short_runs_last = short_runs_last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = images if self.short_runs_last else self.short_norm(self.short(images))
        deep = self.norm2(self.conv2(self.norm1(self.conv1(images)).relu_()))
        short = self.short_norm(self.short(images)) if self.short_runs_last else first
        logits: torch.Tensor = self.fc((deep + short).relu_().mean((2, 3)))
        return logits


@pytest.mark.parametrize("short_runs_last", [True, False])
def test_norm_of_a_residual_block_is_the_deep_branchs(short_runs_last: bool) -> None:
    """Where a block ends in two norms, the one behind more norms counts, whichever ran first."""
    head = find_head(_Residual(short_runs_last=short_runs_last), Resolution(32))
    assert (head.norm_name, head.classifier_name) == ("norm2", "fc")


def test_head_of_a_frozen_network() -> None:
    """The head is found in a frozen network as well, and no gradients are left behind."""
    network = _Residual(short_runs_last=True).requires_grad_(False)
    assert find_head(network, Resolution(32)).norm_name == "norm2"
    assert not any(parameter.requires_grad for parameter in network.parameters())
    find_head(network.requires_grad_(True), Resolution(32))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_networks_without_a_classifier() -> None:
    """A network without a linear or convolutional layer has nothing to tune."""
    network = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(ModelError, match=r"Sequential has no linear or convolutional classifier to tune"):
        find_head(network, Resolution(32))


def test_networks_of_one_size() -> None:
    """A network that cannot take images of a size is refused with size, reason and what it takes, in one line."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    assert run_once(network, Resolution(32)).shape == (1, 2)
    with pytest.raises(ModelError, match=r"^Sequential cannot take images of 64 px: [^\n]+; it takes 32 px alone$"):
        run_once(network, Resolution(64))


def torchvision_transformer(side: int) -> nn.Module:
    """Return a small vision transformer of torchvision's for one image size."""
    network: nn.Module = VisionTransformer(
        side, 32, num_layers=1, num_heads=2, hidden_dim=12, mlp_dim=12, num_classes=3
    )
    return network


def timm_transformer(side: int) -> nn.Module:
    """Return a small vision transformer of timm's, built for an image size."""
    small = ("embed_dim=12", "depth=1", "num_heads=1")
    return build_model(ModelSpec("timm/vit_tiny_patch16_224", 3, (*small, f"img_size={side}"))).network


@pytest.mark.parametrize("function", [run_once, count_gmacs])
@pytest.mark.parametrize("side", [224, 672])
def test_networks_that_can_be_built_for_another_size(function: Callable[..., object], side: int) -> None:
    """A transformer for one image size names it, and the argument that builds it for the size that is asked for."""
    network = torchvision_transformer(side)
    hint = "--model-arg image_size=256 builds it for 256 px and interpolates its position embeddings"
    with pytest.raises(ModelError, match=f"cannot take images of 256 px: .*; it takes {side} px alone; {hint}$"):
        function(network, Resolution(256))


@pytest.mark.parametrize("build", [torchvision_transformer, timm_transformer])
def test_position_embeddings_follow_the_image_size(build: Callable[[int], nn.Module]) -> None:
    """Weights of a transformer are loaded into one that is built for a larger image size, and it answers there."""
    state, larger = build(224).state_dict(), build(256)
    assert load_into(larger, state, "weights") == ()
    embedded = next(name for name in state if "pos_embed" in name)
    assert state[embedded].shape != larger.state_dict()[embedded].shape
    assert torch.equal(larger.state_dict()[embedded][:, 0], state[embedded][:, 0])  # the class token's stays
    assert run_once(larger, Resolution(256)).shape == (1, 3)
    with pytest.raises(CheckpointError, match="does not fit this network"):
        load_into(build(224), {**state, "more": torch.zeros(1)}, "weights")


@pytest.mark.parametrize("build", [torchvision_transformer, timm_transformer])
def test_position_embeddings_that_cannot_be_interpolated(build: Callable[[int], nn.Module]) -> None:
    """What makes a library's own function fail is said in one line, with the file and the next step."""
    state = build(224).state_dict()
    embedded = next(name for name in state if "pos_embed" in name)
    wrong = {**state, embedded: state[embedded][0, :-1]}
    said = r"^the position embeddings of x\.pth cannot be interpolated for this network \(\w+: [^\n]+\); check --model "
    with pytest.raises(CheckpointError, match=said):
        load_into(build(256), wrong, "x.pth")


def test_position_embeddings_that_are_no_square() -> None:
    """The library's reason is in the message."""
    state = torchvision_transformer(224).state_dict()
    wrong = {**state, "encoder.pos_embedding": state["encoder.pos_embedding"][:, :-1]}
    with pytest.raises(CheckpointError, match=r"\(ValueError: seq_length is not a perfect square!"):
        load_into(torchvision_transformer(256), wrong, "x.pth")


def test_transformers_take_multiples_of_their_patches() -> None:
    """Timm's transformers interpolate their position embeddings by themselves; odd sizes are refused."""
    arguments = ("embed_dim=12", "depth=1", "num_heads=1")
    network = build_model(ModelSpec("timm/vit_tiny_patch16_224", 3, arguments)).network
    assert run_once(network, Resolution(96)).shape == (1, 3)
    with pytest.raises(
        ModelError, match=r"cannot take images of 100 px: [^\n]+; it takes multiples of 16 px: 80, 96, 112$"
    ):
        run_once(network, Resolution(100))


@pytest.mark.parametrize("function", [run_once, find_head, count_gmacs])
@pytest.mark.parametrize("training", [True, False])
def test_a_forward_pass_leaves_mode_and_statistics(function: Callable[..., object], training: bool) -> None:
    """Neither weights nor statistics nor the mode change, and no hook stays behind."""
    network = _Tiny().train(training)
    before = _state(network)
    function(network, Resolution(32))
    assert _changed(before, network) == set()
    assert {module.training for module in network.modules()} == {training}
    assert not any(module._forward_hooks for module in network.modules())


def test_a_forward_pass_leaves_the_mode_of_every_part() -> None:
    """Parts in a mode of their own, as while fine-tuning, are in it afterwards."""
    network = _Tiny().eval()
    network.norm.train()
    run_once(network, Resolution(32))
    assert {name for name, module in network.named_modules() if module.training} == {"norm"}


def test_a_failed_forward_pass_leaves_the_mode() -> None:
    """After an error the network is in its former mode, without hooks."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)).train()
    with pytest.raises(ModelError):
        find_head(network, Resolution(64))
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


# Tuning


def _step(network: nn.Module, set_mode: Callable[[], None], side_px: int = 64) -> set[str]:
    """Take one optimiser step in the mode of the stage and return what changed."""
    before = _state(network)
    set_mode()
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1)
    images = torch.randn(4, 3, side_px, side_px, generator=torch.Generator().manual_seed(0))
    loss: Any = nn.functional.cross_entropy(network(images), torch.tensor([0, 1, 2, 1]))
    loss.backward()
    optimizer.step()
    return _changed(before, network)


STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize(
    ("parts", "norm_stats", "norm_parts"),
    [
        ("classifier", False, set()),
        ("classifier", True, STATISTICS),
        ("classifier+norm", True, STATISTICS | {"weight", "bias"}),
        ("classifier+norm", False, {"weight", "bias"}),
    ],
)
@pytest.mark.parametrize(
    ("build", "norm", "classifier"), [(_resnet18, "layer4.1.bn2", "fc"), (_mobilenet, "bn2", "classifier")]
)
def test_trainable_parts(
    build: Callable[[], Model],
    norm: str,
    classifier: str,
    parts: TrainableParts,
    norm_stats: bool,
    norm_parts: set[str],
) -> None:
    """Exactly the parts asked for are trained, and after a step exactly they and the statistics asked for differ."""
    network = build().network
    tuned = freeze_for_tuning(network, find_head(network, SMALL), parts, norm_stats=norm_stats)
    head = {f"{classifier}.weight", f"{classifier}.bias"}
    learning = head | {f"{norm}.{part}" for part in norm_parts - STATISTICS}
    assert set(tuned.names) == learning
    parameters = dict(network.named_parameters())
    assert {name for name, parameter in parameters.items() if parameter.requires_grad} == learning
    assert tuned.num_parameters == sum(parameters[name].numel() for name in learning)
    assert _step(network, tuned.set_mode) == head | {f"{norm}.{part}" for part in norm_parts}


def test_number_of_tuned_parameters() -> None:
    """ResNet-18 with ten classes tunes 512 * 10 weights, 10 biases and two times 512 numbers of its norm."""
    network = _resnet18().network
    head = find_head(network, SMALL)
    assert freeze_for_tuning(network, head, "classifier+norm").num_parameters == 5120 + 10 + 1024
    assert freeze_for_tuning(network, head, "classifier").num_parameters == 5120 + 10


@pytest.mark.parametrize("norm_stats", [True, False])
@pytest.mark.parametrize("parts", ["classifier", "classifier+norm"])
def test_mode_of_the_network(parts: TrainableParts, norm_stats: bool) -> None:
    """Everything is in evaluation mode but the norm whose statistics follow, also after an evaluation in between."""
    network = _Tiny()
    tuned = freeze_for_tuning(network, find_head(network, Resolution(32)), parts, norm_stats=norm_stats)
    for _ in range(2):
        network.train()
        tuned.set_mode()
        expected = {"norm"} if norm_stats else set()
        assert {name for name, module in network.named_modules() if module.training} == expected


@pytest.mark.parametrize(("parts", "norm_stats"), [("classifier", True), ("classifier+norm", False)])
def test_networks_without_a_norm(parts: TrainableParts, norm_stats: bool) -> None:
    """Fine-tuning of a norm is refused where there is none, with the flags that work."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    head = find_head(network, Resolution(32))
    with pytest.raises(ModelError, match=r"no norm before its pooling .*--trainable classifier with --no-norm-stats"):
        freeze_for_tuning(network, head, parts, norm_stats=norm_stats)
    tuned = freeze_for_tuning(network, head, "classifier", norm_stats=False)
    assert _step(network, tuned.set_mode, side_px=32) == {"1.weight", "1.bias"}
