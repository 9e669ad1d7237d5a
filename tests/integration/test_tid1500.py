"""The walk finds what is planted: each row removed, each wrong type, each reference that is not in the evidence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydicom.dataset import Dataset

from firstread.integration.dicom.tid1500 import walk
from tests.integration.report_cases import groups, items, negative, not_analysed, parsed, positive, report

PNEUMOTHORAX = "Pneumothorax"
EFFUSION = "Pleural effusion"


@pytest.fixture
def document() -> Dataset:
    return parsed(report(positive()))


def remove(parent: Dataset, code: str) -> None:
    """Takes the items of that concept name out of the parent's own children."""
    kept = [item for item in parent.ContentSequence if item.ConceptNameCodeSequence[0].get("CodeValue") != code]
    assert len(kept) < len(parent.ContentSequence)
    parent.ContentSequence = kept


@pytest.mark.parametrize("assessment", [positive(), negative(), not_analysed(), positive(revision=4)])
def test_our_reports_have_no_problem(assessment: object) -> None:
    assert walk(parsed(report(assessment))) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["121049", "121005", "121012", "121013", "121014", "121015", "121058", "111028"])
def test_a_row_missing_at_the_root_is_found(document: Dataset, code: str) -> None:
    remove(document, code)
    assert len(walk(document)) == 1


@pytest.mark.parametrize("code", ["112039", "112040", "121071", "111001", "111003", "111000", "121112"])
def test_a_row_missing_in_a_group_is_found(document: Dataset, code: str) -> None:
    remove(groups(document)[EFFUSION], code)
    assert len(walk(document)) == 1


def _remove_probability(document: Dataset) -> None:
    remove(groups(document)["Lung mass"], "122157")


def _remove_measurements_and_evaluations(document: Dataset) -> None:
    remove(document, "126010")
    remove(document, "C0034375")


def _nonsense_title(document: Dataset) -> None:
    document.ConceptNameCodeSequence[0].CodeValue = "121111"


def _no_template(document: Dataset) -> None:
    del document.ContentTemplateSequence


def _wrong_template_of_a_region(document: Dataset) -> None:
    groups(document)[PNEUMOTHORAX].ContentTemplateSequence[0].TemplateIdentifier = "1501"


def _verified(document: Dataset) -> None:
    document.VerificationFlag = "VERIFIED"


def _language_as_property(document: Dataset) -> None:
    items(document, "121049")[0].RelationshipType = "HAS PROPERTIES"


def _procedure_as_text(document: Dataset) -> None:
    items(document, "121058")[0].ValueType = "TEXT"


def _two_observers(document: Dataset) -> None:
    document.ContentSequence.insert(3, items(document, "121012")[0])


def _order_turned(document: Dataset) -> None:
    document.ContentSequence = list(reversed(document.ContentSequence))


def _probability_in_percent(document: Dataset) -> None:
    items(document, "122157")[0].MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = "%"


def _probability_of_two(document: Dataset) -> None:
    items(document, "122157")[0].MeasuredValueSequence[0].NumericValue = "2"


def _probability_without_value(document: Dataset) -> None:
    items(document, "122157")[0].MeasuredValueSequence = []


def _absent(document: Dataset) -> None:
    items(document, "705057003")[0].ConceptCodeSequence[0].CodeValue = "2667000"


def _other_family(document: Dataset) -> None:
    items(document, "111000")[0].ConceptCodeSequence[0].CodeValue = "123109"


def _code_without_meaning(document: Dataset) -> None:
    items(document, "121071")[0].ConceptCodeSequence[0].CodeMeaning = ""


def _code_without_scheme(document: Dataset) -> None:
    del items(document, "121071")[0].ConceptCodeSequence[0].CodingSchemeDesignator


def _one_tracking_uid_for_two(document: Dataset) -> None:
    first, second = items(document, "112040")[:2]
    second.UID = first.UID


def _one_finding_twice(document: Dataset) -> None:
    first, second = items(document, "121071")[:2]
    second.ConceptCodeSequence = first.ConceptCodeSequence


