"""Which column of a label table means what, whoever named them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from firstread.models.data.film import DataError
from firstread.models.data.labels import canonical, letters
from firstread.models.data.text_table import TextTable

_IMAGE = (
    *("path", "imagepath", "filepath", "image", "imageindex", "file", "filename", "imagefile", "imagename", "imageid"),
    *("dicomfile", "dicompath", "dicomfilename", "dicomid", "png", "img", "filenames"),
)
_IDENTIFIERS = (
    ("SOPInstanceUID", ("sopinstanceuid", "sopuid", "instanceuid")),
    ("StudyInstanceUID", ("studyinstanceuid", "studyuid")),
    ("AccessionNumber", ("accessionnumber", "accession", "accessionno")),
)
_PATIENT = ("patientid", "patient", "patientkey", "subjectid", "subject", "personid", "patientnumber", "mrn", "pid")
_AGE = ("patientage", "age", "ageyears", "patientageyears")
_SEX = ("patientgender", "patientsex", "sex", "gender")
_VIEW = ("viewposition", "view", "frontallateral", "appa", "projection", "viewcodemeaning")
_LABELS = ("findinglabels", "labels", "label", "findings", "finding", "findinglabel")
_READER = re.compile(r"reader(\d+|[ _-]\w+)", re.IGNORECASE)
_NUISANCE = "source_"


@dataclass(frozen=True)
class Columns:
    """Names of columns; None or empty where there is none.

    ``identifiers``: DICOM attribute to column. ``labels``: joined labels; ``marks``: a column per label.
    ``views``: every column that may tell it. ``nuisances``: numbers of how the film was made (``source_...``).
    ``nih``: the table is one of NIH's: every row is taken at its word for all fifteen labels.
    """

    nih: bool
    image: str | None
    identifiers: Mapping[str, str]
    patient: str | None
    age: str | None
    sex: str | None
    views: tuple[str, ...]
    labels: str | None
    marks: Mapping[str, str]
    nuisances: tuple[str, ...]


def columns_of(table: TextTable) -> Columns:
    """What each column means.

    Raises:
        DataError: no column names the films, none says what they show, or two stand for one label.
    """
    named: dict[str, str] = {}
    for column in table.columns:
        named.setdefault(letters(column), column)

    def first(names: Sequence[str]) -> str | None:
        return next((named[name] for name in names if name in named), None)

    have = ", ".join(table.columns)
    identifiers = {key: found for key, names in _IDENTIFIERS if (found := first(names)) is not None}
    image = first(_IMAGE) or (None if identifiers else first(("id",)))
    if image is None and not identifiers:
        raise DataError(
            f"{table.path}: no column names the films (its columns: {have}): call one 'path' or 'image', or for DICOM "
            "SOPInstanceUID, StudyInstanceUID or AccessionNumber"
        )
    labels = first(_LABELS)
    marks = {} if labels else _marks(table)
    if labels is None and not marks and not any(_READER.fullmatch(column) for column in table.columns):
        raise DataError(
            f"{table.path}: no column says what the films show (its columns: {have}): call one 'labels' (joined by |), "
            "or have one column of 0 and 1 per label, called as NIH calls it"
        )
    return Columns(
        nih={"imageindex", "findinglabels", "patientid"} <= named.keys(),
        image=image,
        identifiers=identifiers,
        patient=first(_PATIENT),
        age=first(_AGE),
        sex=first(_SEX),
        views=tuple(named[name] for name in _VIEW if name in named),
        labels=labels,
        marks=marks,
        nuisances=tuple(column for column in table.columns if _is_nuisance(table, column)),
    )


def _marks(table: TextTable) -> dict[str, str]:
    marks: dict[str, str] = {}
    for column in table.columns:
        label = canonical(column)
        if label in marks:
            raise DataError(f"{table.path}, row 1: {marks[label]!r} and {column!r} both stand for {label}: remove one")
        if label is not None:
            marks[label] = column
    return marks


def _is_nuisance(table: TextTable, column: str) -> bool:
    if not column.lower().startswith(_NUISANCE):
        return False
    said = [row.cells[column] for row in table.rows if row.cells[column]]
    return bool(said) and sum(number_of(cell) is not None for cell in said) > 0.9 * len(said)


def number_of(cell: str) -> float | None:
    """A cell as a finite number, None when it is not one."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
