"""Tensors under any author's names become a ResNet50 under torchvision's names, or it is said what they are instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from firstread.models.data.film import DataError

DEPTH = (3, 4, 6, 3)
"""Bottlenecks per stage of a ResNet50."""

MOST_OUTPUTS = 1000

_SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Places of a ResNet's children in ``nn.Sequential(*children)``."""

_IDLE = re.compile(
    r"(^|\.)(num_batches_tracked|pos_weight|op_threshs|n_averaged|class_weights?|mean|std)$"
    r"|(^|\.|_)(criterion|loss|loss_fn|auroc|auc|accuracy|acc|f1|metrics?|confmat)(\d*$|[._])"
)
"""Tensors that take no part in an answer: counters, weights of the loss, tallies, normalisation kept beside the net."""

_OTHERS: tuple[tuple[str, str], ...] = (
    (r"denseblock\d", "a DenseNet"),
    (r"(^|\.)blocks\.\d+\.attn\.|cls_token", "a vision transformer"),
    (r"layers\.\d+\.blocks\.\d+\.attn", "a Swin transformer"),
    (r"_blocks\.\d+\._|blocks\.\d+\.\d+\.conv_pw|features\.\d+\.\d+\.block\.", "an EfficientNet or MobileNet"),
    (r"stages\.\d+\.blocks\.\d+\.conv_dw|(^|\.)stages\.\d+\.\d+\.gamma", "a ConvNeXt"),
    (r"(^|\.)encoder\.layer\.\d+\.attention", "a transformer"),
    (r"features\.28\.weight|features\.24\.weight", "a VGG"),
    (r"Mixed_\d[a-z]", "an Inception network"),
)


_BASIC: Mapping[tuple[int, ...], str] = {(2, 2, 2, 2): "a ResNet18", (3, 4, 6, 3): "a ResNet34"}
_BOTTLENECKS: Mapping[tuple[int, ...], str] = {
    (3, 4, 23, 3): "a ResNet101",
    (3, 8, 36, 3): "a ResNet152",
    (2, 2, 2, 2): "a ResNet26",
}


@dataclass(frozen=True)
class ResNetWeights:
    """A ResNet50's weights under torchvision's names (``conv1.weight`` ... ``fc.bias``), float32, without counters.

    ``prefix``: what stood before each name. ``head``: the classifier's name in the file. ``ignored``: tensors that take
    no part in an answer. ``op_threshs``: operating points kept beside the weights, as torchxrayvision does.
    """

    tensors: Mapping[str, Tensor]
    width: int
    channels: int
    outputs: int
    prefix: str
    head: str
    ignored: tuple[str, ...]
    op_threshs: tuple[float, ...] = ()


def resnet_of(stored: Mapping[str, Tensor], source: str) -> ResNetWeights:
    """Find the one ResNet50 among the tensors of a file and give it torchvision's names.

    ``source``: what error messages call the file.

    Raises:
        DataError: another architecture, several networks, missing or unknown tensors, or values that are no numbers.
    """
    prefix, sequential = _place(stored, source)
    inside = {name.removeprefix(prefix): name for name in stored if name.startswith(prefix)}
    renamed: dict[str, str] = {}
    for short, name in inside.items():
        first, _, rest = short.partition(".")
        if sequential and first in _SEQUENTIAL:
            renamed[f"{_SEQUENTIAL[first]}.{rest}"] = name
        elif not sequential:
            renamed[short] = name
    width, channels = _refuse_other(stored, renamed, source)
    expected = _backbone(width, channels)
    missing = sorted(name for name in expected if name not in renamed)
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise DataError(
            f"{source}: {len(missing)} of a ResNet50's {len(expected)} tensors are missing ({names}): it is incomplete"
        )
    backbone = {renamed[name] for name in expected}
    head = _head(stored, backbone, prefix, 32 * width, source)
    bias = f"{head}.bias"
    taken = {*backbone, f"{head}.weight", bias}
    left = sorted(name for name in stored if name not in taken)
    unknown = [name for name in left if not _IDLE.search(name)]
    if unknown:
        names = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise DataError(
            f"{source}: {len(unknown)} tensors belong to no ResNet50 ({names}): this is another architecture; "
            "export it to ONNX and use --arch onnx"
        )
    outputs = int(stored[f"{head}.weight"].shape[0])
    shapes = {**expected, "fc.weight": (outputs, 32 * width), "fc.bias": (outputs,)}
    places = {**{name: renamed[name] for name in expected}, "fc.weight": f"{head}.weight", "fc.bias": bias}
    tensors: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name == "fc.bias" and bias not in stored:
            tensors[name] = torch.zeros(outputs)
            continue
        tensors[name] = _plain(stored[places[name]], shape, f"{source}: {places[name]}", "running_var" in name)
    thresholds = next((stored[name] for name in left if name.rpartition(".")[2] == "op_threshs"), None)
    return ResNetWeights(
        tensors=tensors,
        width=width,
        channels=channels,
        outputs=outputs,
        prefix=prefix,
        head=head,
        ignored=tuple(name for name in left if not name.endswith("num_batches_tracked")),
        op_threshs=_points(thresholds, outputs),
    )


