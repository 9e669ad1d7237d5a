"""What the headers of DICOM films say: identifiers to find them by, patient, age, sex, view. Pixels are not read."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydicom.dataset import Dataset

from firstread.models.data.person import OLDEST_YEARS, age_of, sex_of, view_of
from firstread.models.eligibility import is_image_for_us
from firstread.models.header import UnreadableRadiograph, read_header, text
from firstread.models.prediction import years_between

KEYS = ("SOPInstanceUID", "AccessionNumber", "StudyInstanceUID")

_COLUMNS = (
    *("Modality", "Manufacturer", "ManufacturerModelName", "InstitutionName", "StationName", "StudyDate"),
    *("BodyPartExamined", "ViewPosition", "PresentationIntentType", "PhotometricInterpretation"),
)
_MOST_KEPT = 200


@dataclass(frozen=True)
class HeaderFacts:
    """One file: ``keys`` by attribute name, who and how, and ``columns`` for subgroups (scanner, site)."""

    path: Path
    keys: Mapping[str, str]
    patient: str
    age: float | None
    sex: str
    view: str
    columns: Mapping[str, str]


def facts_of(path: Path) -> HeaderFacts:
    """The facts of one file.

    Raises:
        UnreadableRadiograph: it is no DICOM, or cut short within the header.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that break their VR are common, and some warnings quote them
        return _facts(path, read_header(path))


def known_of_header(header: Dataset) -> dict[str, float | str | None]:
    """Age in years, sex and view, as networks that read metadata take them.

    What the header does not say is None or empty.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some quote the value that breaks its VR
        facts = _facts(Path(), header)
    return {"age": facts.age, "sex": facts.sex, "view": facts.view}


def _facts(path: Path, header: Dataset) -> HeaderFacts:
    issuer = text(header, "IssuerOfPatientID")
    patient = text(header, "PatientID")
    age = age_of(text(header, "PatientAge")) or None  # 000Y is somebody's default
    if age is None:
        birth, day = _day(text(header, "PatientBirthDate")), _day(text(header, "StudyDate"))
        years = years_between(birth, day) if birth and day else -1.0
        age = years if 0 <= years <= OLDEST_YEARS else None
    return HeaderFacts(
        path=path,
        keys={key: text(header, key) for key in (*KEYS, "SOPClassUID")},
        patient=f"{issuer}:{patient}" if issuer and patient else patient,
        age=age,
        sex=sex_of(text(header, "PatientSex")),
        view=view_of(text(header, "ViewPosition")),
        columns={key: said[:_MOST_KEPT] for key in _COLUMNS if (said := text(header, key))},
    )


def read_headers(paths: Iterable[Path]) -> tuple[tuple[HeaderFacts, ...], tuple[str, ...]]:
    """The facts of every image among ``paths``, and a sentence per file that cannot be read.

    Reports, presentation states and other objects without an image for us are passed over.
    """
    facts: list[HeaderFacts] = []
    broken: list[str] = []
    for path in paths:
        try:
            one = facts_of(path)
        except UnreadableRadiograph as error:
            broken.append(f"{path}: {error}")
            continue
        if not one.keys["SOPClassUID"] or is_image_for_us(one.keys["SOPClassUID"]):
            facts.append(one)
    return tuple(facts), tuple(broken)


def _day(said: str) -> date | None:
    digits = said.replace("-", "").replace(".", "")
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])) if len(digits) == 8 else None
    except ValueError:
        return None
