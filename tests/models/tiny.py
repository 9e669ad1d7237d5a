"""A complete bundle of a few hundred kilobytes, random but valid, for tests that need one in a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from firstread.models.architecture import Architecture
from firstread.models.bundle import Calibration
from firstread.models.bundle_writer import BundleDraft, write_bundle
from firstread.models.findings import LABELS, NO_FINDING
from firstread.models.preprocess import Preprocessing

NARROW: dict[str, Any] = {"width": 8, "blocks": (1, 1, 1, 1)}


def make_tiny_bundle(
    folder: Path,
    *,
    labels: tuple[str, ...] = LABELS,
    seed: int = 7,
    version: str = "0.0.1",
    input_size: int = 64,
    **network: Any,
) -> Path:
    """Write a bundle of an untrained, narrow ResNet at ``folder`` and return it.

    ``network``: other values of its ``Architecture``. The same seed gives the same answers. They differ from film to
    film and from label to label, and spread over [0, 1], but mean nothing.
    """
    write_bundle(tiny_draft(labels=labels, seed=seed, version=version, input_size=input_size, **network), folder)
    return folder


def tiny_draft(
    *,
    labels: tuple[str, ...] = LABELS,
    seed: int = 7,
    version: str = "0.0.1",
    input_size: int = 64,
    **network: Any,
) -> BundleDraft:
    """What :func:`make_tiny_bundle` writes."""
    size = {"input_size": input_size} if network.get("head") == "dense" else {}
    architecture = Architecture(outputs=len(labels), **{**NARROW, **network, **size})
    softmax = architecture.output == "softmax"
    platt = Calibration("platt", (1.5,) * len(labels), (0.1,) * len(labels))
    rng = np.random.default_rng(seed)
    return BundleDraft(
        name="tiny",
        version=version,
        labels=labels,
        experimental=tuple(label for label in labels if label not in (NO_FINDING, "Pneumonia")),
        thresholds=dict.fromkeys(labels, 0.5),
        architecture=architecture,
        preprocessing=Preprocessing(input_size=input_size),
        calibration=Calibration.identity(len(labels)) if softmax else platt,
        weights=tiny_weights(architecture, seed),
        canaries=[_film(rng) for _ in range(3)],
        card="# tiny\n\nRandom weights, for tests.\n",
        provenance={"trained_on": "nothing"},
    )


def tiny_weights(architecture: Architecture, seed: int = 7) -> dict[str, Any]:
    """Random weights under which depth, labels and metadata all matter."""
    import torch

    from firstread.models.network import ChestNetwork, state_of

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    network = ChestNetwork(architecture)
    with torch.no_grad():
        for name, tensor in state_of(network).items():
            # An untrained residual branch ends in a scale of zero: without this the depth would be idle.
            if name.endswith("bn3.weight"):
                tensor.fill_(0.5)
            if name == "fc.weight":
                tensor.mul_(60)
    return state_of(network)


def _film(rng: np.random.Generator) -> np.ndarray:
    coarse = rng.random((6, 6))
    return (np.kron(coarse, np.ones((16, 16))) * 200 + rng.random((96, 96)) * 55).astype(np.uint8)