def _place(stored: Mapping[str, Tensor], source: str) -> tuple[str, bool]:
    """What stands before ``conv1.weight``, and whether the layers are numbered as in ``nn.Sequential``."""
    named = {name.removesuffix("layer1.0.conv1.weight") for name in stored if name.endswith("layer1.0.conv1.weight")}
    numbered = {
        name.removesuffix("4.0.conv1.weight")
        for name in stored
        if name.endswith("4.0.conv1.weight") and f"{name.removesuffix('4.0.conv1.weight')}7.0.conv1.weight" in stored
    }
    # "layer4.0.conv1.weight" ends like a numbered one.
    numbered = {prefix for prefix in numbered if not prefix.endswith("layer")}
    places = [(prefix, False) for prefix in sorted(named)] + [(prefix, True) for prefix in sorted(numbered)]
    if len(places) > 1:
        names = ", ".join(repr(prefix) for prefix, _ in places)
        raise DataError(f"{source} holds {len(places)} networks ({names}): save the one that is meant alone")
    if places:
        return places[0]
    kind = next((kind for pattern, kind in _OTHERS if any(re.search(pattern, name) for name in stored)), None)
    what = (
        f"looks like {kind}" if kind else f"holds no layer1.0.conv1.weight (but {', '.join(sorted(stored)[:3])}, ...)"
    )
    raise DataError(f"{source} {what}, not like a ResNet50: export the network to ONNX and use --arch onnx")


def _refuse_other(stored: Mapping[str, Tensor], renamed: Mapping[str, str], source: str) -> tuple[int, int]:
    """Width and input channels; DataError for a relative of ResNet50."""

    def shape(name: str) -> tuple[int, ...]:
        return tuple(stored[renamed[name]].shape) if name in renamed else ()

    def refuse(kind: str) -> DataError:
        return DataError(f"{source} holds {kind}, not a ResNet50: export the network to ONNX and use --arch onnx")

    if "conv1.0.weight" in renamed:
        raise refuse("a ResNet with a deep stem (ResNet50-C, -D, -S or -T)")
    if any(".se." in name or ".fc1." in name for name in renamed if name.startswith("layer")):
        raise refuse("a ResNet with squeeze-and-excitation")
    depth = tuple(_depth(renamed, stage) for stage in (1, 2, 3, 4))
    if "layer1.0.conv3.weight" not in renamed:
        raise refuse(_BASIC.get(depth, "a ResNet of basic blocks"))
    if depth != DEPTH:
        if depth in _BOTTLENECKS or any(found > wanted for found, wanted in zip(depth, DEPTH, strict=True)):
            raise refuse(_BOTTLENECKS.get(depth, f"a ResNet of {'-'.join(map(str, depth))} bottlenecks"))
        raise DataError(
            f"{source} holds only {'-'.join(map(str, depth))} of a ResNet50's 3-4-6-3 bottlenecks: it is incomplete"
        )
    if "bn1.running_mean" not in renamed and "bn1.weight" in renamed:
        raise refuse("a ResNet without batch statistics (group normalisation?)")
    stem = shape("conv1.weight")
    if not stem:
        raise DataError(f"{source}: conv1.weight is missing: it is incomplete")
    if len(stem) != 4 or stem[2:] != (7, 7):
        raise refuse(f"a network whose first layer is {list(stem)} instead of [64, 3, 7, 7]")
    width = stem[0]
    if stem[1] not in (1, 3):
        raise DataError(f"{source}: its first layer reads {stem[1]} channels: networks for 1 or 3 can be imported")
    inner, grouped = shape("layer1.0.conv1.weight"), shape("layer1.0.conv2.weight")
    if inner[:1] != (width,):
        raise refuse("a wide ResNet or a ResNeXt")
    if grouped[:2] != (width, width):
        raise refuse("a ResNeXt (grouped convolutions)")
    return width, stem[1]


