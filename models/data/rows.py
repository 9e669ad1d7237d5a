"""What one row of a label table says of a film: labels, patient, age, sex, view, and how the film was made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from firstread.models.data import labels as said
from firstread.models.data.columns import Columns, number_of
from firstread.models.data.film import Film
from firstread.models.data.folder import looks_like_dicom
from firstread.models.data.person import LATERAL, age_of, sex_of, view_of
from firstread.models.data.problems import Complaints
from firstread.models.data.text_table import Row, TextTable
from firstread.models.findings import LABELS, NO_FINDING

OWN = "film:"
"""Begins the patient of a film of whom nothing is known: one of its own."""

_ODD = {"odd age": "no age", "odd sex": "neither F nor M", "odd number": "no number"}
_NOT_TOLD = frozenset({"", "u", "o", "unknown", "n/a", "na", "nan", "none", "null", "?", "other", "-"})

Value = TypeVar("Value")


@dataclass
class RowReader:
    """Reads the rows of one table. ``ignored``: findings outside the fifteen that may stand there, by their letters."""

    text: TextTable
    columns: Columns
    complaints: Complaints
    ignored: frozenset[str] = frozenset()
    _odd: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    _assessed: frozenset[str] | None = None

    def film(self, row: Row, key: str, path: Path) -> Film:
        """The film at ``path`` as its row tells; a patient that no column names is ``film:`` and the key.

        Raises:
            DataError: when strict: unknown, repeated or contradictory labels, marks that are none, no patient.
        """
        columns, cells = self.columns, row.cells
        target, known = self._labels(row)
        contradiction = said.contradicts(target, known)
        if contradiction:
            self.complaints.error(
                "contradictory row",
                f"{self.text.where(row)}: {contradiction}: correct the row",
                row=row.number,
                path=path,
            )
            known = known * 0
        patient = cells[columns.patient] if columns.patient else ""
        if columns.patient and not patient and not looks_like_dicom(path):
            self.complaints.error(
                "no patient", f"{self.text.where(row)}: names no patient: fill it in or take it out", row=row.number
            )
        views = [view_of(cells[name]) for name in columns.views]
        return Film(
            key=key,
            patient=_nih_patient(patient) if columns.nih and patient else patient or f"{OWN}{key}",
            target=target,
            known=known,
            phantom=False,
            view=LATERAL if LATERAL in views else next((view for view in views if view), ""),
            nuisances={name: value for name in columns.nuisances if (value := self._number(row, name)) is not None},
            path=path,
            row=row.number,
            sex=self._read(row, columns.sex, "odd sex", sex_of, ""),
            age=self._read(row, columns.age, "odd age", age_of, None),
            columns=dict(cells),
        )

    def say_what_was_odd(self) -> None:
        """A warning per kind of cell that could not be understood and was taken as unknown."""
        for kind, met in self._odd.items():
            number, cell = met[0]
            many = f" ({len(met)} such rows)" if len(met) > 1 else ""
            self.complaints.warning(
                kind, f"{self.text.where(number)}: {cell!r} is {_ODD[kind]}: taken as unknown{many}", row=number
            )

    @property
    def assessed(self) -> frozenset[str]:
        """Labels that the table speaks of at all: where no row names one, nobody may have looked for it."""
        if self._assessed is None:
            if self.columns.nih:
                self._assessed = frozenset(LABELS)
            elif self.columns.labels is None:
                self._assessed = frozenset(self.columns.marks)
            else:
                cells = {row.cells[self.columns.labels] for row in self.text.rows}
                self._assessed = frozenset(label for cell in cells for label in said.named_in(cell).labels)
        return self._assessed

    def _labels(self, row: Row) -> tuple[said.Vector, said.Vector]:
        if self.columns.labels is None:
            return said.from_marks(dict(self._marks(row)))
        named = said.named_in(row.cells[self.columns.labels])
        for name in named.unknown:
            if said.letters(name) not in self.ignored:
                self.complaints.error(
                    "unknown label",
                    f"{self.text.where(row)}: {name[:120]!r} is none of the 15 labels ({', '.join(LABELS)}): correct "
                    "it, or say that it is to be ignored",
                    row=row.number,
                )
        for name in named.twice:
            self.complaints.error(
                "label twice", f"{self.text.where(row)}: {name} stands twice: keep one, or correct it", row=row.number
            )
        if self.columns.nih and not named.labels and not named.unknown:
            self.complaints.error(
                "no label", f"{self.text.where(row)}: has no label: write No Finding or take it out", row=row.number
            )
        target, known = said.from_names(named.labels, self.assessed, other_finding=bool(named.unknown))
        if named.unknown and NO_FINDING in named.labels:
            # Some other finding beside No Finding: which of the two is meant nobody can say.
            known[LABELS.index(NO_FINDING)] = 0
        return target, known

    def _marks(self, row: Row) -> Iterator[tuple[str, float]]:
        for label, column in self.columns.marks.items():
            cell = row.cells[column]
            value = said.mark(cell)
            if value is None:
                self.complaints.error(
                    "unreadable mark",
                    f"{self.text.where(row)}: {cell[:120]!r} in column {column!r} is neither 1, 0, -1, u nor empty: "
                    "correct it",
                    row=row.number,
                )
            elif cell:
                yield label, value

    def _number(self, row: Row, column: str) -> float | None:
        return self._read(row, column, "odd number", number_of, None)

    def _read(self, row: Row, column: str | None, kind: str, read: Callable[[str], Value], nothing: Value) -> Value:
        """A cell as a value; one that says something that cannot be understood is counted."""
        cell = row.cells[column] if column else ""
        value = read(cell) if cell else nothing
        if cell and value == nothing and cell.casefold() not in _NOT_TOLD:
            self._odd.setdefault(kind, []).append((row.number, cell))
        return value


def _nih_patient(said_id: str) -> str:
    return f"nih-{int(said_id)}" if said_id.isdecimal() else f"nih-{said_id}"
