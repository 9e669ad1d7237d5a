"""A bundle as the card describes it: plain values, so that a card can be written before the bundle is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from firstread.models.architecture import Architecture
from firstread.models.bundle import Bundle, Calibration
from firstread.models.bundle_writer import BundleDraft
from firstread.models.preprocess import Preprocessing

DEFAULT_CANARIES = 4
"""What ``write_bundle`` draws for a draft without any."""


@dataclass(frozen=True)
class Description:
    """What a card says of the bundle itself. ``weights_sha256``, ``files``: empty before the bundle is written.

    ``provenance``: its table. ``canaries``: how many.
    """

    name: str
    version: str
    labels: Sequence[str]
    experimental: Sequence[str]
    thresholds: Mapping[str, float]
    architecture: Architecture
    preprocessing: Preprocessing
    calibration: Calibration
    provenance: Mapping[str, Any] = field(default_factory=dict)
    canaries: int = 0
    weights_sha256: str = ""


def description_of(bundle: Bundle, version: str | None = None, name: str | None = None) -> Description:
    """The description of a bundle, under another version or name when it is to be written again."""
    return Description(
        name=name or bundle.name,
        version=version or bundle.version,
        labels=bundle.labels,
        experimental=tuple(label for label in bundle.labels if label in bundle.experimental),
        thresholds=bundle.thresholds,
        architecture=bundle.architecture,
        preprocessing=bundle.preprocessing,
        calibration=bundle.calibration,
        provenance=bundle.provenance,
        canaries=len(bundle.canaries),
        weights_sha256=bundle.weights_sha256,
    )


def description_of_draft(draft: BundleDraft) -> Description:
    """The description of a bundle that is still to be written; its weights have no hash yet."""
    return Description(
        name=draft.name,
        version=draft.version,
        labels=draft.labels,
        experimental=tuple(label for label in draft.labels if label in draft.experimental),
        thresholds=draft.thresholds,
        architecture=draft.architecture,
        preprocessing=draft.preprocessing,
        calibration=draft.calibration,
        provenance=draft.provenance,
        canaries=len(draft.canaries) or DEFAULT_CANARIES,
    )
