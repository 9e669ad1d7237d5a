"""What shape a bundle's network has: enough to build it, and to refuse weights that do not fit, without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from firstread.models.metadata import METADATA, METADATA_UNITS, encoded_length

EXPANSION = 4
"""A bottleneck puts out four times its inner channels."""

MOST_BLOCKS, MOST_HIDDEN = 64, 8192

FAMILIES = ("resnet50", "onnx")
POOLINGS = ("mean", "log_mean_exp")
HEADS = ("linear", "dense")
OUTPUTS = ("sigmoid", "softmax")
GIVES = ("logits", "probabilities")


@dataclass(frozen=True)
class Graph:
    """How the graph of an ONNX file is fed and read.

    ``input``: its only input, [N, C, S, S]. ``output``: the output to read, [N, K]. ``columns``: for each label, in the
    order of the labels, its column of that output. ``gives``: ``logits``, or ``probabilities`` when the graph ends in
    a sigmoid or softmax of its own. ``maps``: the graph ends in an average over its features and one linear layer, so
    that class activation maps can be had of it (found out when the bundle is written).
    """

    input: str
    output: str
    columns: tuple[int, ...]
    gives: str = "logits"
    maps: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: says which value is wrong.
        """
        if not self.input or not self.output:
            raise ValueError("network.graph needs the names of the graph's input and output")
        if self.gives not in GIVES:
            raise ValueError(f"network.graph.gives is {self.gives!r}: it must be one of {', '.join(GIVES)}")
        if not self.columns or min(self.columns) < 0 or len(set(self.columns)) != len(self.columns):
            raise ValueError("network.graph.columns must give each label a column of its own, counted from 0")


