"""A site's calibration becomes a version of the bundle, whose card and provenance say what was changed and by what."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from firstread.models.bundle import Bundle
from firstread.models.calibration.fitting import KEEP
from firstread.models.calibration.measure import Estimate
from firstread.models.calibration.site import LabelChange, SiteCalibration
from firstread.models.data.film import DataError
from firstread.models.new_version import version_with, write_version

HEADING = "## What this site changed"
"""Begins the section of the card; a later calibration replaces it."""


@dataclass(frozen=True)
class Source:
    """The table of labels that the films came from, and its hash."""

    table: str
    sha256: str


def source_of(table: Path) -> Source:
    """Name and SHA-256 of a table. Raises DataError when it cannot be read."""
    try:
        with Path(table).open("rb") as stream:
            return Source(Path(table).name, hashlib.file_digest(stream, "sha256").hexdigest())
    except OSError as error:
        raise DataError(f"{table} cannot be read ({error.strerror}): check the path") from error


def site_version(bundle: Bundle, day: date) -> str:
    """The version that a site's own bundle gets when none is asked for."""
    return version_with(bundle.version, "site", day)


def write_site(
    bundle: Bundle,
    site: SiteCalibration,
    source: Source,
    folder: Path,
    *,
    day: date,
    version: str | None = None,
    name: str | None = None,
) -> Bundle:
    """Write the site's version of ``bundle`` at ``folder``; the weights stay byte for byte.

    Raises:
        DataError: nothing would change, or the version is the bundle's own.
        BundleError: the folder exists or cannot be written, or the result does not verify.
    """
    if not site.changed:
        raise DataError(
            "nothing would change: no label was calibrated and no operating point asked for, so none is written"
        )
    version = version or site_version(bundle, day)
    if version == bundle.version and (name or bundle.name) == bundle.name:
        raise DataError(f"the bundle is {bundle.name} {version} already: give its site's version another number")
    return write_version(
        bundle,
        folder,
        version=version,
        name=name,
        calibration=site.calibration,
        thresholds=site.thresholds,
        card=_card(bundle, site, source, version, name or bundle.name, day),
        provenance=_provenance(bundle, site, source, day),
    )


def as_json(bundle: Bundle, site: SiteCalibration, source: Source) -> dict[str, Any]:
    """The whole calibration as plain values.

    Schema ``firstread.calibration/1``: ``bundle``, ``table``, ``films``, ``wishes``, ``notes``, ``alerts_per_day``
    {before, after} (null without a volume), ``raised`` {before, after} as shares, ``labels.<name>`` as
    :class:`LabelChange`.
    """
    wishes = site.wishes
    return {
        "schema": "firstread.calibration/1",
        "bundle": {"name": bundle.name, "version": bundle.version, "weights_sha256": bundle.weights_sha256},
        "table": asdict(source),
        "films": {
            "used": site.films,
            "patients": site.patients,
            "refused_by_gate": site.refused,
            "unreadable": site.unreadable,
        },
        "wishes": {**asdict(wishes), "raising": [row.label for row in site.labels if row.raises]},
        "notes": list(site.notes),
        "raised": {"before": asdict(site.raised_before), "after": asdict(site.raised_after)},
        "alerts_per_day": None
        if wishes.films_per_day is None
        else {
            "before": per_day(site.raised_before, wishes.films_per_day),
            "after": per_day(site.raised_after, wishes.films_per_day),
        },
        "labels": {row.label: {**asdict(row), "changed": row.changed} for row in site.labels},
    }


def per_day(share: Estimate, films: float) -> dict[str, float]:
    """A share of the films as films a day."""
    return {key: value * films for key, value in asdict(share).items()}


def _provenance(bundle: Bundle, site: SiteCalibration, source: Source, day: date) -> dict[str, Any]:
    kept = dict(bundle.provenance)
    # What was counted at the old operating points is not true of the new ones; AUROC does not depend on either.
    figures = kept.get("figures")
    if isinstance(figures, Mapping):
        kept["figures"] = {
            label: {k: v for k, v in row.items() if k in ("experimental", "real", "real_matched", "phantoms")}
            for label, row in figures.items()
            if isinstance(row, Mapping)
        }
    recorded = dict(kept.get("calibration", {}))
    for row in site.labels:
        prevalence = row.prevalence if row.stated_prevalence is None else row.stated_prevalence
        if row.prevalence is not None and (row.changed or row.method != KEEP):
            recorded[row.label] = {"prevalence": prevalence, "films": row.films, "positives": row.positives}
    kept["calibration"] = recorded
    told = as_json(bundle, site, source)
    kept["site_calibration"] = {
        "made": day.isoformat(),
        "from": f"{bundle.name} {bundle.version}",
        "table": source.table,
        "table_sha256": source.sha256,
        **told["films"],
        "films_per_day": site.wishes.films_per_day,
        "raised_before": site.raised_before.value,
        "raised_after": site.raised_after.value,
        "labels": {row.label: _short(row) for row in site.changed},
    }
    return kept


