"""Networks of other libraries, randomly initialised, narrow where size does not matter, lively in their answers."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from firstread.models.bundle import Bundle
from firstread.models.engine import Engine
from firstread.models.importing.labels import known_as
from firstread.models.phantoms import draw, random_spec
from firstread.models.preprocess import prepare

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
        _spread(network.eval(), head, generator)
    return network


def _spread(network: nn.Module, head: nn.Linear, generator: torch.Generator) -> None:
    """Set the head so that films differ in their answers: around one half, by about one logit."""
    one_channel = network.conv1.weight.shape[1] == 1  # type: ignore[union-attr, index]
    if one_channel:
        network.conv1.weight.mul_(1 / 1000)  # type: ignore[union-attr, operator]
    squares = np.stack([np.asarray(Image.fromarray(film).resize((224, 224)), np.float32) / 255 for film in films()[:2]])
    greys = torch.from_numpy(squares)[:, None]
    network.fc = nn.Identity()
    features = network((greys - 0.5) * 2048 if one_channel else ((greys - 0.45) / 0.225).expand(-1, 3, -1, -1))
    network.fc = head
    middle, span = features.mean(dim=0), (features[0] - features[1]).abs().mean()
    head.weight.copy_(torch.randn(head.weight.shape, generator=generator) / (span * head.in_features**0.5))
    head.bias.copy_(torch.randn(head.bias.shape, generator=generator) * 0.5 - head.weight @ middle)


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


@functools.cache
def films() -> list[npt.NDArray[np.uint8]]:
    """Films as 8-bit pictures: phantoms of other shapes, and a real one where FIRSTREAD_TEST_DATA has it."""
    phantoms = [
        (draw(random_spec(np.random.default_rng(seed), labels, shape)).image * 255 + 0.5).astype(np.uint8)
        for seed, labels, shape in ((1, ("Effusion",), (600, 520)), (2, ("Mass",), (540, 660)))
    ]
    data = os.environ.get("FIRSTREAD_TEST_DATA", "")
    real = sorted((Path(data) / "nih" / "images").glob("*.png"))[:1] if data else []
    return phantoms + [np.asarray(Image.open(path).convert("L")) for path in real]


def served(engine: Engine, films: list[npt.NDArray[np.uint8]], **otherwise: object) -> npt.NDArray[np.float32]:
    """What a bundle answers to films as the service puts them: [N, L]. ``otherwise``: other preprocessing."""
    preprocessing = replace(engine.bundle.preprocessing, **otherwise)  # type: ignore[arg-type]
    squares = [prepare(film.astype(np.float32) / np.float32(255), preprocessing) for film in films]
    return engine.run(np.stack(squares)).probabilities


def columns(bundle: Bundle, names: list[str]) -> list[int]:
    """The outputs of the original that the bundle's labels are, in the bundle's order."""
    return [[known_as(name) for name in names].index(label) for label in bundle.labels]


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same tensors with something before each name."""
    return {prefix + name: tensor for name, tensor in state.items()}
