"""May this image be analysed, as far as its header tells? A list of small rules, each with a code and a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

from pydicom.dataset import Dataset
from pydicom.uid import UID

from firstread.models.findings import ReasonCode
from firstread.models.header import integer, items, text, texts
from firstread.models.prediction import Reason, years_between
from firstread.models.wording import EligibilityTable, EligibilityTableError, load_table, own_table, plain

__all__ = [
    "DEFAULT_MINIMUM_AGE_YEARS",
    "RULES",
    "SMALLEST_SIDE",
    "EligibilityTable",
    "EligibilityTableError",
    "Film",
    "is_for_processing",
    "is_image_for_us",
    "judge",
    "load_table",
]

DEFAULT_MINIMUM_AGE_YEARS = 18.0
"""A child's chest is another picture (thymus, proportions); a site that knows its bundle may lower it."""

OLDEST_YEARS = 125.0

SMALLEST_SIDE = 128
"""Pixels: a chest film below it is a thumbnail or a test image."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."

FOR_PROCESSING_CLASSES = frozenset(_STORAGE + tail for tail in ("1.1.1", "1.2.1", "1.3.1"))
RADIOGRAPH_CLASSES = frozenset(_STORAGE + tail for tail in ("1", "1.1", "1.1.1"))
CAPTURE_CLASSES = frozenset(_STORAGE + tail for tail in ("7", "7.1", "7.2", "7.3", "7.4"))
OTHER_PART_CLASSES = frozenset(_STORAGE + tail for tail in ("1.2", "1.2.1", "1.3", "1.3.1", "13.1.3"))
"""Mammography, intra-oral and tomosynthesis: radiographs, never of a chest."""

_OTHER_IMAGE_CLASSES = frozenset(
    _STORAGE + tail
    for tail in (
        *("2", "2.1", "2.2", "3", "3.1", "4", "4.1", "4.3", "4.4", "5", "6", "6.1", "6.2", "20", "30"),
        *("12.1", "12.1.1", "12.2", "12.2.1", "12.3", "13.1.1", "13.1.2", "13.1.4", "13.1.5", "14.1", "14.2"),
        *("77.1", "77.2", "77.1.1", "77.1.1.1", "77.1.2", "77.1.2.1", "77.1.3", "77.1.4", "77.1.4.1"),
        *("77.1.5.1", "77.1.5.2", "77.1.5.3", "77.1.5.4", "77.1.5.7", "77.1.5.8", "77.1.6", "77.1.7"),
        *("128", "128.1", "130", "481.1"),
    )
)
"""CT, MR, ultrasound, angiography, nuclear medicine, photographs ...: images, each ends as "not a radiograph"."""


def is_image_for_us(sop_class_uid: str) -> bool:
    """Is an object of this class an image worth judging?

    False for what is kept and left alone: presentation states, key objects, reports, PDF, dose, waveforms, and classes
    unknown to this list.
    """
    return sop_class_uid in RADIOGRAPH_CLASSES | CAPTURE_CLASSES | OTHER_PART_CLASSES | _OTHER_IMAGE_CLASSES


def is_for_processing(header: Dataset) -> bool:
    """Raw detector values, which have no display meaning [PS3.3 C.8.11.1]."""
    return (
        text(header, "SOPClassUID") in FOR_PROCESSING_CLASSES
        or text(header, "PresentationIntentType").upper() == "FOR PROCESSING"
    )


@dataclass(frozen=True)
class Film:
    """What the rules look at."""

    header: Dataset
    table: EligibilityTable
    minimum_age_years: float

    def said_of_image(self) -> Iterator[tuple[str, str]]:
        """(attribute, text) of what describes this image or its series."""
        for keyword in (
            "SeriesDescription",
            "ProtocolName",
            "AcquisitionDeviceProcessingDescription",
            "AcquisitionProtocolDescription",
        ):
            yield keyword, text(self.header, keyword)
        for keyword in ("PerformedProtocolCodeSequence", "SeriesDescriptionCodeSequence"):
            for item in items(self.header, keyword):
                yield keyword, text(item, "CodeMeaning")

    def said_of_study(self) -> Iterator[tuple[str, str]]:
        """(attribute, text) of what describes the whole study, which may hold several parts and views."""
        steps = ("RequestedProcedureDescription", "ScheduledProcedureStepDescription")
        for keyword in ("StudyDescription", "PerformedProcedureStepDescription", *steps):
            yield keyword, text(self.header, keyword)
        for keyword in ("ProcedureCodeSequence", "RequestedProcedureCodeSequence"):
            for item in items(self.header, keyword):
                yield keyword, text(item, "CodeMeaning")
        for item in items(self.header, "RequestAttributesSequence"):
            for keyword in steps:
                yield keyword, text(item, keyword)

    def said(self) -> Iterator[tuple[str, str]]:
        """Everything that was said of image and study."""
        yield from self.said_of_image()
        yield from self.said_of_study()


Rule = Callable[[Film], Reason | None]


def judge(
    header: Dataset,
    table: EligibilityTable | None = None,
    *,
    minimum_age_years: float = DEFAULT_MINIMUM_AGE_YEARS,
) -> Reason | None:
    """Why this image must not be analysed, None when nothing in its header speaks against it.

    Unknown is not "no": a film with empty or contradicting attributes returns None and goes to the model's own gate.
    ``header``: as from ``firstread.models.radiograph.read_header``; values that break their VR count as unknown.
    """
    film = Film(header, table or own_table(), minimum_age_years)
    for rule in RULES:
        reason = rule(film)
        if reason is not None:
            return reason
    return None


def _class_of_another_modality(film: Film) -> Reason | None:
    """The SOP class says what made the image."""
    uid = text(film.header, "SOPClassUID")
    if not uid or uid in RADIOGRAPH_CLASSES | CAPTURE_CLASSES:
        return None
    if uid in OTHER_PART_CLASSES:
        return Reason(ReasonCode.NOT_A_CHEST, _class_name(uid))
    return Reason(ReasonCode.NOT_A_RADIOGRAPH, _class_name(uid))


def _class_name(uid: str) -> str:
    name = UID(uid).name
    return "an object of an unknown class" if name == uid else name.removesuffix(" Storage")


def _modality(film: Film) -> Reason | None:
    modality = text(film.header, "Modality").upper()
    table = film.table
    if not modality or table.code("radiograph_modalities", modality):
        return None
    if table.code("other_part_modalities", modality):
        return Reason(ReasonCode.NOT_A_CHEST, f"Modality {modality}")
    captured = text(film.header, "SOPClassUID") in CAPTURE_CLASSES
    if not captured and table.code("unclear_modalities", modality):
        return None
    if captured and table.code("unclear_modalities", modality) and _sounds_like_a_radiograph(film):
        return None
    return Reason(ReasonCode.NOT_A_RADIOGRAPH, f"{'a secondary capture with ' if captured else ''}Modality {modality}")


def _sounds_like_a_radiograph(film: Film) -> bool:
    """A secondary capture without a radiographic modality: does anything else say film of a chest?"""
    if text(film.header, "ViewPosition") or text(film.header, "KVP"):
        return True
    if any(film.table.word("radiograph", said) for _, said in film.said()):
        return True
    named = [text(film.header, "BodyPartExamined"), *(said for _, said in film.said_of_image())]
    return any(_chest_in(film.table, said) for said in named)


def _document(film: Film) -> Reason | None:
    """Scanned forms, dose sheets and screens come as secondary captures of the same study."""
    for keyword, said in film.said_of_image():
        word = film.table.word("not_a_film", said)
        if word is None and text(film.header, "SOPClassUID") in CAPTURE_CLASSES:
            word = film.table.word("document", said)
        if word is not None:
            return Reason(ReasonCode.NOT_A_RADIOGRAPH, _says(keyword, word))
    conversion = text(film.header, "ConversionType")
    scanned = film.table.code("document_conversions", conversion)
    if scanned and not film.table.code("radiograph_modalities", text(film.header, "Modality")):
        return Reason(ReasonCode.NOT_A_RADIOGRAPH, f"Conversion Type {conversion}: a scanned document")
    return None


def _animal(film: Film) -> Reason | None:
    """What the veterinary attributes [PS3.3 C.7.1.1] or the descriptions say."""
    header, table = film.header, film.table
    species = text(header, "PatientSpeciesDescription")
    if species and table.word("human", species) is None:
        return Reason(ReasonCode.ANIMAL, "Patient Species Description names no human")
    for item in items(header, "PatientSpeciesCodeSequence"):
        code = text(item, "CodeValue")
        if code and not table.code("human_species", code) and table.word("human", text(item, "CodeMeaning")) is None:
            return Reason(ReasonCode.ANIMAL, f"Patient Species Code {code}")
    for keyword in ("PatientBreedDescription", "PatientSexNeutered", "StrainDescription"):
        if text(header, keyword):
            return Reason(ReasonCode.ANIMAL, f"{_label(keyword)} is filled")
    for keyword in ("PatientBreedCodeSequence", "BreedRegistrationSequence"):
        if any(len(item) for item in items(header, keyword)):
            return Reason(ReasonCode.ANIMAL, f"{_label(keyword)} is filled")
    if text(header, "ResponsiblePersonRole").upper() == "OWNER":
        return Reason(ReasonCode.ANIMAL, "the Responsible Person is an owner")
    for keyword, said in (("BodyPartExamined", text(header, "BodyPartExamined")), *film.said()):
        if word := table.word("animal", said):
            return Reason(ReasonCode.ANIMAL, _says(keyword, word))
    for keyword in ("InstitutionName", "InstitutionalDepartmentName"):
        if word := table.word("animal_house", text(header, keyword)):
            return Reason(ReasonCode.ANIMAL, _says(keyword, word))
    return None


def _for_processing(film: Film) -> Reason | None:
    if is_for_processing(film.header):
        return Reason(ReasonCode.FOR_PROCESSING, "raw detector values have no display meaning")
    return None


def _several_frames(film: Film) -> Reason | None:
    frames = integer(film.header, "NumberOfFrames") or 1
    return Reason(ReasonCode.SEVERAL_FRAMES, f"{frames} frames in one object") if frames > 1 else None


def _too_small(film: Film) -> Reason | None:
    rows, columns = integer(film.header, "Rows"), integer(film.header, "Columns")
    if rows is None or columns is None or min(rows, columns) >= SMALLEST_SIDE:
        return None
    return Reason(ReasonCode.TOO_SMALL, f"{columns} x {rows} pixels")


def _below_minimum_age(film: Film) -> Reason | None:
    ages = [age for age in (_age_by_birth(film.header), _age_as_said(film.header)) if age is not None]
    # Two statements that contradict each other are as good as none.
    if not ages or max(ages) >= film.minimum_age_years:
        return None
    youngest = min(ages)
    told = f"{youngest:.0f} years" if youngest >= 2 else f"{youngest * 12:.0f} months"
    return Reason(ReasonCode.BELOW_MINIMUM_AGE, f"{told}, the minimum is {film.minimum_age_years:g} years")


def _age_by_birth(header: Dataset) -> float | None:
    """Years from birth to the film; None where a date is missing, hashed or impossible."""
    birth = _day(text(header, "PatientBirthDate"))
    keywords = ("AcquisitionDate", "ContentDate", "SeriesDate", "StudyDate")
    days = [day for keyword in keywords if (day := _day(text(header, keyword))) is not None]
    if birth is None or not days:
        return None
    age = years_between(birth, days[-1])
    return age if 0 <= age <= OLDEST_YEARS else None


def _age_as_said(header: Dataset) -> float | None:
    """PatientAge: ``045Y``, ``006M`` ...; a bare number is years, all zeros is somebody's default."""
    found = re.fullmatch(r"(\d{1,3})([DWMY]?)", text(header, "PatientAge").upper().replace(" ", ""))
    if found is None or int(found.group(1)) == 0:
        return None
    age = int(found.group(1)) * {"D": 1 / 365.2425, "W": 7 / 365.2425, "M": 1 / 12}.get(found.group(2), 1.0)
    return age if age <= OLDEST_YEARS else None