def _short(row: LabelChange) -> dict[str, Any]:
    return {
        "method": row.method,
        "why": row.why,
        "films": row.films,
        "positives": row.positives,
        "stated_prevalence": row.stated_prevalence,
        "slope": [row.slope_before, row.slope_after],
        "offset": [row.offset_before, row.offset_after],
        "threshold": [row.threshold_before, row.threshold_after],
        "threshold_by": row.threshold_by,
        "ece": None if row.before is None or row.after is None else [row.before.ece, row.after.ece],
        "brier": None if row.before is None or row.after is None else [row.before.brier, row.after.brier],
    }


def _card(bundle: Bundle, site: SiteCalibration, source: Source, version: str, name: str, day: date) -> str:
    """The bundle's card with a section of its own first: what stands below it was measured before the change."""
    lines = _without_section(bundle.card).strip().splitlines()
    if lines and lines[0].startswith("# "):
        lines = lines[1:]
    first = next((number for number, line in enumerate(lines) if line.startswith("## ")), len(lines))
    before, after = "\n".join(lines[:first]).strip(), "\n".join(lines[first:]).strip()
    section = "\n".join(site_section(bundle, site, source, day))
    return "\n\n".join(part for part in (f"# {name} {version}", before, section, after) if part) + "\n"


def site_section(bundle: Bundle, site: SiteCalibration, source: Source, day: date) -> list[str]:
    """Markdown lines: what was changed, by which films, and what it does, measured by patients that had no say."""
    volume = site.wishes.films_per_day
    lines = [
        HEADING,
        "",
        f"Made on {day.isoformat()} from {bundle.name} {bundle.version}: the same weights, other calibration and"
        f" operating points, from {site.films} films of {site.patients} patients of the site"
        f" (`{source.table.replace('`', '')}`, SHA-256 {source.sha256[:16]}). {site.refused} films were kept out by the"
        f" gate, {site.unreadable} could not be read. Every figure after the change is cross-validated over patients."
        " Operating points and calibration further down are those before it.",
        "",
        f"Films raised: {_raised(site.raised_before, volume)} before, {_raised(site.raised_after, volume)} after.",
        "",
        "| label | films with it, of all | calibration | operating point | sensitivity | specificity | ECE | Brier |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in site.changed:
        how = row.why if row.method == KEEP else f"{row.method}, {row.why}"
        lines.append(
            f"| {row.label.replace('_', ' ')} | {row.positives} of {row.films} | {how} |"
            f" {row.threshold_before:.3g} → {row.threshold_after:.3g} ({row.threshold_by}) |"
            f" {_pair(row.sensitivity_before, row.sensitivity_after)} |"
            f" {_pair(row.specificity_before, row.specificity_after)} |"
            f" {_numbers(row, 'ece')} | {_numbers(row, 'brier')} |"
        )
    return lines


def _without_section(card: str) -> str:
    start = card.find(HEADING)
    if start < 0:
        return card
    end = card.find("\n## ", start + len(HEADING))
    return card[:start] + ("" if end < 0 else card[end + 1 :])


def _raised(share: Estimate, volume: float | None) -> str:
    if volume is None:
        return f"{100 * share.value:.1f} of 100 ({100 * share.low:.1f} to {100 * share.high:.1f})"
    day = per_day(share, volume)
    return f"{day['value']:.1f} of {volume:g} a day ({day['low']:.1f} to {day['high']:.1f})"


def _pair(before: Estimate | None, after: Estimate | None) -> str:
    if before is None or after is None:
        return "too few films"
    return f"{_percent(before)} → {_percent(after)}"


def _percent(one: Estimate) -> str:
    return f"{100 * one.value:.0f} % ({100 * one.low:.0f} to {100 * one.high:.0f})"


def _numbers(row: LabelChange, name: str) -> str:
    if row.before is None or row.after is None:
        return "too few films"
    return f"{getattr(row.before, name):.3f} → {getattr(row.after, name):.3f}"
