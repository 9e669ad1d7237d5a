"""Networks of other libraries, randomly initialised, narrow where size does not matter, lively in their answers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

NIH14 = (
    "Atelectasis,Cardiomegaly,Effusion,Infiltration,Mass,Nodule,Pneumonia,Pneumothorax,Consolidation,Edema,Emphysema,"
    "Fibrosis,Pleural_Thickening,Hernia"
)
NIH15 = f"{NIH14},No Finding"


def livened(network: nn.Module, head: nn.Linear, seed: int = 3) -> nn.Module:
    """Random weights under which depth, batch statistics and head all matter and answers spread, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_mean"):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
            elif name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.ndim == 4:
                fan = tensor[0].numel()
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (1.6 / fan) ** 0.5)
            elif tensor.ndim == 1 and name.endswith("weight"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.4 + 0.6)
            elif tensor.ndim == 1 and name.endswith("bias"):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * (4 / head.in_features) ** 0.5)
    return network.eval()


def narrow_resnet50(outputs: int = 14, *, channels: int = 3, width: int = 4, seed: int = 3) -> ResNet:
    """torchvision's ResNet50 with fewer channels: every name and every block of the real one, in a megabyte."""
    network = ResNet(Bottleneck, [3, 4, 6, 3], num_classes=outputs)
    network.inplanes = width
    network.conv1 = nn.Conv2d(channels, width, kernel_size=7, stride=2, padding=3, bias=False)
    network.bn1 = nn.BatchNorm2d(width)
    for stage, depth in enumerate([3, 4, 6, 3]):
        layer = network._make_layer(Bottleneck, width << stage, depth, stride=1 if stage == 0 else 2)
        setattr(network, f"layer{stage + 1}", layer)
    network.fc = nn.Linear(32 * width, outputs)
    livened(network, network.fc, seed)
    return network


def resnet18(outputs: int = 14) -> ResNet:
    """A relative of another architecture."""
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes=outputs).eval()


def saved(state: object, path: Path) -> Path:
    """What ``torch.save`` makes of it."""
    torch.save(state, path)
    return path


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same tensors with something before each name."""
    return {prefix + name: tensor for name, tensor in state.items()}
