"""Results that come in: our own survive the way there, and a RIS's report says whether the study is done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from firstread.integration.hl7.errors import UnreadableMessage
from firstread.integration.hl7.mapping import Hl7Mapping
from firstread.integration.hl7.order import parse_result, parse_results
from firstread.models.findings import LABELS, NO_FINDING, ReasonCode
from firstread.models.prediction import Priority, Reason
from tests.integration.hl7_examples import MODEL, NOT_ANALYSED, NOW, QUIET, RAISED, STUDY, order, oru

REPORT = (
    "OBR|1|PL-1|FI-1|RXTHPA^Thorax p.a.^99RIS|||20260102|||||||||||ACC-1||||20260102080000||RAD|{status}",
    "OBX|1|TX|18748-4^Report^LN||Pneumothorax rechts.~Drainage liegt.||||||F",
)


def report(status: str, *more: str) -> bytes:
    obr, obx = REPORT
    return order(obr.format(status=status), obx, *more, header="ORU^R01^ORU_R01", orc="ORC|RE|PL-1|FI-1")


def test_our_own_result_comes_back_as_it_went() -> None:
    told = parse_result(oru(report_uids={"sr": "1.2.3.4", "heatmap": "1.2.3.5"}))
    assert told.ours
    assert not told.final
    assert told.study_instance_uid == STUDY.study_instance_uid
    assert told.accession_numbers == ("ACC-1",)
    assert (told.placer_order_number, told.filler_order_number) == ("PL-1", "FI-1")
    assert told.patient.patient_name == STUDY.patient_name
    assert (told.patient.study_date, told.patient.study_time) == ("20260102", "030405")
    assert (told.priority, told.priority_reason) == (Priority.STAT, "pneumothorax 0.81 above 0.60")
    assert told.causes == ("Pneumothorax",)
    assert told.notes == RAISED.notes
    assert told.model == MODEL
    assert (told.revision, told.reported_at) == (1, NOW)
    assert (told.report_uid, told.heatmap_uid) == ("1.2.3.4", "1.2.3.5")
    assert [finding.label for finding in told.findings] == list(LABELS)
    for sent, received in zip(RAISED.findings, told.findings, strict=True):
        assert received.probability == sent.probability
        assert received.not_assessed == sent.not_assessed
        assert received.experimental == sent.experimental
        if sent.label != NO_FINDING and sent.probability is not None:
            assert (received.threshold, received.present) == (sent.threshold, sent.present)


def test_a_study_not_analysed_comes_back_with_its_reason() -> None:
    told = parse_result(oru(NOT_ANALYSED))
    assert told.reason == Reason(ReasonCode.LATERAL_VIEW, "ViewPosition LL")
    assert told.priority is None
    assert {finding.probability for finding in told.findings} == {None}
    assert {finding.not_assessed for finding in told.findings} == {"study not analysed"}


def test_a_result_that_raises_nothing_says_nothing_of_priority() -> None:
    told = parse_result(oru(QUIET))
    assert (told.priority, told.priority_reason, told.causes) == (None, "", ())


@pytest.mark.parametrize("place", ["TQ1-9", "OBR-5", "OBR-27.6", "OBX-8", "OBX:PRIO", "ZFR-2"])
def test_our_priority_is_read_from_any_of_our_places(place: str) -> None:
    message = oru(replace(RAISED, priority=Priority.URGENT), mapping=Hl7Mapping(priority_place=(place,)))
    assert parse_result(message).priority is Priority.URGENT


def test_another_sender_s_own_place_is_read_where_the_site_names_it() -> None:
    message = report("R", "ZAI|CITO")
    assert parse_result(message).priority is None
    told = parse_result(message, priority_places=("ZAI-1",), priority_values={"CITO": Priority.STAT})
    assert told.priority is Priority.STAT


@pytest.mark.parametrize(
    ("status", "final", "cancelled"),
    [
        ("F", True, False),
        ("C", True, False),
        ("P", False, False),
        ("R", False, False),
        ("X", False, True),
        ("", False, False),
    ],
)
def test_a_report_ends_the_study_only_when_it_is_final(status: str, final: bool, cancelled: bool) -> None:
    told = parse_result(report(status))
    assert (told.final, told.cancelled, told.ours) == (final, cancelled, False)
    assert told.report_text == "Pneumothorax rechts.\nDrainage liegt."
    assert told.result_status == status


def test_an_ai_result_that_a_site_calls_final_never_ends_a_study() -> None:
    told = parse_result(oru(mapping=Hl7Mapping(result_status="F", obr_25="F")))
    assert told.result_status == "F"
    assert not told.final


def test_several_accessions_come_back_as_one_result() -> None:
    message = oru(study=replace(STUDY, accession_numbers=("ACC-1", "ACC-2")))
    assert len(parse_results(message)) == 2
    told = parse_result(message)
    assert told.accession_numbers == ("ACC-1", "ACC-2")
    assert told.patient.accession_numbers == ("ACC-1", "ACC-2")
    assert len(told.findings) == len(LABELS)


def test_a_message_with_one_final_and_one_open_report_does_not_end_the_study_as_a_whole() -> None:
    second = ("ORC|RE|PL-2|FI-2", "OBR|2|PL-2|FI-2|X|||20260102|||||||||||ACC-2|||||||P")
    message = report("F", *second)
    assert [result.final for result in parse_results(message)] == [True, False]
    assert not parse_result(message).final


def test_a_report_with_raw_line_breaks_in_its_text_is_still_read() -> None:
    message = report("F").replace(b"rechts.~Drainage", b"rechts.\rDrainage")
    assert parse_result(message).report_text == "Pneumothorax rechts.\nDrainage liegt."


def test_a_number_that_is_none_is_no_probability() -> None:
    for nonsense in (b"|abc|", b"|1.7|", b"|-0.2|", b"|nan|"):
        told = parse_result(oru().replace(b"|0.8123|", nonsense))
        pneumothorax = next(finding for finding in told.findings if finding.label == "Pneumothorax")
        assert pneumothorax.probability is None
        assert pneumothorax.not_assessed


def test_a_reason_from_a_newer_version_is_kept_in_words() -> None:
    told = parse_result(oru(NOT_ANALYSED).replace(b"LATERAL_VIEW^lateral view^", b"UPSIDE_DOWN^upside down^"))
    assert told.reason is not None
    assert "lateral view: ViewPosition LL" in told.reason.text


@pytest.mark.parametrize(
    ("message", "code", "where"),
    [
        (order("OBX|1|TX|A||x||||||F", header="ORU^R01^ORU_R01", orc="ORC|RE|PL-1"), 100, "OBR"),
        (order("OBR|1|||X", header="ORU^R01^ORU_R01", orc="ORC|RE"), 101, "OBR-3"),
        (order("OBR|1|||X", header="ORM^O01"), 200, "MSH-9.1"),
        (order("OBR|1|||X", header="ORU^R30"), 201, "MSH-9.2"),
    ],
)
def test_what_is_no_result_is_refused_with_code_and_place(message: bytes, code: int, where: str) -> None:
    with pytest.raises(UnreadableMessage) as raised:
        parse_result(message)
    assert (raised.value.code, str(raised.value.location)) == (code, where)
