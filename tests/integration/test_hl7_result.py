"""An assessment becomes ORU^R01: read field by field, as the one who looks after the RIS's interface would."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from firstread.integration.hl7.check import check_message
from firstread.integration.hl7.errors import UnbuildableMessage
from firstread.integration.hl7.mapping import Hl7Mapping
from firstread.models.findings import FINDING_BY_LABEL, LABELS, NO_FINDING, ReasonCode
from firstread.models.prediction import FindingResult, Priority, Reason
from tests.integration.hl7_examples import NOT_ANALYSED, QUIET, RAISED, STUDY, lines, oru, segments

RAISED_AS_SENT = r"""
MSH|^~\&|FIRSTREAD|HOSP|RIS||20260102030607+0000||ORU^R01^ORU_R01|FR0001|P|2.5.1||||||UNICODE UTF-8
PID|1||P-4711^^^HOSP^MR||Müller^Änne^Maria^MD^Dr^^L||19500131|F
PV1||E
ORC|RE|PL-1|FI-1
OBR|1|PL-1|FI-1|RXTHPA^Thorax p.a. Bett^99RIS|||20260102030405|||||||||||ACC-1||||20260102030607+0000||RAD|R
NTE|1|L|AI result, not verified by a person, not a diagnosis|RE
NTE|2|L|one of 2 images not analysed: lateral view|RE
TQ1|1||||||||S^Stat^HL70485
OBX|1|ST|113014^DICOM Study^DCM||1.2.840.113619.2.55.3||||||R
OBX|2|CWE|TRIAGE_PRIORITY^Triage priority^99FIRSTREAD||S^Stat^HL70485^STAT^STAT^99FIRSTREAD||||||R
OBX|3|TX|PRIORITY_REASON^Reason for triage priority^99FIRSTREAD||pneumothorax 0.81 above 0.60||||||R
OBX|4|CWE|PRIORITY_CAUSE^Finding that raised the priority^99FIRSTREAD||36118008^Pneumothorax^SCT||||||R
OBX|5|NM|46621007^Atelectasis^SCT||0.10|1^^UCUM|<0.50||||R||||||123110^Artificial Intelligence^DCM
OBX|6|NM|8186001^Cardiomegaly^SCT||0.10|1^^UCUM|<0.50||||R||||||123110^Artificial Intelligence^DCM
OBX|7|NM|95436008^Lung consolidation^SCT||0.10|1^^UCUM|<0.50||||R||||||123110^Artificial Intelligence^DCM
OBX|8|NM|19242006^Pulmonary edema^SCT||0.10|1^^UCUM|<0.50||||R||||||123110^Artificial Intelligence^DCM
OBX|9|NM|60046008^Pleural effusion^SCT||0.10|1^^UCUM|<0.50||||R||||||123110^Artificial Intelligence^DCM
OBX|10|NM|87433001^Pulmonary emphysema^SCT||0.10|1^^UCUM|<0.50||||R||||||123110^Artificial Intelligence^DCM
OBX|11|NM|51615001^Fibrosis of lung^SCT||0.10|1^^UCUM|<0.50||||R||||||123110^Artificial Intelligence^DCM
OBX|12|NM|84089009^Hiatal hernia^SCT||0.90|1^^UCUM|<0.50|H|||R||||||123110^Artificial Intelligence^DCM
NTE|1|L|experimental finding: not validated for triage|RE
OBX|13|NM|112121^Infiltrate^DCM||0.10|1^^UCUM|<0.50||||R||||||123110^Artificial Intelligence^DCM
OBX|14|NM|309529002^Lung mass^SCT||||||||X||||||123110^Artificial Intelligence^DCM
NTE|1|L|not assessed by this model|RE
OBX|15|NM|786838002^Pulmonary nodule^SCT||0.10|1^^UCUM|<0.50||||R||||||123110^Artificial Intelligence^DCM
OBX|16|NM|PLEURAL_THICK^Pleural thickening^99FIRSTREAD||0.10|1^^UCUM|<0.50||||R||||||123110^Artificial Intelligence^DCM
OBX|17|NM|233604007^Pneumonia^SCT||0.10|1^^UCUM|<0.50||||R||||||123110^Artificial Intelligence^DCM
OBX|18|NM|36118008^Pneumothorax^SCT||0.8123|1^^UCUM|<0.60|H|||R||||||123110^Artificial Intelligence^DCM
OBX|19|NM|NO_FINDING^None of the assessed findings^99FIRSTREAD||0.97|1^^UCUM|||||R||||||123110^Artificial Intelligence^DCM
OBX|20|ST|111001^Algorithm Name^DCM||reference||||||R
OBX|21|ST|111003^Algorithm Version^DCM||1.0.0||||||R
OBX|22|ST|WEIGHTS_SHA256^SHA-256 of the model's weights^99FIRSTREAD||{sha}||||||R
OBX|23|NM|REVISION^Revision of the result^99FIRSTREAD||1||||||R
""".strip().replace("{sha}", "ab" * 32)  # noqa: E501 - a message's own lines


def observations(message: bytes) -> dict[str, list[str]]:
    """OBX by the code in OBX-3."""
    return {obx[3].split("^")[0]: obx for obx in segments(message, "OBX")}


def finding_obx(message: bytes, label: str) -> list[str]:
    return observations(message)[FINDING_BY_LABEL[label].code.value]


def test_a_raised_study_reads_field_by_field_as_written_here() -> None:
    assert lines(oru()) == RAISED_AS_SENT.splitlines()


@pytest.mark.parametrize("assessment", [RAISED, QUIET, NOT_ANALYSED])
def test_every_message_passes_our_checks_and_hl7apy_at_strict(assessment) -> None:
    assert check_message(oru(assessment)) == []


def test_a_study_that_raises_nothing_carries_no_priority_in_any_place() -> None:
    places = ("TQ1-9", "OBR-5", "OBR-27.6", "OBX-8", "OBX:PRIO", "ZFR-1")
    message = oru(QUIET, mapping=Hl7Mapping(priority_place=places))
    obr = segments(message, "OBR")[0]
    assert not segments(message, "TQ1")
    assert obr[5] == ""
    assert len(obr) <= 27
    assert not {"TRIAGE_PRIORITY", "PRIORITY_REASON", "PRIORITY_CAUSE", "PRIO"} & set(observations(message))
    assert not [line for line in lines(message) if line.startswith("Z")]


def test_a_routine_reason_in_words_stays_at_home_too() -> None:
    assert b"routine" not in oru(replace(QUIET, priority_reason="routine: nothing above its threshold"))


def test_urgent_is_asap_in_table_0485() -> None:
    message = oru(replace(RAISED, priority=Priority.URGENT))
    assert segments(message, "TQ1")[0][9] == "A^ASAP^HL70485"
    assert observations(message)["TRIAGE_PRIORITY"][5] == "A^ASAP^HL70485^URGENT^URGENT^99FIRSTREAD"


def test_h_stands_only_above_the_operating_point_and_never_at_no_finding() -> None:
    flagged = {obx[3] for obx in segments(oru(), "OBX") if len(obx) > 8 and obx[8]}
    assert flagged == {"36118008^Pneumothorax^SCT", "84089009^Hiatal hernia^SCT"}
    no_finding = finding_obx(oru(), NO_FINDING)
    assert no_finding[7:9] == ["", ""]


def test_the_word_normal_is_never_said() -> None:
    for assessment in (RAISED, QUIET, NOT_ANALYSED):
        assert b"normal" not in oru(assessment).lower()
        assert b"negative" not in oru(assessment).lower()


def test_what_was_not_assessed_is_x_and_empty_and_never_a_number() -> None:
    obx = finding_obx(oru(), "Mass")
    assert (obx[2], obx[5], obx[6], obx[7], obx[8], obx[11]) == ("NM", "", "", "", "", "X")


def test_a_probability_that_is_no_number_counts_as_not_obtained() -> None:
    broken = tuple(replace(f, probability=float("nan")) if f.label == "Pneumonia" else f for f in RAISED.findings)
    obx = finding_obx(oru(replace(RAISED, findings=broken)), "Pneumonia")
    assert (obx[5], obx[11]) == ("", "X")


def test_labels_that_the_assessment_forgot_are_said_to_be_unassessed() -> None:
    message = oru(replace(RAISED, findings=(FindingResult("Pneumonia", 0.2, 0.5),)))
    statuses = {label: finding_obx(message, label)[11] for label in LABELS}
    assert statuses.pop("Pneumonia") == "R"
    assert set(statuses.values()) == {"X"}


def test_rounding_never_puts_a_probability_on_the_other_side_of_its_threshold() -> None:
    for probability, threshold in ((0.59996, 0.6), (0.6, 0.59999), (0.49999999, 0.5)):
        present = probability >= threshold
        told = (FindingResult("Pneumothorax", probability, threshold, present=present),)
        obx = finding_obx(oru(replace(RAISED, findings=told)), "Pneumothorax")
        assert (float(obx[5]) >= float(obx[7].lstrip("<"))) is present
        assert (obx[8] == "H") is present


def test_a_study_not_analysed_goes_out_with_its_coded_reason_every_label_x_and_no_priority() -> None:
    message = oru(NOT_ANALYSED)
    told = observations(message)
    assert told["NOT_ANALYSED"][2] == "CWE"
    assert told["NOT_ANALYSED"][5] == "LATERAL_VIEW^lateral view^99FIRSTREAD^^^^^^lateral view: ViewPosition LL"
    assert told["NOT_ANALYSED"][11] == "R"
    assert {finding_obx(message, label)[11] for label in LABELS} == {"X"}
    assert not segments(message, "TQ1")
    assert "TRIAGE_PRIORITY" not in told


def test_a_long_reason_is_given_whole_in_a_comment() -> None:
    reason = Reason(ReasonCode.CANNOT_DECODE, "the stream ends early, " * 30)
    message = oru(replace(NOT_ANALYSED, reason=reason))
    assert [nte[3] for nte in segments(message, "NTE")][1] == reason.text.strip()
    assert check_message(message) == []


def test_a_priority_kept_from_an_earlier_revision_goes_out_even_when_this_one_was_not_analysed() -> None:
    kept = replace(NOT_ANALYSED, revision=2, priority=Priority.STAT, priority_reason="kept from revision 1")
    message = oru(kept)
    assert segments(message, "TQ1")[0][9] == "S^Stat^HL70485"
    assert observations(message)["PRIORITY_REASON"][5] == "kept from revision 1"


def test_a_revision_goes_out_whole_unverified_again_and_says_what_it_replaces() -> None:
    message = oru(replace(QUIET, revision=2))
    assert segments(message, "OBR")[0][25] == "R"
    assert {obx[11] for obx in segments(message, "OBX")} == {"R", "X"}
    assert observations(message)["REVISION"][5] == "2"
    assert any("Revision 2 of this result replaces every earlier one" in nte[3] for nte in segments(message, "NTE"))


def test_a_final_status_that_a_site_asked_for_is_corrected_with_c() -> None:
    final = Hl7Mapping(result_status="F", obr_25="F")
    first, second = oru(RAISED, mapping=final), oru(replace(RAISED, revision=2), mapping=final)
    assert (segments(first, "OBR")[0][25], observations(first)["REVISION"][11]) == ("F", "F")
    assert (segments(second, "OBR")[0][25], observations(second)["REVISION"][11]) == ("C", "C")
    assert finding_obx(second, "Mass")[11] == "X"


def test_the_report_and_heat_map_are_named_by_their_uids() -> None:
    told = observations(oru(report_uids={"sr": "1.2.3.4", "heatmap": "1.2.3.5"}))
    assert told["REPORT_SOP_INSTANCE_UID"][5] == "1.2.3.4"
    assert told["HEATMAP_SOP_INSTANCE_UID"][5] == "1.2.3.5"


@pytest.mark.parametrize("control_id", ["", "x" * 21, "ä", "a|b", "a b", "a^b"])
def test_a_control_id_that_could_not_be_matched_is_refused(control_id: str) -> None:
    with pytest.raises(UnbuildableMessage, match="MSH-10"):
        oru(control_id=control_id)


def test_the_same_result_is_the_same_bytes() -> None:
    assert oru() == oru()


def test_a_message_is_written_in_under_ten_milliseconds() -> None:
    oru()
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        oru()
        times.append(time.perf_counter() - begun)
    assert sorted(times)[10] < 0.010


def test_a_film_without_patient_identifier_is_not_given_one() -> None:
    message = oru(study=replace(STUDY, patient_id="", patient_name=""))
    pid = segments(message, "PID")[0]
    assert pid[3] == ""
    assert pid[5] == "^^^^^^U"
    assert "PID-3 is required and empty" in check_message(message, strict=False)
