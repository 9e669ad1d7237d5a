"""The older way to write a bundle, for training's command; everything is done by ``firstread.models.bundle_writer``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from firstread.models.architecture import Architecture
from firstread.models.bundle import Bundle, Calibration
from firstread.models.bundle_writer import BundleDraft, stored_weights
from firstread.models.bundle_writer import write_bundle as write
from firstread.models.preprocess import Preprocessing

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
    """Write a bundle at ``folder``; what stood there is taken away once the new one is known to be good.

    Raises:
        BundleError: what was written does not pass the product's own verification, or is too large.
    """
    draft = BundleDraft(**vars(ingredients), largest_bytes=LARGEST_BYTES)
    if not folder.exists():
        return write(draft, folder)
    fresh = folder.parent / f"{folder.name}.new" / folder.name
    write(draft, fresh)
    shutil.rmtree(folder)
    fresh.rename(folder)
    fresh.parent.rmdir()
    from firstread.models.bundle import load_bundle

    return load_bundle(folder)


def halve(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kernels in float16; biases and batch normalisation, which are small and touchy, stay in float32."""
    return {name: torch.from_numpy(array) for name, array in stored_weights(weights).items()}
