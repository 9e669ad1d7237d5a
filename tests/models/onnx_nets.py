"""Small networks as ONNX files, as people export them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from firstread.models.architecture import Architecture, Graph
from firstread.models.bundle import Calibration
from firstread.models.bundle_writer import BundleDraft
from firstread.models.preprocess import Preprocessing

SIDE = 32
LABELS = ("Effusion", "Pneumonia")


def features(channels: int = 3, width: int = 6) -> nn.Sequential:
    """[N, C, 32, 32] to [N, width, 8, 8]."""
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, width, 3, 2, 1), nn.ReLU()
    )


def pooled(outputs: int = 5, end: nn.Module | None = None, channels: int = 3) -> nn.Sequential:
    """Features, their average, one linear layer: what most published networks end in."""
    layers = [features(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(6, outputs)]
    return seeded(nn.Sequential(*layers, *([end] if end is not None else [])))


def flattened(outputs: int = 5) -> nn.Sequential:
    """Features, flattened whole: there is no map."""
    return seeded(nn.Sequential(features(), nn.Flatten(), nn.Linear(6 * 64, outputs)))


def convolved(outputs: int = 5) -> nn.Sequential:
    """One map per class and its average, without a linear layer."""
    return seeded(nn.Sequential(features(width=outputs), nn.AdaptiveAvgPool2d(1), nn.Flatten()))


def seeded(network: nn.Sequential) -> nn.Sequential:
    torch.manual_seed(5)
    for name, parameter in network.named_parameters():
        nn.init.normal_(parameter, std=1.0 if name.endswith("weight") else 0.1)
    return network.eval()


def exported(network: nn.Module, *, channels: int = 3, free_batch: bool = True) -> bytes:
    """By torch's older exporter: input ``film``, output ``out``."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.rand(1, channels, SIDE, SIDE),),
            buffer,
            dynamo=False,
            input_names=["film"],
            output_names=["out"],
            dynamic_axes={"film": {0: "n"}, "out": {0: "n"}} if free_batch else None,
        )
    return buffer.getvalue()


def exported_anew(network: nn.Module, path: Path, *, inside: bool = True) -> bytes:
    """By torch's newer exporter, the weights inside the file or beside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.rand(2, 3, SIDE, SIDE),),
            path,
            dynamo=True,
            verbose=False,
            external_data=not inside,
            input_names=["film"],
            output_names=["out"],
            dynamic_shapes=({0: "n"},),
        )
    return path.read_bytes()


def onnx_draft(content: bytes, *, columns: tuple[int, ...] = (3, 1), **values: Any) -> BundleDraft:
    """A bundle of such a file. ``values``: of its ``Architecture``, or of its ``Graph``."""
    of_graph = {name: values.pop(name) for name in ("input", "output_name", "gives") if name in values}
    graph = Graph(
        of_graph.get("input", "film"), of_graph.get("output_name", "out"), columns, of_graph.get("gives", "logits")
    )
    rng = np.random.default_rng(0)
    return BundleDraft(
        name="foreign",
        version="1",
        labels=LABELS,
        thresholds=dict.fromkeys(LABELS, 0.5),
        architecture=Architecture(outputs=len(columns), name="onnx", graph=graph, **values),
        preprocessing=Preprocessing(input_size=SIDE, trim=False, equalise=False, resample="bilinear"),
        calibration=Calibration.identity(len(LABELS)),
        onnx=content,
        canaries=[(rng.random((48, 40)) * 255).astype(np.uint8) for _ in range(2)],
    )
