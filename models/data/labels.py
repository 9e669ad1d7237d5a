"""What a table says of a film's labels: names as people write them, marks for yes, no and unknown, contradictions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firstread.models.findings import LABELS, NO_FINDING, PATHOLOGIES

Vector = npt.NDArray[np.float32]

_OTHER_NAMES: Mapping[str, str] = {
    "pleuraleffusion": "Effusion",
    "effusions": "Effusion",
    "infiltrate": "Infiltration",
    "infiltrates": "Infiltration",
    "oedema": "Edema",
    "pulmonaryedema": "Edema",
    "pulmonaryoedema": "Edema",
    "lungconsolidation": "Consolidation",
    "lungmass": "Mass",
    "lungnodule": "Nodule",
    "pulmonarynodule": "Nodule",
    "lungfibrosis": "Fibrosis",
    "pulmonaryfibrosis": "Fibrosis",
    "hiatalhernia": "Hernia",
    "hiatushernia": "Hernia",
    "nofindings": NO_FINDING,
    "normal": NO_FINDING,
}

_PRESENT = frozenset({"1", "yes", "y", "true", "present", "positive"})
_ABSENT = frozenset({"0", "no", "n", "false", "absent", "negative"})
_UNKNOWN = frozenset({"", "-1", "u", "uncertain", "unknown", "nan", "na", "n/a", "none", "null", "?"})


def letters(name: str) -> str:
    """A name by its letters and digits alone, in lower case, so that spelling and spacing do not matter."""
    return re.sub(r"[\W_]+", "", name.casefold())


_BY_LETTERS = {letters(label): label for label in LABELS} | dict(_OTHER_NAMES)


def canonical(name: str) -> str | None:
    """The label that a name means (``Pleural Effusion``: Effusion), None when it is none of the fifteen."""
    return _BY_LETTERS.get(letters(name))


def mark(cell: str) -> float | None:
    """1 for yes, 0 for no, NaN for unknown (empty, -1, u), None when a cell is none of these."""
    said = cell.strip().casefold()
    if said in _UNKNOWN:
        return float("nan")
    if said in _PRESENT:
        return 1.0
    if said in _ABSENT:
        return 0.0
    try:
        number = float(said)
    except ValueError:
        return None
    return {1.0: 1.0, 0.0: 0.0, -1.0: float("nan")}.get(number)


@dataclass(frozen=True)
class Named:
    """What a cell of joined labels held: those known, those that are none of the fifteen, those that stood twice."""

    labels: tuple[str, ...]
    unknown: tuple[str, ...]
    twice: tuple[str, ...]


def named_in(cell: str) -> Named:
    """The labels of one cell, joined by ``|`` or ``;`` (or a comma)."""
    labels: list[str] = []
    unknown: list[str] = []
    twice: list[str] = []
    for name in re.split(r"[|;,]", cell):
        if not name.strip():
            continue
        label = canonical(name)
        if label is None:
            unknown.append(name.strip())
        else:
            (twice if label in labels else labels).append(label)
    return Named(tuple(labels), tuple(unknown), tuple(twice))


def from_names(labels: Iterable[str], assessed: Collection[str], other_finding: bool = False) -> tuple[Vector, Vector]:
    """``target`` and ``known`` [15] of a film that carries ``labels``, in a table that assesses ``assessed``.

    No Finding says that every other label is absent, and any finding (``other_finding``: one outside the fifteen) that
    No Finding is. A film with no label at all is unknown throughout: silence is not "nothing found".
    """
    carried = set(labels)
    target = np.array([label in carried for label in LABELS], np.float32)
    known = np.zeros(len(LABELS), np.float32)
    if not carried and not other_finding:
        return target, known
    for index, label in enumerate(LABELS):
        if label in carried or label in assessed or label == NO_FINDING or carried == {NO_FINDING}:
            known[index] = 1
    return target, known


def from_marks(marks: Mapping[str, float]) -> tuple[Vector, Vector]:
    """``target`` and ``known`` [15] of marks by label: 1, 0, or NaN where it was said to be uncertain.

    A label without a mark is unknown. Where No Finding has none it follows from the findings: one present denies it,
    all fourteen absent affirm it. A marked No Finding denies the findings that were not marked.
    """
    target, known = np.zeros(len(LABELS), np.float32), np.zeros(len(LABELS), np.float32)
    for index, label in enumerate(LABELS):
        value = marks.get(label, float("nan"))
        if np.isfinite(value):
            target[index], known[index] = value, 1
    nothing = LABELS.index(NO_FINDING)
    findings = [LABELS.index(label) for label in PATHOLOGIES]
    if not known[nothing]:
        if target[findings].any():
            known[nothing] = 1
        elif known[findings].all():
            target[nothing] = known[nothing] = 1
    elif target[nothing]:
        for index in findings:
            # An explicit "uncertain" beside No Finding stays open; a label without any column was not seen either.
            if LABELS[index] not in marks:
                known[index] = 1
    return target, known


def contradicts(target: Vector, known: Vector) -> str | None:
    """Why the labels cannot all be true (No Finding beside a finding), None when they can."""
    nothing = LABELS.index(NO_FINDING)
    present = [label for label in PATHOLOGIES if target[LABELS.index(label)] and known[LABELS.index(label)]]
    if target[nothing] and known[nothing] and present:
        return f"No Finding stands beside {' and '.join(present)}"
    return None
