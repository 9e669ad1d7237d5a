"""The network: torchvision's ResNet50 with one output per label, and class activation maps in one pass."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from firstread.models.architecture import Architecture, dense_layers, metadata_layers
from firstread.models.metadata import encode

_METADATA = "metadata."


class ChestNetwork(nn.Module):
    """Squares [N, S, S] in [0, 1] to logits [N, L] and class activations [N, L, h, w].

    Logits are the pooled activations plus the bias (plus what the metadata say), so that a map says where its own logit
    comes from. With a dense head there are no activations. The parameters carry torchvision's names: its published
    weights load unchanged (and mean with ``mean`` what they meant there).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        if architecture.name != "resnet50":
            raise ValueError(f"a network of kind {architecture.name} is a file of its own and cannot be built in torch")
        self.architecture = architecture
        self.resnet = ResNet(
            Bottleneck,
            list(architecture.blocks),
            num_classes=architecture.outputs,
            zero_init_residual=True,
            replace_stride_with_dilation=[False, False, architecture.dilate_last],
        )
        if architecture.width != 64:
            _narrow(self.resnet, architecture)
        if architecture.input_channels != 3:
            self.resnet.conv1 = nn.Conv2d(architecture.input_channels, architecture.width, 7, 2, 3, bias=False)
            nn.init.kaiming_normal_(self.resnet.conv1.weight, mode="fan_out", nonlinearity="relu")
        if architecture.head == "dense":
            self.resnet.fc = _perceptron(dense_layers(architecture))
        self.metadata = _perceptron(metadata_layers(architecture)) if architecture.metadata else None
        self.register_buffer("mean", torch.tensor(architecture.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(architecture.std).view(1, -1, 1, 1), persistent=False)

    def forward(self, squares: Tensor, metadata: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits [N, L] and class activations [N, L, h, w] (None with a dense head) of squares [N, S, S].

        ``metadata``: [N, 2 M] as ``firstread.models.metadata.encode`` gives them; without it everything is missing.
        """
        features = self.features(squares)
        logits, activations = self._head(features)
        if self.metadata is not None:
            if metadata is None:
                names = self.architecture.metadata
                metadata = torch.from_numpy(encode([None], names)).to(squares.device).expand(len(squares), -1)
            logits = logits + self.metadata(metadata.to(logits.dtype))
        return logits, activations

    def _head(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        fc = self.resnet.fc
        if self.architecture.head == "dense":
            return fc(features.flatten(1)), None
        activations = torch.nn.functional.conv2d(features, fc.weight[:, :, None, None])
        if self.architecture.pooling == "mean":
            return activations.mean(dim=(2, 3)) + fc.bias, activations
        cells = activations.shape[2] * activations.shape[3]
        pooled = torch.logsumexp(activations.float(), dim=(2, 3)) - math.log(cells)
        return pooled + fc.bias, activations

    def features(self, squares: Tensor) -> Tensor:
        """The last stage's features [N, C, h, w]."""
        net = self.resnet
        x = (squares.unsqueeze(1) - self.mean) / self.std
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        return cast(Tensor, net.layer4(net.layer3(net.layer2(net.layer1(x)))))


def state_of(network: ChestNetwork) -> dict[str, Tensor]:
    """The network's weights under torchvision's names (``conv1.weight`` ... ``fc.bias``), without batch counters.

    What reads the metadata stands beside them as ``metadata.0.weight`` ... ``metadata.2.bias``.
    """
    state = cast("dict[str, Tensor]", dict(network.resnet.state_dict()))
    if network.metadata is not None:
        state |= {_METADATA + name: tensor for name, tensor in network.metadata.state_dict().items()}
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def load_state(network: ChestNetwork, state: dict[str, Tensor]) -> None:
    """Put weights under torchvision's names into the network.

    Raises:
        RuntimeError: a name is missing or unknown, or a shape differs.
    """
    full = {name: tensor.float() for name, tensor in state.items()}
    for name, tensor in network.resnet.state_dict().items():
        if name.endswith("num_batches_tracked"):
            full.setdefault(name, tensor)
    if network.metadata is not None:
        own = {name.removeprefix(_METADATA): full.pop(name) for name in list(full) if name.startswith(_METADATA)}
        network.metadata.load_state_dict(own, strict=True)
    network.resnet.load_state_dict(full, strict=True)


def _perceptron(layers: tuple[tuple[str, int, int], ...]) -> nn.Sequential:
    """Dense layers with a ReLU after each but the last."""
    parts: list[nn.Module] = []
    for _, inputs, outputs in layers:
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def _narrow(net: ResNet, architecture: Architecture) -> None:
    """Rebuild the stages with fewer channels: torchvision's constructor knows only 64."""
    width = architecture.width
    net.inplanes, net.dilation = width, 1
    net.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
    net.bn1 = nn.BatchNorm2d(width)
    stages = []
    for stage, depth in enumerate(architecture.blocks):
        dilate = stage == 3 and architecture.dilate_last
        stride = 1 if stage == 0 else 2
        stages.append(net._make_layer(Bottleneck, width << stage, depth, stride=stride, dilate=dilate))
    net.layer1, net.layer2, net.layer3, net.layer4 = stages
    net.fc = nn.Linear(width * 8 * Bottleneck.expansion, architecture.outputs)