def _day(said: str) -> date | None:
    found = re.fullmatch(r"(\d{4})[.\-/]?(\d{2})[.\-/]?(\d{2})", said)
    try:
        return date(*map(int, found.groups())) if found else None
    except ValueError:
        return None


def _not_a_chest(film: Film) -> Reason | None:
    """Another part is named and the chest is not; the image's own attributes come before the study's."""
    header, table = film.header, film.table
    regions = [(text(item, "CodeValue"), text(item, "CodeMeaning")) for item in items(header, "AnatomicRegionSequence")]
    named = [("BodyPartExamined", text(header, "BodyPartExamined"))]
    named += [("AnatomicRegionSequence", meaning) for _, meaning in regions]
    of_image = [*named, *film.said_of_image()]
    if any(table.code("chest_regions", code) for code, _ in regions):
        return None
    if any(_chest_in(table, said) for _, said in of_image):
        return None
    for code, meaning in regions:
        if table.code("other_regions", code):
            return Reason(ReasonCode.NOT_A_CHEST, _says("AnatomicRegionSequence", meaning or code))
    for keyword, said in of_image:
        if word := table.word("other_part", said):
            return Reason(ReasonCode.NOT_A_CHEST, _says(keyword, word))
    of_study = list(film.said_of_study())
    if any(_chest_in(table, said) for _, said in of_study):
        return None
    for keyword, said in of_study:
        if word := table.word("other_part", said):
            return Reason(ReasonCode.NOT_A_CHEST, _says(keyword, word))
    return None