def _empty_text(document: Dataset) -> None:
    items(document, "121111")[0].TextValue = " "


def _region_not_closed(document: Dataset) -> None:
    region = items(document, "111030")[0]
    region.GraphicData = [*region.GraphicData[:-2], 1.0, 1.0]


def _region_of_no_image(document: Dataset) -> None:
    items(document, "111030")[0].ContentSequence = []


def _image_not_in_evidence(document: Dataset) -> None:
    items(document, "121112")[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def _evidence_of_other_class(document: Dataset) -> None:
    series = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence[0].ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"


def _evidence_twice(document: Dataset) -> None:
    series = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence.append(series.ReferencedSOPSequence[0])


def _evidence_of_another_study(document: Dataset) -> None:
    document.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = "1.2.3"


def _group_inside_evaluations(document: Dataset) -> None:
    items(document, "C0034375")[0].ContentSequence.append(items(document, "111028")[0])


def _empty_measurements(document: Dataset) -> None:
    items(document, "126010")[0].ContentSequence = []


def _empty_library_group(document: Dataset) -> None:
    items(document, "126200")[0].ContentSequence = []


def _unknown_relationship(document: Dataset) -> None:
    items(document, "121111")[0].RelationshipType = "IS ABOUT"


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (_remove_probability, "neither a probability"),
        (_remove_measurements_and_evaluations, "none of TID 1500 rows"),
        (_nonsense_title, "CID 7021"),
        (_no_template, "1500 of DCMR"),
        (_wrong_template_of_a_region, "1410"),
        (_verified, "VerificationFlag"),
        (_language_as_property, "HAS PROPERTIES"),
        (_procedure_as_text, "not CODE"),
        (_two_observers, "2 times"),
        (_order_turned, "order"),
        (_probability_in_percent, "Probability is ('%', 'UCUM')"),
        (_probability_of_two, "not within [0, 1]"),
        (_probability_without_value, "without a value"),
        (_absent, "2667000"),
        (_other_family, "123109"),
        (_code_without_meaning, "incomplete code"),
        (_code_without_scheme, "incomplete code"),
        (_one_tracking_uid_for_two, "in 2 groups"),
        (_one_finding_twice, "in 2 groups"),
        (_empty_text, "empty text"),
        (_region_not_closed, "not closed"),
        (_region_of_no_image, "SELECTED FROM"),
        (_image_not_in_evidence, "1.2.3 is named"),
        (_evidence_of_other_class, "not listed with its class"),
        (_evidence_twice, "stands there 2 times"),
        (_evidence_of_another_study, "other than the report's own"),
        (_group_inside_evaluations, "no CODE or TEXT"),
        (_empty_measurements, "empty"),
        (_empty_library_group, "no image in it"),
        (_unknown_relationship, "IS ABOUT"),
    ],
)
def test_a_planted_fault_is_told(document: Dataset, plant: Callable[[Dataset], None], told: str) -> None:
    plant(document)
    problems = walk(document)
    assert any(told in problem for problem in problems), problems


def test_a_report_that_highdicom_made_by_itself_is_walked_too() -> None:
    """A second writer: highdicom's own templates, with what we ask for beyond them left out."""
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        MeasurementsAndQualitativeEvaluations,
        ObservationContext,
        ObserverContext,
        TrackingIdentifier,
    )
    from pydicom.sr.codedict import codes

    tree = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(
                codes.DCM.Device, DeviceObserverIdentifyingAttributes(uid="1.2.3", name="other")
            )
        ),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[
            MeasurementsAndQualitativeEvaluations(tracking_identifier=TrackingIdentifier("1.2.4", "one"))
        ],
    )
    problems = walk(tree[0])
    assert any("Finding is missing" in problem for problem in problems)
    assert any("Algorithm Name is missing" in problem for problem in problems)
    assert not any(
        "Tracking" in problem or "Language" in problem or "Device Observer UID" in problem for problem in problems
    )
