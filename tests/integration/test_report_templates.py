"""A report from prepared templates is byte for byte the one that highdicom builds."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pytest
from highdicom.sr import Comprehensive3DSR
from pydicom import dcmread
from pydicom.dataset import Dataset

from firstread.integration.dicom.report import Encoded, Predecessor, build_report, content, prepared
from firstread.models.findings import ReasonCode
from firstread.models.prediction import Assessment, Box, FindingResult, ImageOutcome, Priority, Reason
from tests.integration.report_cases import (
    DX,
    FILM,
    NOON,
    SERIES,
    SETTINGS,
    STUDY,
    film,
    finding,
    negative,
    not_analysed,
    positive,
    uids,
)

SECOND = FILM + ".77"
CR = "1.2.840.10008.5.1.4.1.1.1"


def report(
    assessment: Assessment, *sources: Dataset, templates: bool, predecessor: Predecessor | None = None
) -> Encoded:
    return build_report(
        assessment, sources, uids(assessment, "sr"), SETTINGS, predecessor=predecessor, content_datetime=NOON,
        templates=templates,
    )  # fmt: skip


def localised_everywhere() -> Assessment:
    """Every finding with a region of its own, on one of two films of different classes."""
    images = (ImageOutcome(FILM, DX, SERIES), ImageOutcome(SECOND, CR, SERIES))
    findings = tuple(
        replace(one, box=Box(10.5 + number, 20, 300, 400.25 + number), sop_instance_uid=(FILM, SECOND)[number % 2])
        for number, one in enumerate(positive().findings)
    )
    return positive(findings=findings, images=images)


def unlocalised_on_two_films() -> Assessment:
    """Probabilities that name no film refer to all that were read."""
    findings = tuple(replace(one, sop_instance_uid=None, box=None) for one in positive().findings)
    images = (ImageOutcome(FILM, DX, SERIES), ImageOutcome(SECOND, CR, SERIES))
    return positive(findings=findings, images=images, revision=3)


def odd_ones() -> Assessment:
    """Regions beside the film, no threshold, a threshold that is no number, an unknown finding, words in CJK."""
    findings = (
        finding("Pneumothorax", 0.9, box=Box(90_000, 0, 90_001, 2)),
        finding("Mass", 0.59999999, threshold=None),
        finding("Nodule", 0.1, threshold=float("nan")),
        FindingResult("Träg 肺", 0.6000001, 0.6, present=True, experimental=True, raises=Priority.URGENT),
        FindingResult("Edema", None, not_assessed="胸部 not in this model"),
        finding("Effusion", 1.0),
        finding("Hernia", 0.0),
    )
    return positive(findings=findings, causes=(), model=None)


CASES = {
    "positive": positive,
    "negative": negative,
    "not analysed": not_analysed,
    "not analysed, another reason": lambda: not_analysed(ReasonCode.LATERAL_VIEW, ""),
    "regions": localised_everywhere,
    "no film named": unlocalised_on_two_films,
    "odd": odd_ones,
    "no film read": lambda: positive(
        images=(ImageOutcome(FILM, DX, SERIES, Reason(ReasonCode.LATERAL_VIEW, "LL")),), study_instance_uid=STUDY + ".5"
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sources", [(), (film(),), (film(), film(SOPInstanceUID=SECOND, PatientName="Æ^Ø"))])
def test_a_report_from_templates_has_the_bytes_of_highdicoms(name: str, sources: tuple[Dataset, ...]) -> None:
    assessment = CASES[name]()
    expected = report(assessment, *sources, templates=False)
    for _ in range(2):  # made with a fresh template, then from a kept one
        assert report(assessment, *sources, templates=True) == expected


def test_templates_serve_other_studies_with_other_values(monkeypatch: pytest.MonkeyPatch) -> None:
    first = positive()
    report(first, film(), templates=True)
    others = tuple(
        replace(one, probability=max(0.0, (one.probability or 0.0) - 0.0123), box=one.box and Box(1, 2, 30, 40))
        for one in first.findings
    )
    other = positive(study_instance_uid=STUDY + ".9.1234", findings=others)
    expected = report(other, film(), templates=False)
    built = []
    monkeypatch.setattr(content, "built", lambda group: built.append(group))
    assert report(other, film(), templates=True) == expected
    assert built == [], "a shape that is known was built again"
    assert prepared._template.cache_info().maxsize, "templates of endless shapes would fill the memory"


def test_an_earlier_report_is_referred_to_as_highdicom_does() -> None:
    assessment, before = positive(), Predecessor(STUDY, SERIES + ".1", FILM + ".9")
    made = report(assessment, film(), templates=True, predecessor=before)
    written = dcmread(BytesIO(made.part10))
    earlier = Dataset()
    earlier.StudyInstanceUID, earlier.SeriesInstanceUID = before.study_instance_uid, before.series_instance_uid
    earlier.SOPClassUID, earlier.SOPInstanceUID = before.sop_class_uid, before.sop_instance_uid
    theirs = Comprehensive3DSR(
        evidence=[film()], content=content.hollow_root(), series_instance_uid="1.2", series_number=1,
        sop_instance_uid="1.2.3", instance_number=1, manufacturer="x", previous_versions=[earlier],
    )  # fmt: skip
    assert written.PredecessorDocumentsSequence == theirs.PredecessorDocumentsSequence