def _depth(renamed: Mapping[str, str], stage: int) -> int:
    numbers = {int(m.group(1)) for name in renamed if (m := re.match(rf"layer{stage}\.(\d+)\.conv1\.weight$", name))}
    return len(numbers)


def _backbone(width: int, channels: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor but the classifier's, as torchvision builds a ResNet50 of this width."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (width, channels, 7, 7)}

    def normalisation(name: str, size: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (size,)

    normalisation("bn1", width)
    inputs = width
    for stage, depth in enumerate(DEPTH):
        inner = width << stage
        for block in range(depth):
            prefix = f"layer{stage + 1}.{block}"
            for number, kernel in enumerate(((inner, inputs, 1, 1), (inner, inner, 3, 3), (4 * inner, inner, 1, 1)), 1):
                shapes[f"{prefix}.conv{number}.weight"] = kernel
                normalisation(f"{prefix}.bn{number}", kernel[0])
            if block == 0:
                shapes[f"{prefix}.downsample.0.weight"] = (4 * inner, inputs, 1, 1)
                normalisation(f"{prefix}.downsample.1", 4 * inner)
            inputs = 4 * inner
    return shapes


def _head(stored: Mapping[str, Tensor], backbone: set[str], prefix: str, features: int, source: str) -> str:
    """The name of the one linear layer that reads the pooled features."""
    matrices = [
        name.removesuffix(".weight")
        for name, tensor in stored.items()
        if name.endswith(".weight") and name not in backbone and tensor.ndim == 2 and not _IDLE.search(name)
    ]
    if not matrices:
        raise DataError(
            f"{source} holds no classifier (fc.weight): it is a network without a head; train one on it, "
            "or fetch the whole checkpoint"
        )
    if len(matrices) > 1:
        inside = [name for name in matrices if name == f"{prefix}fc"]
        if not inside:
            raise DataError(
                f"{source} holds {len(matrices)} linear layers ({', '.join(sorted(matrices)[:4])}): what stands "
                "between them cannot be read from weights; export the network to ONNX and use --arch onnx"
            )
        matrices = inside
    head = matrices[0]
    shape = tuple(stored[f"{head}.weight"].shape)
    if shape[1] != features:
        raise DataError(
            f"{source}: {head}.weight reads {shape[1]} features, a ResNet50 gives {features}: other pooling or another "
            "network"
        )
    if shape[0] > MOST_OUTPUTS:
        raise DataError(f"{source} has {shape[0]} outputs: no network for chest films has more than {MOST_OUTPUTS}")
    return head


def _plain(tensor: Tensor, shape: tuple[int, ...], what: str, positive: bool) -> Tensor:
    """A tensor as contiguous float32 of its own; the shape is looked at first, so that nothing huge is ever copied."""
    if tuple(tensor.shape) != shape:
        raise DataError(f"{what} is {list(tensor.shape)}, a ResNet50 needs {list(shape)}: these are other weights")
    if tensor.is_quantized or tensor.is_sparse or not tensor.is_floating_point() or tensor.is_meta:
        raise DataError(f"{what} is stored as {str(tensor.dtype).removeprefix('torch.')}: save the weights as float32")
    plain = tensor.detach().to("cpu", torch.float32).contiguous().clone()
    if not bool(torch.isfinite(plain).all()):
        raise DataError(f"{what} holds values that are not numbers: the training went wrong, or the file is broken")
    if positive and bool((plain < 0).any()):
        raise DataError(f"{what} holds a negative variance: the file is broken")
    return plain


def _points(stored: Tensor | None, outputs: int) -> tuple[float, ...]:
    if stored is None or tuple(stored.shape) != (outputs,) or not stored.is_floating_point():
        return ()
    values: npt.NDArray[np.float64] = stored.detach().double().numpy()
    return tuple(float(value) for value in values)