@dataclass(frozen=True)
class Architecture:
    """What must be known to build the network that a bundle's weights fit.

    ``outputs``: number of labels. ``name``: ``resnet50``, or ``onnx`` for a graph from elsewhere (then ``graph`` says
    how it is used, and of what follows only ``output``, ``input_channels``, ``mean`` and ``std`` count).
    ``width``: channels of the first stage; 64 is ResNet50, less is for tests. ``blocks``: bottlenecks per stage;
    (3, 4, 6, 3) is ResNet50.
    ``dilate_last``: the last stage keeps its resolution (torchvision's ``replace_stride_with_dilation``), so that an
    activation map has one cell per 16 pixels instead of 32.
    ``pooling``: how activations become a logit: ``mean`` as torchvision has it, or ``log_mean_exp``, a soft maximum in
    which a small lesion on a large film still counts.
    ``mean``, ``std``: normalisation per input channel, done inside the network. ``input_channels``: 3 (the grey film
    three times) or 1.
    ``head``: ``linear``, or ``dense``: all features flattened, then dense layers of ``hidden`` with ReLU, then the
    outputs; such a network is tied to squares of ``input_size`` pixels, has no pooling and no map.
    ``output``: how logits become probabilities: ``sigmoid``, each label for itself, or ``softmax`` over all of them.
    ``metadata``: what is known of the film besides its pixels and is fed in, out of ``age``, ``sex``, ``view``: through
    a small network of its own whose outputs are added to the logits, so that a map stays what it is.
    """

    outputs: int
    name: str = "resnet50"
    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    dilate_last: bool = True
    pooling: str = "mean"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    input_channels: int = 3
    head: str = "linear"
    hidden: tuple[int, ...] = (512, 512)
    output: str = "sigmoid"
    metadata: tuple[str, ...] = ()
    input_size: int = 0
    graph: Graph | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            ValueError: says which value is wrong.
        """
        if self.name not in FAMILIES:
            raise ValueError(f"network {self.name!r} is unknown: this version runs {' and '.join(FAMILIES)}")
        if self.input_channels not in (1, 3):
            raise ValueError(f"network.input_channels is {self.input_channels}: it must be 1 or 3")
        if len(self.mean) != self.input_channels or len(self.std) != self.input_channels or min(self.std) <= 0:
            raise ValueError(
                f"network.mean and network.std need a value per input channel ({self.input_channels} each), "
                "those of std above 0"
            )
        if self.output not in OUTPUTS:
            raise ValueError(f"network.output is {self.output!r}: it must be one of {', '.join(OUTPUTS)}")
        unknown = [name for name in self.metadata if name not in METADATA]
        if unknown or len(set(self.metadata)) != len(self.metadata):
            said = f"{unknown[0]!r} in it is unknown" if unknown else "a name stands twice in it"
            raise ValueError(f"network.metadata: {said}: use names out of {', '.join(METADATA)}, each once")
        if self.name == "onnx":
            self._check_graph()
        else:
            self._check_resnet()

    def _check_graph(self) -> None:
        if self.graph is None:
            raise ValueError("network.graph is missing: an ONNX file needs the names of its input and output")
        if len(self.graph.columns) != self.outputs:
            raise ValueError(
                f"network.graph.columns names {len(self.graph.columns)} columns, the bundle has {self.outputs} labels"
            )
        if self.metadata:
            raise ValueError("network.metadata: an ONNX file is given the film alone: leave it out")

    def _check_resnet(self) -> None:
        if self.graph is not None:
            raise ValueError("network.graph belongs to ONNX files: leave it out for resnet50")
        if len(self.blocks) != 4 or min(self.blocks) < 1 or max(self.blocks) > MOST_BLOCKS:
            raise ValueError(f"network.blocks is {self.blocks}: four stages of 1 to {MOST_BLOCKS} blocks are needed")
        if not 4 <= self.width <= 128:
            raise ValueError(f"network.width is {self.width}: it must lie between 4 and 128")
        if self.pooling not in POOLINGS:
            raise ValueError(f"network.pooling is {self.pooling!r}: it must be one of {', '.join(POOLINGS)}")
        if self.head not in HEADS:
            raise ValueError(f"network.head is {self.head!r}: it must be one of {', '.join(HEADS)}")
        if self.head == "dense" and not (self.hidden and 1 <= min(self.hidden) <= max(self.hidden) <= MOST_HIDDEN):
            raise ValueError(
                f"network.hidden is {self.hidden}: a dense head needs layers of 1 to {MOST_HIDDEN} units, at least one"
            )
        if self.head == "dense" and self.input_size < 32:
            raise ValueError("a dense head needs network.input_size, the side of the square that it was trained on")

    @property
    def features(self) -> int:
        """Channels of the last stage."""
        return self.width * 8 * EXPANSION

    @property
    def stride(self) -> int:
        """Pixels of the square per cell of an activation map."""
        return 16 if self.dilate_last else 32

    @property
    def has_maps(self) -> bool:
        """Whether the network says where it saw what."""
        return self.graph.maps if self.graph is not None else self.head == "linear"


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


def dense_layers(architecture: Architecture) -> tuple[tuple[str, int, int], ...]:
    """The layers of a dense head: name in the state dict, inputs, outputs. The first takes [C, h, w], flattened."""
    cells = -(-architecture.input_size // architecture.stride)
    sizes = (architecture.features * cells * cells, *architecture.hidden, architecture.outputs)
    return tuple((f"fc.{2 * i}", sizes[i], sizes[i + 1]) for i in range(len(sizes) - 1))


def metadata_layers(architecture: Architecture) -> tuple[tuple[str, int, int], ...]:
    """The layers of the network that reads the metadata: name in the state dict, inputs, outputs."""
    inputs = encoded_length(architecture.metadata)
    return (("metadata.0", inputs, METADATA_UNITS), ("metadata.2", METADATA_UNITS, architecture.outputs))


def parameter_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the weights must hold, under torchvision's names; none for an ONNX file."""
    shapes: dict[str, tuple[int, ...]] = {}
    if architecture.name == "onnx":
        return shapes

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)

    def normalisation(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        shapes[f"{name}.bias"] = (outputs,)

    convolution("conv1", architecture.width, architecture.input_channels, 7)
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
    if architecture.head == "dense":
        for name, inputs, outputs in dense_layers(architecture):
            linear(name, inputs, outputs)
    else:
        linear("fc", architecture.features, architecture.outputs)
    if architecture.metadata:
        for name, inputs, outputs in metadata_layers(architecture):
            linear(name, inputs, outputs)
    return shapes
