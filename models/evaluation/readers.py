"""Labels by several readers: how far they agree, and the model against each of them and against their majority.

A reader is a column of the table. Its cells hold the labels that the reader saw, joined by ``|`` (or ``;`` or ``,``),
``No Finding`` for none; an empty cell means that the reader has not read the film. Columns called after readers are
found by themselves (``reader_1``, ``Reader A``); others are named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from firstread.models.bundle import Bundle
from firstread.models.data.film import DataError, Film
from firstread.models.data.labels import named_in
from firstread.models.evaluation import figures
from firstread.models.evaluation.agreement import Kappa, cohen, consensus, fleiss
from firstread.models.evaluation.figures import DRAWS, FEWEST, Figure, Flags, Numbers, Share, too_few
from firstread.models.evaluation.score import Scores, where
from firstread.models.findings import LABELS, NO_FINDING

_READER = re.compile(r"reader(\d+|[ _-]\w+)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Readings:
    """``called``: [N, R, 15] 1 where a reader called a label, 0 where not, NaN where the film was not read by them."""

    readers: tuple[str, ...]
    called: Numbers


@dataclass(frozen=True)
class ReaderPair:
    """Two readers on the films that both have read."""

    first: str
    second: str
    kappa: Kappa


@dataclass(frozen=True)
class Against:
    """Somebody's calls against a standard: how they rank (the model only), what they catch, how far they agree.

    ``reason``: why there are no figures, empty when there are. ``sensitivity`` and ``specificity`` are None for a
    model without an operating point.
    """

    positives: int
    negatives: int
    reason: str = ""
    auroc: Figure | None = None
    sensitivity: Share | None = None
    specificity: Share | None = None
    kappa: Kappa | None = None


@dataclass(frozen=True)
class LabelReaders:
    """One label: the readers among themselves, against the majority of the *other* readers, and the model.

    ``ties``: films on which as many called it as did not; the majority is silent there.
    ``reader_against_others``: empty with two readers, where the others' majority is the other reader.
    """

    label: str
    reason: str
    fleiss: Kappa | None
    pairs: tuple[ReaderPair, ...]
    ties: int
    model_against_consensus: Against | None
    model_against_reader: Mapping[str, Against]
    reader_against_others: Mapping[str, Against]


def find_readers(films: Sequence[Film], named: Sequence[str] = ()) -> Readings | None:
    """The readers' labels: of the columns ``named``, else of those called ``reader_1``, ``Reader A``; None without any.

    Raises:
        DataError: a named column is not there, fewer than two are named, or a cell holds what is no label.
    """
    there = list(dict.fromkeys(name for film in films for name in film.columns))
    missing = [name for name in named if name not in there]
    if missing:
        raise DataError(f"the table has no column {missing[0]!r} for a reader: it has {', '.join(there) or 'none'}")
    readers = tuple(dict.fromkeys(named)) or tuple(name for name in there if _READER.fullmatch(name.strip()))
    if not readers:
        return None
    if len(readers) < 2:
        if not named:
            return None
        raise DataError(f"{readers[0]!r} is the only reader: agreement needs two or more columns")
    called = np.full((len(films), len(readers), len(LABELS)), np.nan)
    for row, film in enumerate(films):
        for column, reader in enumerate(readers):
            labels = _labels(film, reader)
            if labels is not None:
                called[row, column] = [label in labels for label in LABELS]
    return Readings(readers, called)


def judged_by_consensus(films: Sequence[Film], readings: Readings) -> tuple[Film, ...]:
    """The same films with the readers' majority for labels; unknown where they are evenly split or nobody has read."""
    majority = np.stack([consensus(readings.called[:, :, i]) for i in range(len(LABELS))], axis=1)
    return tuple(
        replace(film, target=np.nan_to_num(row).astype(np.float32), known=np.isfinite(row).astype(np.float32))
        for film, row in zip(films, majority, strict=True)
    )


def compare_readers(bundle: Bundle, scores: Scores, readings: Readings, draws: int = DRAWS) -> tuple[LabelReaders, ...]:
    """Agreement and comparison for every label that any reader has called."""
    found = []
    for column, label in enumerate(LABELS):
        called = readings.called[:, :, column]
        if not np.nansum(called):
            continue
        found.append(_label(bundle, scores, readings.readers, called, label, draws))
    return tuple(found)


