"""What shape a bundle's network has: enough to build it, and to refuse weights that do not fit, without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

EXPANSION = 4
"""A bottleneck puts out four times its inner channels."""

POOLINGS = ("mean", "log_mean_exp")


@dataclass(frozen=True)
class Architecture:
    """What must be known to build the network that a bundle's weights fit.

    ``name``: the only family known is ``resnet50``. ``outputs``: number of labels. ``width``: channels of the first
    stage; 64 is ResNet50, less is for tests. ``blocks``: bottlenecks per stage; (3, 4, 6, 3) is ResNet50.
    ``dilate_last``: the last stage keeps its resolution (torchvision's ``replace_stride_with_dilation``), so that an
    activation map has one cell per 16 pixels instead of 32.
    ``pooling``: how activations become a logit: ``mean`` as torchvision has it, or ``log_mean_exp``, a soft maximum in
    which a small lesion on a large film still counts.
    ``mean``, ``std``: normalisation per input channel, done inside the network.
    """

    outputs: int
    name: str = "resnet50"
    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    dilate_last: bool = True
    pooling: str = "mean"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            ValueError: says which value is wrong.
        """
        if self.name != "resnet50":
            raise ValueError(f"network {self.name!r} is unknown: this version builds resnet50")
        if len(self.blocks) != 4 or min(self.blocks) < 1:
            raise ValueError(f"network.blocks is {self.blocks}: four stages with at least one block each are needed")
        if not 4 <= self.width <= 128:
            raise ValueError(f"network.width is {self.width}: it must lie between 4 and 128")
        if self.pooling not in POOLINGS:
            raise ValueError(f"network.pooling is {self.pooling!r}: it must be one of {', '.join(POOLINGS)}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError("network.mean and network.std need three values each, those of std above 0")

    @property
    def features(self) -> int:
        """Channels of the last stage."""
        return self.width * 8 * EXPANSION

    @property
    def stride(self) -> int:
        """Pixels of the square per cell of an activation map."""
        return 16 if self.dilate_last else 32


@dataclass(frozen=True)
class Bottleneck:
    """One residual block: its place in the state dict, channels, and stride and dilation of its 3 x 3 convolution."""

    prefix: str
    inputs: int
    inner: int
    stride: int
    dilation: int
    projects: bool

    @property
    def outputs(self) -> int:
        """Channels that the block puts out."""
        return self.inner * EXPANSION


def bottlenecks(architecture: Architecture) -> Iterator[Bottleneck]:
    """The blocks in order, as torchvision's ``ResNet._make_layer`` builds them."""
    inputs = architecture.width
    for stage, depth in enumerate(architecture.blocks):
        inner = architecture.width << stage
        dilated = stage == 3 and architecture.dilate_last
        for block in range(depth):
            stride = 2 if block == 0 and stage > 0 and not dilated else 1
            dilation = 2 if dilated and block > 0 else 1
            yield Bottleneck(f"layer{stage + 1}.{block}", inputs, inner, stride, dilation, projects=block == 0)
            inputs = inner * EXPANSION


def parameter_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the weights must hold, under torchvision's names."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)

    def normalisation(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)

    convolution("conv1", architecture.width, 3, 7)
    normalisation("bn1", architecture.width)
    for block in bottlenecks(architecture):
        convolution(f"{block.prefix}.conv1", block.inner, block.inputs, 1)
        normalisation(f"{block.prefix}.bn1", block.inner)
        convolution(f"{block.prefix}.conv2", block.inner, block.inner, 3)
        normalisation(f"{block.prefix}.bn2", block.inner)
        convolution(f"{block.prefix}.conv3", block.outputs, block.inner, 1)
        normalisation(f"{block.prefix}.bn3", block.outputs)
        if block.projects:
            convolution(f"{block.prefix}.downsample.0", block.outputs, block.inputs, 1)
            normalisation(f"{block.prefix}.downsample.1", block.outputs)
    shapes["fc.weight"] = (architecture.outputs, architecture.features)
    shapes["fc.bias"] = (architecture.outputs,)
    return shapes
