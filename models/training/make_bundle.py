"""Weights become a bundle: halved precision, canaries with their answers, hashes, a seal; whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tomli_w
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from firstread.models import bundle as bundles
from firstread.models.architecture import Architecture
from firstread.models.bundle import Bundle, BundleError, Calibration
from firstread.models.preprocess import Preprocessing, prepare

LARGEST_BYTES = 50_000_000


@dataclass(frozen=True)
class Ingredients:
    """All that goes into a bundle. ``canaries``: uint8 [R, C] films, bone bright. ``card``: Markdown."""

    name: str
    version: str
    labels: tuple[str, ...]
    experimental: tuple[str, ...]
    thresholds: Mapping[str, float]
    architecture: Architecture
    preprocessing: Preprocessing
    calibration: Calibration
    weights: Mapping[str, Tensor]
    canaries: Sequence[npt.NDArray[np.uint8]]
    card: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


def write_bundle(folder: Path, ingredients: Ingredients) -> Bundle:
    """Write a bundle, verify it and put it at ``folder``, replacing what stood there.

    Raises:
        BundleError: what was written does not pass the product's own verification, or is too large.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        halved = halve(ingredients.weights)
        save_file(halved, building / bundles.WEIGHTS)
        (building / "card.md").write_text(ingredients.card, encoding="utf-8")
        expected = _expected(ingredients, halved)
        for number, canary in enumerate(ingredients.canaries, start=1):
            Image.fromarray(canary).save(building / f"canary_{number}.png", optimize=True)
        _describe(building, ingredients, expected)
        problems = bundles.verify_bundle(building)
        size = sum(path.stat().st_size for path in building.iterdir())
        if size > LARGEST_BYTES:
            problems.append(f"it has {size} bytes, a bundle has at most {LARGEST_BYTES}")
        if problems:
            raise BundleError(f"the bundle made for {folder} was thrown away: {'; '.join(problems)}")
        building.chmod(0o755)
        (building / bundles.WEIGHTS).chmod(0o644)
        if folder.exists():
            shutil.rmtree(folder)
        building.replace(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return bundles.load_bundle(folder)


def halve(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kernels in float16; biases and batch normalisation, which are small and touchy, stay in float32."""
    return {
        name: tensor.detach().cpu().contiguous().to(torch.float16 if tensor.ndim > 1 else torch.float32)
        for name, tensor in weights.items()
    }


def _expected(ingredients: Ingredients, halved: dict[str, Tensor]) -> npt.NDArray[np.float64]:
    """What eager torch answers to the canaries with the weights as they are stored."""
    from firstread.models.network import ChestNetwork, load_state
    from firstread.models.training.calibrate import probabilities

    network = ChestNetwork(ingredients.architecture)
    load_state(network, halved)
    network.eval()
    films = [canary.astype(np.float32) / np.float32(255) for canary in ingredients.canaries]
    squares = np.stack([prepare(film, ingredients.preprocessing) for film in films])
    with torch.inference_mode():
        logits, _ = network(torch.from_numpy(squares))
    return probabilities(logits.numpy().astype(np.float64), ingredients.calibration)


def _describe(building: Path, ingredients: Ingredients, expected: npt.NDArray[np.float64]) -> None:
    labels = ingredients.labels
    calibration = ingredients.calibration
    network = asdict(ingredients.architecture)
    del network["outputs"]
    table = {
        "format": bundles.FORMAT,
        "name": ingredients.name,
        "version": ingredients.version,
        "labels": list(labels),
        "experimental": sorted(ingredients.experimental),
        "thresholds": {label: float(ingredients.thresholds[label]) for label in labels},
        "network": {key: list(value) if isinstance(value, tuple) else value for key, value in network.items()},
        "preprocessing": asdict(ingredients.preprocessing),
        "calibration": {
            "method": calibration.method,
            "slope": dict(zip(labels, calibration.slope, strict=True)),
            "offset": dict(zip(labels, calibration.offset, strict=True)),
        },
        "provenance": dict(ingredients.provenance),
        "canary": [
            {"file": f"canary_{n}.png", "expected": {lb: round(float(p), 7) for lb, p in zip(labels, row, strict=True)}}
            for n, row in enumerate(expected, start=1)
        ],
        "files": {path.name: bundles.sha256_of(path) for path in sorted(building.iterdir())},
    }
    description = building / bundles.DESCRIPTION
    description.write_text(tomli_w.dumps(table), encoding="utf-8")
    seal = f"{bundles.sha256_of(description)}  {bundles.DESCRIPTION}\n"
    (building / bundles.SEAL).write_text(seal, encoding="ascii")