def _chest_in(table: EligibilityTable, said: str) -> bool:
    return table.word("chest", table.without("other_part", said)) is not None


def _not_a_frontal_view(film: Film) -> Reason | None:
    """Lateral, oblique and unusual views; contradictions (PA in one place, lateral in another) are left to the gate."""
    header, table = film.header, film.table
    position = text(header, "ViewPosition")
    views = items(header, "ViewCodeSequence")
    codes = [text(view, "CodeValue") for view in views]
    spoken = [("ViewPosition", position)]
    spoken += [("ViewCodeSequence", text(view, "CodeMeaning")) for view in views]
    spoken += list(film.said_of_image())
    for keyword, said in spoken:
        word = table.word("unusual_view", said)
        if word is not None or (keyword == "ViewPosition" and table.code("unusual_views", said)):
            return Reason(ReasonCode.OUTSIDE_EXPERIENCE, f"{_says(keyword, word or plain(said))}: an unusual view")
    if table.code("frontal_views", position) or any(table.code("frontal_view_codes", code) for code in codes):
        frontal = True
    else:
        frontal = any(table.word("frontal", said) for _, said in spoken)
    if frontal:
        return None
    if table.code("oblique_views", position) or any(table.code("oblique_view_codes", code) for code in codes):
        return Reason(ReasonCode.OUTSIDE_EXPERIENCE, "an oblique view")
    for keyword, said in spoken:
        if word := table.word("oblique", said):
            return Reason(ReasonCode.OUTSIDE_EXPERIENCE, f"{_says(keyword, word)}: an oblique view")
    if table.code("lateral_views", position):
        return Reason(ReasonCode.LATERAL_VIEW, f"View Position {position}")
    if any(table.code("lateral_view_codes", code) for code in codes):
        return Reason(ReasonCode.LATERAL_VIEW, "View Code Sequence says so")
    for keyword, said in spoken:
        if word := table.word("lateral", said):
            return Reason(ReasonCode.LATERAL_VIEW, _says(keyword, word))
    if any(direction[:1].upper() in ("A", "P") for direction in texts(header, "PatientOrientation")[:2]):
        return Reason(ReasonCode.LATERAL_VIEW, "Patient Orientation runs from front to back")
    return None


def _computed_film(film: Film) -> Reason | None:
    """Bone suppression and the like: a film that the model never saw, beside the one that it can read."""
    for keyword, said in film.said_of_image():
        if word := film.table.word("processed", said):
            return Reason(ReasonCode.OUTSIDE_EXPERIENCE, f"{_says(keyword, word)}: a computed film")
    return None


def _says(keyword: str, word: str) -> str:
    return f'{_label(keyword)} says "{word}"'


def _label(keyword: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", keyword)


RULES: tuple[Rule, ...] = (
    _class_of_another_modality,
    _animal,
    _modality,
    _document,
    _for_processing,
    _several_frames,
    _too_small,
    _not_a_chest,
    _below_minimum_age,
    _not_a_frontal_view,
    _computed_film,
)
"""In this order: the first that speaks is the reason."""
