"""A complete bundle of a few hundred kilobytes, random but valid, for tests that need one in a second or two."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from firstread.models.architecture import Architecture
from firstread.models.bundle import Calibration
from firstread.models.findings import LABELS, NO_FINDING
from firstread.models.preprocess import Preprocessing


def make_tiny_bundle(
    folder: Path, *, labels: tuple[str, ...] = LABELS, seed: int = 7, version: str = "0.0.1", input_size: int = 64
) -> Path:
    """Write a bundle of an untrained, narrow ResNet at ``folder`` and return it.

    The same seed gives the same answers. They differ from film to film and from label to label, and spread over
    [0, 1], but mean nothing.
    """
    import torch

    from firstread.models.network import ChestNetwork, state_of
    from firstread.models.training.make_bundle import Ingredients, write_bundle

    torch.set_num_threads(1)
    architecture = Architecture(outputs=len(labels), width=8, blocks=(1, 1, 1, 1))
    torch.manual_seed(seed)
    network = ChestNetwork(architecture)
    rng = np.random.default_rng(seed)
    films = [_film(rng) for _ in range(3)]
    with torch.no_grad():
        for name, tensor in state_of(network).items():
            # An untrained residual branch ends in a scale of zero: without this the depth would be idle.
            if name.endswith("bn3.weight"):
                tensor.fill_(0.5)
            if name == "fc.weight":
                tensor.mul_(60)
    write_bundle(
        folder,
        Ingredients(
            name="tiny",
            version=version,
            labels=labels,
            experimental=tuple(label for label in labels if label not in (NO_FINDING, "Pneumonia")),
            thresholds=dict.fromkeys(labels, 0.5),
            architecture=architecture,
            preprocessing=Preprocessing(input_size=input_size),
            calibration=Calibration("platt", (1.5,) * len(labels), (0.1,) * len(labels)),
            weights=state_of(network),
            canaries=films,
            card="# tiny\n\nRandom weights, for tests.\n",
            provenance={"trained_on": "nothing"},
        ),
    )
    return folder


def _film(rng: np.random.Generator) -> np.ndarray:
    coarse = rng.random((6, 6))
    return (np.kron(coarse, np.ones((16, 16))) * 200 + rng.random((96, 96)) * 55).astype(np.uint8)
