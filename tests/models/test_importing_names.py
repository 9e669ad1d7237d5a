"""A ResNet50 is found under any author's names; anything else is called what it is."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision import models

from firstread.models.architecture import Architecture, parameter_shapes
from firstread.models.data.film import DataError
from firstread.models.importing.resnet_names import resnet_of
from tests.models.importing_nets import narrow_resnet50, prefixed, resnet18


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return dict(narrow_resnet50().state_dict())


def without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "net.", "backbone.", "model.module.", "_orig_mod.", "my.own.resnet50."]
)
def test_whatever_stands_before_the_names_is_taken_off(prefix: str, state: dict[str, Tensor]) -> None:
    found = resnet_of(prefixed(state, prefix), "w")
    assert {name: tuple(t.shape) for name, t in found.tensors.items()} == parameter_shapes(Architecture(14, width=4))
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.tensors.items())
    assert (found.outputs, found.channels, found.prefix) == (14, 3, prefix)


@pytest.mark.parametrize("head", ["fc.0", "fc.1", "classifier", "classifier.1", "head.fc", "linear"])
def test_the_one_linear_layer_is_the_classifier_whatever_it_is_called(head: str, state: dict[str, Tensor]) -> None:
    for prefix, place in (("", head), ("backbone.", head), ("backbone.", f"backbone.{head}")):
        other = {name: t for name, t in prefixed(state, prefix).items() if ".fc." not in f".{name}"}
        other |= {f"{place}.weight": state["fc.weight"], f"{place}.bias": state["fc.bias"]}
        assert torch.equal(resnet_of(other, "w").tensors["fc.weight"], state["fc.weight"])


def test_children_of_a_resnet_in_a_sequence_get_their_names_back(state: dict[str, Tensor]) -> None:
    resnet = narrow_resnet50()
    network = nn.ModuleDict({"features": nn.Sequential(*list(resnet.children())[:-1]), "classifier": resnet.fc})
    found = resnet_of(dict(network.state_dict()), "w").tensors
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())


def test_half_precision_becomes_float32_and_a_head_without_bias_gets_zeros(state: dict[str, Tensor]) -> None:
    other = {name: t.to(torch.bfloat16) for name, t in without_counters(state).items() if name != "fc.bias"}
    found = resnet_of(other, "w").tensors
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert not found["fc.bias"].any()


def test_what_takes_no_part_in_an_answer_is_left_and_named(state: dict[str, Tensor]) -> None:
    found = resnet_of(
        {**prefixed(state, "model."), "criterion.pos_weight": torch.ones(14), "op_threshs": torch.full((14,), 0.5)}, "w"
    )
    assert found.ignored == ("criterion.pos_weight", "op_threshs")
    assert found.op_threshs == (0.5,) * 14


def test_one_channel_is_read_from_the_first_layer() -> None:
    assert resnet_of(dict(narrow_resnet50(18, channels=1).state_dict()), "w").channels == 1


def with_(state: dict[str, Tensor], **other: Tensor) -> dict[str, Tensor]:
    return {**state, **{name.replace("__", "."): tensor for name, tensor in other.items()}}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: dict(resnet18().state_dict()), "a ResNet18, not a ResNet50.*--arch onnx"),
        (lambda: dict(models.resnet34(num_classes=14).state_dict()), "a ResNet34"),
        (lambda: dict(timm.create_model("resnet50d", num_classes=14).state_dict()), "deep stem"),
        (lambda: dict(timm.create_model("resnext50_32x4d", num_classes=14).state_dict()), "wide ResNet or a ResNeXt"),
        (lambda: dict(timm.create_model("seresnet50", num_classes=14).state_dict()), "squeeze-and-excitation"),
        (lambda: dict(models.densenet121(num_classes=14).state_dict()), "looks like a DenseNet"),
        (lambda: dict(timm.create_model("vit_tiny_patch16_224", num_classes=14).state_dict()), "a vision transformer"),
        (lambda: dict(models.efficientnet_b0(num_classes=14).state_dict()), "EfficientNet"),
    ],
    ids=["resnet18", "resnet34", "resnet50d", "resnext", "seresnet", "densenet", "vit", "efficientnet"],
)
def test_weights_of_another_architecture_are_called_what_they_are(make: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        resnet_of(make(), "weights.pth")  # type: ignore[operator]


def test_a_resnet101_is_no_resnet50(state: dict[str, Tensor]) -> None:
    deeper = dict(state)
    for block in range(6, 23):
        deeper |= {n.replace("layer3.5", f"layer3.{block}"): t for n, t in state.items() if n.startswith("layer3.5")}
    with pytest.raises(DataError, match="a ResNet101"):
        resnet_of(deeper, "w")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: {n: t for n, t in s.items() if not n.startswith("layer3.2.bn2")},
            "4 of a ResNet50's .*layer3.2.bn2.bias",
        ),
        (lambda s: {n: t for n, t in s.items() if not n.startswith("layer4.2")}, "only 3-4-6-2 .* incomplete"),
        (lambda s: {n: t for n, t in s.items() if not n.startswith("fc")}, "no classifier"),
        (lambda s: {n: t for n, t in s.items() if "running" not in n}, "without batch statistics"),
        (lambda s: with_(s, fc__weight=torch.zeros(14, 77)), "reads 77 features"),
        (
            lambda s: with_(s, layer2__1__conv2__weight=torch.zeros(8, 8, 1, 1)),
            r"layer2.1.conv2.weight is \[8, 8, 1, 1\]",
        ),
        (
            lambda s: with_(s, conv1__weight=s["conv1.weight"] * float("nan")),
            "conv1.weight holds values that are not numbers",
        ),
        (lambda s: with_(s, bn1__running_var=-s["bn1.running_var"]), "negative variance"),
        (lambda s: with_(s, conv1__weight=s["conv1.weight"].to(torch.int8)), "stored as int8"),
        (lambda s: with_(s, conv1__weight=torch.zeros(4, 4, 7, 7)), "reads 4 channels"),
        (lambda s: with_(s, attention__gate=torch.zeros(3, 3, 3)), "belong to no ResNet50 .attention.gate"),
        (
            lambda s: with_(s, hidden__weight=torch.zeros(14, 128), out__weight=torch.zeros(14, 14)) | {},
            "tensors belong to no",
        ),
        (lambda s: {**prefixed(s, "student."), **prefixed(s, "teacher.")}, "holds 2 networks"),
        (lambda s: with_(s, conv1__weight=torch.zeros(1).expand(10**6, 10**6)), "a network whose first layer"),
        (lambda s: with_(s, fc__weight=torch.zeros(1).expand(10**7, 128)), "10000000 outputs"),
    ],
)
def test_weights_that_are_incomplete_or_odd_are_refused_by_name(
    change: object, said: str, state: dict[str, Tensor]
) -> None:
    with pytest.raises(DataError, match=said):
        resnet_of(change(dict(state)), "w")  # type: ignore[operator]


def test_a_head_of_several_layers_is_refused_since_weights_do_not_tell_what_stands_between(
    state: dict[str, Tensor],
) -> None:
    other = {name: tensor for name, tensor in state.items() if not name.startswith("fc")}
    other |= {"fc.0.weight": torch.zeros(512, 128), "fc.2.weight": torch.zeros(14, 512)}
    with pytest.raises(DataError, match=r"2 linear layers .fc.0, fc.2."):
        resnet_of(other, "w")
