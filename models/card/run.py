"""From a bundle and the JSON that was measured of it to a card, and to a version of the bundle that carries it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from firstread.models.bundle import Bundle
from firstread.models.card import training as trainings
from firstread.models.card.description import description_of
from firstread.models.card.writing import write_card
from firstread.models.data.film import DataError
from firstread.models.new_version import version_with, write_version

KINDS = ("evaluation", "audit", "explanation", "training")
"""Each is of schema ``firstread.<kind>/1`` and kept in the bundle as ``<kind>.json``."""


@dataclass(frozen=True, eq=False)
class Sources:
    """What was measured, by kind (None where it was not), and the SHA-256 of the files that it came from."""

    found: Mapping[str, dict[str, Any] | None]
    hashes: Mapping[str, str]


def read_sources(bundle: Bundle, files: Mapping[str, Path | None]) -> Sources:
    """What was measured of a bundle: the given files, and for what is not given, what the bundle itself keeps.

    ``files``: by kind. An older bundle without a training summary is asked for its provenance.

    Raises:
        DataError: a file cannot be read, is of another kind, or speaks of other weights.
    """
    found: dict[str, dict[str, Any] | None] = {}
    hashes = {}
    for kind in KINDS:
        path = files.get(kind)
        if path is None:
            path = bundle.folder / f"{kind}.json" if f"{kind}.json" in bundle.files else None
        if path is None:
            found[kind] = None
            continue
        found[kind] = _read(path, kind, bundle)
        hashes[f"{kind}.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
    if found["training"] is None:
        found["training"] = trainings.summary_of_provenance(bundle)
    return Sources(found, hashes)


def card_of(
    bundle: Bundle,
    sources: Sources,
    *,
    version: str | None = None,
    name: str | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The card of a bundle (under the name and version that it will have)."""
    found = sources.found
    return write_card(
        description_of(bundle, version, name),
        found["evaluation"],
        found["audit"],
        found["explanation"],
        found["training"],
        notes=notes,
        hashes=sources.hashes,
    )


def card_version(bundle: Bundle, day: date) -> str:
    """The version of a bundle that gets a new card, when none is asked for."""
    return version_with(bundle.version, "card", day)


def write_carded(
    bundle: Bundle,
    sources: Sources,
    folder: Path,
    *,
    version: str,
    name: str | None = None,
    notes: Sequence[str] = (),
) -> Bundle:
    """Write a version of the bundle with its card, and keep what the card was made of beside it, without file paths.

    Raises:
        BundleError: the folder exists or cannot be written, or the result does not verify.
    """
    kept = {
        f"{kind}.json": (json.dumps(without_paths(found), indent=1, ensure_ascii=False) + "\n").encode()
        for kind, found in sources.found.items()
        if found is not None
    }
    card = card_of(bundle, sources, version=version, name=name, notes=notes)
    return write_version(bundle, folder, version=version, name=name, card=card, extra_files=kept)


def without_paths(value: Mapping[str, Any]) -> dict[str, Any]:
    """Measurements as a bundle may carry them to others: file names instead of paths, counts instead of lists of"
    " films."""
    told = {key: one for key, one in value.items() if key != "data"}
    data = value.get("data")
    if not isinstance(data, Mapping):
        return {**told, **({"data": data} if "data" in value else {})}
    kept = {key: one for key, one in data.items() if key != "images"}
    for key in ("table", "boxes"):
        if isinstance(kept.get(key), str):
            kept[key] = kept[key].replace("\\", "/").rsplit("/", 1)[-1]
    if isinstance(kept.get("unreadable"), list):
        kept["unreadable"] = len(kept["unreadable"])
    if isinstance(kept.get("refused"), Mapping):
        kept["refused"] = {key: one for key, one in kept["refused"].items() if key != "films"}
    return {**told, "data": kept}


def _read(path: Path, kind: str, bundle: Bundle) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): give the file that --json wrote") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no JSON ({error}): give the file that --json wrote") from error
    wanted = f"firstread.{kind}/1"
    if not isinstance(table, dict) or table.get("schema") != wanted:
        said = table.get("schema") if isinstance(table, dict) else type(table).__name__
        raise DataError(
            f"{path} is of schema {said!r}, {wanted!r} is needed: give what `firstread models` wrote as JSON"
        )
    spoken = (table.get("bundle") or {}).get("weights_sha256")
    if spoken is not None and spoken != bundle.weights_sha256:
        raise DataError(
            f"{path} speaks of other weights ({str(spoken)[:16]}) than {bundle.folder} has"
            f" ({bundle.weights_sha256[:16]}): measure this bundle"
        )
    return table
