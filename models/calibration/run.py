"""From a table of labels and a bundle to the site's version of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from firstread.models.bundle import Bundle
from firstread.models.calibration.site import SiteCalibration, plan_site
from firstread.models.calibration.version import Source, as_json, site_version, source_of, write_site
from firstread.models.calibration.wishes import Wishes
from firstread.models.data.film import DataError
from firstread.models.evaluation.as_json import without_nan
from firstread.models.evaluation.run import Films, read_films
from firstread.models.evaluation.score import score

__all__ = ["Calibrated", "Films", "Place", "calibrate_bundle", "place_of", "write"]


@dataclass(frozen=True)
class Place:
    """Where the site's version will lie and what it will be called."""

    folder: Path
    name: str
    version: str
    day: date


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What was planned and measured; ``told``: the same as JSON (see ``version.as_json``)."""

    site: SiteCalibration
    source: Source
    told: dict[str, Any]


def place_of(
    bundle: Bundle, out: Path | None, name: str | None, version: str | None, day: date, dry_run: bool = False
) -> Place:
    """Where the new version goes, refused before the films are scored when something is there.

    Raises:
        DataError: the folder exists.
    """
    name, version = name or bundle.name, version or site_version(bundle, day)
    folder = out or Path(f"{name}-{version}")
    if not dry_run and (folder.exists() or folder.is_symlink()):
        raise DataError(f"{folder} exists already: give another --out or --version; bundles are never overwritten")
    return Place(folder, name, version, day)


def calibrate_bundle(
    bundle: Bundle,
    wanted: Films,
    wishes: Wishes,
    *,
    device: str = "auto",
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Calibrated:
    """Score the films, plan the site's version and measure it. Nothing is written.

    Raises:
        DataError: the films cannot be used or a wish cannot be met. EngineError: the bundle cannot be run here.
    """
    source = source_of(wanted.table)
    films, _ = read_films(wanted)
    scores = score(bundle, films, device=device, threads=threads, on_progress=on_progress)
    site = plan_site(bundle, scores, wishes)
    told: dict[str, Any] = without_nan(as_json(bundle, site, source))
    return Calibrated(site, source, told)


def write(bundle: Bundle, done: Calibrated, place: Place) -> Bundle:
    """Write the version; see :func:`firstread.models.calibration.version.write_site`."""
    return write_site(
        bundle, done.site, done.source, place.folder, day=place.day, version=place.version, name=place.name
    )