def as_json(readings: Readings, found: Sequence[LabelReaders]) -> dict[str, Any]:
    """``{readers: {name: films read}, labels: {name: {reason, fleiss, pairs [..], ties, model_against_consensus,
    model_against_reader {reader: ..}, reader_against_others {reader: ..}}}}``; a kappa is ``{value, low, high, agreed,
    films}``, a comparison ``{positives, negatives, reason, auroc, sensitivity, specificity, kappa}``."""
    read = (~np.isnan(readings.called[:, :, 0])).sum(axis=0)
    return {
        "readers": {reader: int(count) for reader, count in zip(readings.readers, read, strict=True)},
        "labels": {
            one.label: {key: value for key, value in asdict(one).items() if key != "label"}
            | {"reason": one.reason or None}
            for one in found
        },
    }


def _labels(film: Film, reader: str) -> set[str] | None:
    text = film.columns.get(reader, "").strip()
    if not text:
        return None
    named = named_in(text)
    if named.unknown:
        raise DataError(
            f"{where(film)}, column {reader!r}: {named.unknown[0]!r} is none of the labels ({', '.join(LABELS)}):"
            " correct the cell, or name the readers' columns"
        )
    labels = set(named.labels)
    if NO_FINDING in labels and len(labels) > 1:
        raise DataError(f"{where(film)}, column {reader!r}: No Finding stands beside a finding: correct the cell")
    return labels


def _label(
    bundle: Bundle, scores: Scores, readers: Sequence[str], called: Numbers, label: str, draws: int
) -> LabelReaders:
    patients = [film.patient for film in scores.films]
    films_called = int((np.nansum(called, axis=1) > 0).sum())
    if films_called < FEWEST:
        reason = f"too few films: {films_called} were called by any reader, {FEWEST} are needed"
        return LabelReaders(label, reason, None, (), 0, None, {}, {})
    majority = consensus(called)
    read = ~np.isnan(called)
    pairs = []
    for i, first in enumerate(readers):
        for j in range(i + 1, len(readers)):
            both = read[:, i] & read[:, j]
            if both.sum() >= FEWEST:
                kappa = cohen(called[both, i] > 0, called[both, j] > 0, _of(patients, both), draws)
                pairs.append(ReaderPair(first, readers[j], kappa))
    others = {}
    if len(readers) > 2:
        for i, reader in enumerate(readers):
            standard = consensus(np.delete(called, i, axis=1))
            usable = read[:, i] & ~np.isnan(standard)
            others[reader] = _calls_against(called[usable, i] > 0, standard[usable] > 0, _of(patients, usable), draws)
    assessed = label in scores.labels
    return LabelReaders(
        label=label,
        reason="",
        fleiss=fleiss(called, patients, draws),
        pairs=tuple(pairs),
        ties=int((np.isnan(majority) & read.any(axis=1)).sum()),
        model_against_consensus=_model_against(bundle, scores, label, majority, draws) if assessed else None,
        model_against_reader={
            reader: _model_against(bundle, scores, label, called[:, i], draws)
            for i, reader in enumerate(readers)
            if assessed
        },
        reader_against_others=others,
    )


def _of(patients: Sequence[str], chosen: Flags) -> list[str]:
    return [patient for patient, taken in zip(patients, chosen, strict=True) if taken]


def _calls_against(calls: Flags, standard: Flags, patients: Sequence[str], draws: int) -> Against:
    positives, negatives = int(standard.sum()), int((~standard).sum())
    reason = too_few(standard, patients)
    if reason:
        return Against(positives, negatives, reason)
    table = figures.operating_figures(standard, calls.astype(np.float64), 0.5)
    kappa = cohen(calls, standard, patients, draws)
    return Against(positives, negatives, "", None, table.sensitivity, table.specificity, kappa)


def _model_against(bundle: Bundle, scores: Scores, label: str, standard: Numbers, draws: int) -> Against:
    usable = scores.read & ~np.isnan(standard)
    present = standard[usable] > 0
    probability = scores.probabilities[usable, scores.column(label)]
    patients = _of([film.patient for film in scores.films], usable)
    positives, negatives = int(present.sum()), int((~present).sum())
    reason = too_few(present, patients)
    if reason:
        return Against(positives, negatives, reason)
    auroc = figures.auroc_figure(present, probability, patients, draws)
    threshold = bundle.thresholds.get(label)
    if threshold is None:
        return Against(positives, negatives, "", auroc)
    return replace(_calls_against(probability >= threshold, present, patients, draws), auroc=auroc)
