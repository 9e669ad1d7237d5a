"""The plain dataclasses that cross rooms: what was seen in an image, what a study was judged to be."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from firstread.models.findings import REASON_MEANINGS, ReasonCode


class Priority(enum.IntEnum):
    """Reading priority, ordered: a larger value is read earlier."""

    ROUTINE = 1
    URGENT = 2
    STAT = 3


@dataclass(frozen=True)
class Reason:
    """Why something was not analysed: a code for machines and a sentence for people."""

    code: ReasonCode
    detail: str = ""

    @property
    def text(self) -> str:
        """``cannot decode: JPEG 2000 codestream ends early``"""
        meaning = REASON_MEANINGS[self.code]
        return f"{meaning}: {self.detail}" if self.detail else meaning


@dataclass(frozen=True)
class Box:
    """A rectangle in the stored film's own pixels (columns, rows; 0,0 is the outer corner of the first pixel)."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class ModelIdentity:
    """Which model spoke: a bundle's name, version and hash of its weights."""

    name: str
    version: str
    weights_sha256: str


@dataclass(frozen=True)
class Prediction:
    """What the model said of one image.

    ``probabilities``: label to [0, 1]; a label that the weights lack is absent ("not assessed").
    ``boxes``: label to where the evidence lies, for labels that were localised.
    """

    sop_instance_uid: str
    probabilities: Mapping[str, float]
    boxes: Mapping[str, Box]
    model: ModelIdentity
    notes: tuple[str, ...] = ()
    """What was put right in the film before it was analysed, in sentences that a reader must see."""


@dataclass(frozen=True)
class FindingResult:
    """One label of an assessed study.

    ``probability``: highest over the study's images (No Finding: lowest); None when not assessed or not claimed.
    ``threshold``: the operating point in force, None when the label has none.
    ``present``: at or above the operating point. For No Finding it is never more than "none of the assessed
    findings above threshold".
    ``raises``: the priority that this finding asks for, None when it asks for none.
    ``sop_instance_uid``: the image it was seen in.
    """

    label: str
    probability: float | None
    threshold: float | None = None
    present: bool = False
    raises: Priority | None = None
    experimental: bool = False
    sop_instance_uid: str | None = None
    box: Box | None = None
    not_assessed: str = ""
    """Why there is no probability: ``not assessed by this model``, ``one image could not be analysed`` ..."""


@dataclass(frozen=True)
class ImageOutcome:
    """What became of one image of the study: analysed when ``reason`` is None."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    reason: Reason | None = None


@dataclass(frozen=True)
class Assessment:
    """The result of one revision of a study: exactly one of ``findings`` or ``reason`` is filled.

    ``priority``: the highest of what was ordered, of every earlier revision and of this result. ROUTINE means that
    nothing was raised: then no priority leaves the house.
    ``priority_reason``: in words: ``pneumothorax 0.81 above 0.60``, ``kept from revision 1``.
    ``causes``: the labels that raised it.
    ``notes``: sentences that a reader must see: ``one of 2 images not analysed: lateral view``.
    """

    study_instance_uid: str
    revision: int
    created_at: datetime
    findings: tuple[FindingResult, ...] = ()
    reason: Reason | None = None
    priority: Priority = Priority.ROUTINE
    priority_reason: str = ""
    causes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    images: tuple[ImageOutcome, ...] = ()
    model: ModelIdentity | None = None

    @property
    def analysed(self) -> bool:
        """True when there are findings, False when there is a reason instead."""
        return self.reason is None


@dataclass(frozen=True)
class StudyIdentity:
    """Who and what a study is, as received (values are kept even where they break their VR)."""

    study_instance_uid: str
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    """DICOM PN in UTF-8, component groups separated by ``=``."""
    birth_date: str = ""
    """As received; YYYYMMDD when the sender kept to the standard."""
    sex: str = ""
    accession_number: str = ""
    accession_numbers: tuple[str, ...] = ()
    """All of them, when RequestAttributesSequence names several."""
    issuer_of_accession_number: str = ""
    placer_order_number: str = ""
    filler_order_number: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""
    procedure_code: str = ""
    procedure_scheme: str = ""
    procedure_meaning: str = ""
    modality: str = ""
    body_part: str = ""
    view_position: str = ""
    patient_age_years: float | None = None
    institution: str = ""
    station: str = ""
    patient_class: str = ""


def years_between(birth: date, day: date) -> float:
    """Age in years at ``day`` (365.2425 days a year)."""
    return (day - birth).days / 365.2425
