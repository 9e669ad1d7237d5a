"""A new version of a bundle: the same weights, byte for byte, with another calibration, operating points or card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from firstread.models.bundle import Bundle, BundleError, Calibration
from firstread.models.bundle_writer import draft_of, write_bundle


def version_with(version: str, what: str, day: date) -> str:
    """``1.0.0`` becomes ``1.0.0+site.20261124``: build metadata as Semantic Versioning 2.0.0 has it (section 10).

    An earlier mark of the same kind is replaced, marks of other kinds stay.
    """
    base, _, marks = version.partition("+")
    kept = re.sub(rf"(^|\.){re.escape(what)}\.\d{{8}}(?=\.|$)", "", marks).strip(".")
    return f"{base}+{'.'.join(part for part in (kept, f'{what}.{day:%Y%m%d}') if part)}"


def write_version(
    bundle: Bundle,
    folder: Path,
    *,
    version: str,
    name: str | None = None,
    calibration: Calibration | None = None,
    thresholds: Mapping[str, float] | None = None,
    card: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    extra_files: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Write a new version of ``bundle`` at ``folder``; whatever is not given stays as it was. The old one is only read.

    ``extra_files``: by name, beside those that the bundle has, in their place where a name is the same.

    Raises:
        BundleError: the version cannot be used, something stands at ``folder`` already, it cannot be written, or what
            was written does not pass the product's own verification. Nothing is left behind then.
    """
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}", version):
        raise BundleError(f"version {version!r} cannot be used: up to 64 letters, digits and . + - _, as 1.0.0+site.1")
    try:
        draft = draft_of(bundle)
    except OSError as error:
        raise BundleError(f"{bundle.folder} cannot be read ({error.strerror}): verify it") from error
    draft = replace(
        draft,
        name=name or bundle.name,
        version=version,
        calibration=calibration or bundle.calibration,
        thresholds=bundle.thresholds if thresholds is None else thresholds,
        card=bundle.card if card is None else card,
        provenance=toml_ready(bundle.provenance if provenance is None else provenance),
        extra_files={**draft.extra_files, **(extra_files or {})},
    )
    made = write_bundle(draft, folder)
    if made.weights_sha256 != bundle.weights_sha256:
        raise BundleError(f"{bundle.folder} changed while it was read: verify it, and remove {folder}")
    return made


def toml_ready(value: Any) -> Any:
    """The same without what TOML cannot hold: None and numbers that are none are left out, figures keep six digits."""
    if isinstance(value, Mapping):
        return {str(key): toml_ready(one) for key, one in value.items() if _sayable(one)}
    if isinstance(value, list | tuple):
        return [toml_ready(one) for one in value if _sayable(one)]
    if isinstance(value, np.generic):
        return toml_ready(value.item())
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _sayable(value: Any) -> bool:
    return value is not None and not (isinstance(value, float | np.floating) and not np.isfinite(value))
