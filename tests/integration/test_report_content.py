"""What a report says: each finding as the table has it, nothing claimed that was not seen."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstread.integration.dicom import identity
from firstread.integration.dicom.report import Predecessor, build_report
from firstread.integration.dicom.tid1500 import walk
from firstread.models.findings import LABELS, NO_FINDING, PATHOLOGIES, REASON_MEANINGS, ReasonCode
from firstread.models.prediction import Assessment, Box, FindingResult, ImageOutcome, Priority, Reason
from tests.integration.report_cases import (
    DX,
    FILM,
    LATERAL,
    MODEL,
    NOON,
    SERIES,
    SETTINGS,
    SITE,
    STUDY,
    film,
    finding,
    groups,
    items,
    negative,
    not_analysed,
    number,
    parsed,
    positive,
    report,
    texts,
    uids,
)

CODES = {
    "Atelectasis": ("46621007", "SCT"),
    "Cardiomegaly": ("8186001", "SCT"),
    "Lung consolidation": ("95436008", "SCT"),
    "Pulmonary edema": ("19242006", "SCT"),
    "Pleural effusion": ("60046008", "SCT"),
    "Pulmonary emphysema": ("87433001", "SCT"),
    "Fibrosis of lung": ("51615001", "SCT"),
    "Hiatal hernia": ("84089009", "SCT"),
    "Infiltrate": ("112121", "DCM"),
    "Lung mass": ("309529002", "SCT"),
    "Pulmonary nodule": ("786838002", "SCT"),
    "Pleural thickening": ("PLEURAL_THICK", "99FIRSTREAD"),
    "Pneumonia": ("233604007", "SCT"),
    "Pneumothorax": ("36118008", "SCT"),
    "None of the assessed findings": ("NO_FINDING", "99FIRSTREAD"),
}


def test_every_label_has_its_group_with_its_code() -> None:
    found = groups(parsed(report(positive())))
    codes = {}
    for meaning, group in found.items():
        code = items(group, "121071")[0].ConceptCodeSequence[0]
        codes[meaning] = (code.get("CodeValue") or code.LongCodeValue, code.CodingSchemeDesignator)
    assert codes == CODES


def test_probability_and_operating_point_are_numbers_without_unit() -> None:
    group = groups(parsed(report(positive())))["Pneumothorax"]
    assert number(group, "122157") == pytest.approx(0.8123)
    assert number(group, "OPERATING_POINT") == pytest.approx(0.6)
    unit = items(group, "122157")[0].MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("1", "UCUM")


def test_a_probability_just_below_its_operating_point_is_not_rounded_onto_it() -> None:
    document = parsed(report(positive(findings=(finding("Mass", 0.59999),))))
    assert number(groups(document)["Lung mass"], "122157") < 0.6
    assert items(groups(document)["Lung mass"], "705057003") == []


def test_present_stands_above_the_operating_point_only_and_absent_nowhere() -> None:
    document = parsed(report(positive()))
    present = {meaning for meaning, group in groups(document).items() if items(group, "705057003")}
    assert present == {"Pneumothorax", "Pleural effusion"}
    assert not any("absent" in text.lower() for text in texts(document))


def test_what_is_present_and_urgent_is_read_first_and_no_finding_last() -> None:
    order = list(groups(parsed(report(positive()))))
    assert order[:2] == ["Pneumothorax", "Pleural effusion"]
    assert order[-1] == "None of the assessed findings"


def test_a_label_without_probability_is_not_assessed_and_never_zero() -> None:
    findings = [
        finding("Mass", None, not_assessed="not assessed by this model"),
        finding("Pneumonia", 0.2),
        finding(NO_FINDING, None, not_assessed="one image could not be analysed"),
    ]
    found = groups(parsed(report(positive(findings=tuple(findings)))))
    for meaning in ("Lung mass", "None of the assessed findings"):
        assert items(found[meaning], "122157") == []
        assert items(found[meaning], "705057003") == []
        assert items(found[meaning], "ASSESSMENT")[0].ConceptCodeSequence[0].CodeValue == "NOT_ASSESSED"
    assert "Not assessed by this model." in texts(found["Lung mass"])
    assert "Not assessed: one image could not be analysed." in texts(found["None of the assessed findings"])


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -0.1, 1.5])
def test_a_probability_that_is_none_is_not_assessed(broken: float) -> None:
    document = parsed(report(positive(findings=(finding("Mass", broken, present=True), finding("Pneumonia", 0.2)))))
    assert items(groups(document)["Lung mass"], "122157") == []
    assert items(groups(document)["Lung mass"], "705057003") == []


def test_an_experimental_finding_says_so_in_words() -> None:
    assessment = positive(findings=(finding("Hernia", 0.9, experimental=True), finding("Pneumonia", 0.2)))
    document = parsed(report(assessment))
    assert any("Experimental" in text for text in texts(groups(document)["Hiatal hernia"]))
    assert not any("Experimental" in text for text in texts(groups(document)["Pneumonia"]))
    assert "hernia 0.90 (experimental)" in items(document, "121111")[0].TextValue


def test_each_group_names_the_algorithm_with_the_bundle_and_its_weights() -> None:
    document = parsed(report(positive()))
    for group in groups(document).values():
        assert items(group, "111001")[0].TextValue == "reference"
        assert "1.0.0" in items(group, "111003")[0].TextValue
        assert "0123456789ab" in items(group, "111003")[0].TextValue
        assert items(group, "111000")[0].ConceptCodeSequence[0].CodeValue == "123110"
    assert any("0123456789abcdef" * 4 in text for text in texts(document))


def test_a_finding_is_tracked_by_one_uid_through_all_revisions() -> None:
    first, second = (groups(parsed(report(positive(revision=revision)))) for revision in (1, 2))
    for meaning in CODES:
        assert items(first[meaning], "112040")[0].UID == items(second[meaning], "112040")[0].UID
    assert len({items(group, "112040")[0].UID for group in first.values()}) == len(CODES)


def test_a_localised_finding_has_a_closed_region_in_the_films_own_pixels() -> None:
    region = items(groups(parsed(report(positive())))["Pneumothorax"], "111030")[0]
    assert region.GraphicType == "POLYLINE"
    assert list(region.GraphicData) == [200.0, 300.0, 700.5, 300.0, 700.5, 900.25, 200.0, 900.25, 200.0, 300.0]
    source = region.ContentSequence[0]
    assert source.RelationshipType == "SELECTED FROM"
    assert source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == FILM


def test_a_region_is_clipped_to_the_film_and_one_outside_is_left_out_with_a_note() -> None:
    over = positive(findings=(finding("Mass", 0.9, box=Box(-10.0, 1900.0, 500.0, 2200.0)),))
    region = items(parsed(report(over)), "111030")[0]
    assert (min(region.GraphicData[::2]), max(region.GraphicData[1::2])) == (0.0, 2000.0)
    outside = report(positive(findings=(finding("Mass", 0.9, box=Box(1700.0, 10.0, 1800.0, 20.0)),)))
    assert items(parsed(outside), "111030") == []
    assert items(parsed(outside), "121112")[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == FILM
    assert any("outside the film" in note for note in outside.notes)


@pytest.mark.parametrize(
    ("priority", "code"), [(Priority.STAT, "STAT"), (Priority.URGENT, "URGENT"), (Priority.ROUTINE, "NOT_RAISED")]
)
def test_the_overall_priority_is_said_and_routine_is_said_as_not_raised(priority: Priority, code: str) -> None:
    document = parsed(report(positive(priority=priority)))
    assert items(document, "TRIAGE_PRIORITY")[0].ConceptCodeSequence[0].CodeValue == code
    assert items(document, "TRIAGE_REASON")[0].TextValue == "Pneumothorax 0.81 above 0.60."
    assert not any("routine" in text.lower() for text in texts(document))


def test_the_overall_evaluations_hold_the_disclaimer_the_notes_and_each_images_reason() -> None:
    overall = items(parsed(report(positive())), "C0034375")[0]
    said = texts(overall)
    assert "AI result, not a diagnosis." in said
    assert "One of 2 images not analysed: lateral view." in said
    (reason,) = items(overall, "NOT_ANALYSED")
    assert reason.ConceptCodeSequence[0].CodeValue == "LATERAL_VIEW"
    assert reason.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == LATERAL
    assert "ViewPosition LL." in texts(reason)


def test_the_image_library_holds_what_was_read_and_nothing_else() -> None:
    (library,) = items(parsed(report(positive())), "111028")
    entries = [item for group in library.ContentSequence for item in group.ContentSequence]
    assert [entry.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for entry in entries] == [FILM]
    assert "postero-anterior" in texts(library)
    assert "Digital Radiography" in texts(library)


def test_a_negative_says_none_of_the_assessed_findings_and_what_that_is_not() -> None:
    document = parsed(report(negative()))
    summary = items(document, "121111")[0].TextValue
    assert summary.startswith("None of the 14 assessed findings is above its operating point.")
    assert "not excluded" in summary
    assert items(groups(document)["None of the assessed findings"], "705057003")


def test_a_negative_with_labels_left_out_names_them() -> None:
    findings = (finding("Mass", None, not_assessed="not assessed by this model"), finding("Pneumonia", 0.2))
    summary = items(parsed(report(positive(findings=findings))), "121111")[0].TextValue
    assert summary.startswith("Not assessed: mass.")
    assert "The one assessed finding is not above its operating point." in summary


def test_no_finding_is_never_present_beside_a_finding_that_is() -> None:
    assessment = positive(findings=(finding("Mass", 0.9), finding(NO_FINDING, 0.9)))
    document = parsed(report(assessment))
    assert items(groups(document)["None of the assessed findings"], "705057003") == []


@pytest.mark.parametrize("code", list(ReasonCode))
def test_a_study_that_was_not_analysed_holds_its_coded_reason_and_no_measurements(code: ReasonCode) -> None:
    document = parsed(report(not_analysed(code, "")))
    assert items(document, "126010") == []
    reason = items(document, "NOT_ANALYSED")[0].ConceptCodeSequence[0]
    assert (reason.get("CodeValue") or reason.LongCodeValue) == code.value
    assert reason.CodingSchemeDesignator == "99FIRSTREAD"
    assert reason.CodeMeaning == REASON_MEANINGS[code]
    assert items(document, "TRIAGE_PRIORITY") == []
    assert "Not analysed" in items(document, "121111")[0].TextValue
    assert walk(document) == []


def test_a_priority_kept_from_an_earlier_revision_stands_also_where_nothing_was_analysed() -> None:
    kept = replace(not_analysed(), revision=2, priority=Priority.STAT, priority_reason="kept from revision 1")
    document = parsed(report(kept))
    assert items(document, "TRIAGE_PRIORITY")[0].ConceptCodeSequence[0].CodeValue == "STAT"
    assert items(document, "TRIAGE_REASON")[0].TextValue == "Kept from revision 1."


def test_a_correction_names_its_predecessor_and_stands_in_the_same_series() -> None:
    first = report(positive())
    before = Predecessor(STUDY, first.series_instance_uid, first.sop_instance_uid)
    second = report(positive(revision=2), predecessor=before)
    document = parsed(second)
    study = document.PredecessorDocumentsSequence[0]
    assert study.StudyInstanceUID == STUDY
    reference = study.ReferencedSeriesSequence[0]
    assert reference.SeriesInstanceUID == first.series_instance_uid == document.SeriesInstanceUID
    assert reference.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.sop_instance_uid
    assert first.sop_instance_uid != second.sop_instance_uid
    assert document.InstanceNumber == 2
    assert any("Revision 2" in text for text in texts(document))


def test_flags_say_preliminary_complete_and_unverified() -> None:
    document = parsed(report(positive()))
    flags = (document.PreliminaryFlag, document.CompletionFlag, document.VerificationFlag)
    assert flags == ("PRELIMINARY", "COMPLETE", "UNVERIFIED")


def test_the_same_result_is_the_same_bytes() -> None:
    assert report(positive()).part10 == report(positive()).part10
    assert report(not_analysed()).part10 == report(not_analysed()).part10


def test_a_study_of_which_no_header_is_left_still_gets_its_report() -> None:
    encoded = build_report(positive(), (), uids(positive(), identity.SR), SETTINGS, content_datetime=NOON)
    document = parsed(encoded)
    assert document.StudyInstanceUID == STUDY
    assert document.PatientID == ""
    assert walk(document) == []
    assert encoded.notes


def test_a_study_without_any_image_still_gets_its_reason() -> None:
    document = parsed(report(replace(not_analysed(ReasonCode.NO_IMAGE), images=()), film(SOPInstanceUID=None)))
    assert "CurrentRequestedProcedureEvidenceSequence" not in document
    assert walk(document) == []


_TEXT = st.text(max_size=60).filter(lambda text: "normal" not in text.lower())
_FINDINGS = st.builds(
    FindingResult,
    label=st.sampled_from(LABELS),
    probability=st.none() | st.floats(),
    threshold=st.none() | st.floats(),
    present=st.booleans(),
    raises=st.none() | st.sampled_from(Priority),
    experimental=st.booleans(),
    sop_instance_uid=st.none() | st.sampled_from((FILM, LATERAL, "9.9.9")),
    box=st.none() | st.builds(Box, st.floats(), st.floats(), st.floats(), st.floats()),
    not_assessed=_TEXT,
)
_REASONS = st.builds(Reason, st.sampled_from(ReasonCode), _TEXT)
_IMAGES = st.builds(
    ImageOutcome,
    sop_instance_uid=st.sampled_from((LATERAL, "1.2.3.4", "not a uid")),
    sop_class_uid=st.sampled_from((DX, "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.99999.1")),
    series_instance_uid=st.just(SERIES),
    reason=st.none() | _REASONS,
)


@settings(max_examples=40, deadline=None)
@given(
    findings=st.lists(_FINDINGS, unique_by=lambda one: one.label, min_size=1),
    images=st.lists(_IMAGES, max_size=3, unique_by=lambda one: one.sop_instance_uid),
    reason=st.none() | _REASONS,
    priority=st.sampled_from(Priority),
    words=_TEXT,
    notes=st.lists(_TEXT, max_size=3),
)
def test_any_assessment_becomes_a_report_that_passes_the_walk_and_never_calls_a_film_normal(
    findings: list[FindingResult],
    images: list[ImageOutcome],
    reason: Reason | None,
    priority: Priority,
    words: str,
    notes: list[str],
) -> None:
    assessment = Assessment(
        STUDY,
        1,
        NOON,
        () if reason else tuple(findings),
        reason,
        priority,
        words,
        notes=tuple(notes),
        images=(ImageOutcome(FILM, DX, SERIES, reason), *images),
        model=MODEL,
    )
    document = parsed(report(assessment))
    assert walk(document) == []
    said = " ".join(texts(document))
    assert not re.search(r"normal|healthy|unremarkable", said, re.IGNORECASE)
    present = {one.label for one in findings if one.present and one.label in PATHOLOGIES}
    if not reason and NO_FINDING in {one.label for one in findings} and present:
        assert items(groups(document)["None of the assessed findings"], "705057003") == []


def test_the_observer_is_this_device_with_its_version() -> None:
    document = parsed(report(positive()))
    assert items(document, "121012")[0].UID == SITE == document.DeviceUID
    assert items(document, "121013")[0].TextValue == "Firstread"
    assert items(document, "SOFTWARE_VERSION")[0].TextValue == "1.2.3"
