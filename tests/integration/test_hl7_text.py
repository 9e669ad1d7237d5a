"""Whatever text a name, an identifier or a reason holds, the message parses back to it, in our reader and another."""

from __future__ import annotations

import contextlib
import unicodedata
from dataclasses import replace

import hl7
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firstread.integration.hl7.acknowledge import AckKind, acknowledge, read_acknowledgement
from firstread.integration.hl7.check import check_message
from firstread.integration.hl7.er7 import read
from firstread.integration.hl7.errors import UnreadableMessage
from firstread.integration.hl7.escape import clean, escape, pieces, tidy, unescape
from firstread.integration.hl7.order import parse_orders, parse_result, parse_results
from firstread.models.findings import LABELS, ReasonCode
from firstread.models.prediction import FindingResult, Priority, Reason, StudyIdentity
from tests.integration.hl7_examples import NOT_ANALYSED, RAISED, STUDY, order, oru

SPECIAL = "|^&~\\\r\n\t\x0b\x0c\x1c\x00\x85\u2028\u202e\ufeff\xa0\"'=ÄÖ山🫁\ud800EFSTRX0D.br"
TEXT = st.text(st.one_of(st.sampled_from(SPECIAL), st.characters()), max_size=40)
ORDER = order("TQ1|1||||||||S^STAT^HL70485", "OBR|1|PL-1|FI-1|X", "ZDS|1.2.3^RIS")
IDENTITY_FIELDS = (
    "study_instance_uid",
    "patient_id",
    "issuer_of_patient_id",
    "patient_name",
    "birth_date",
    "sex",
    "accession_number",
    "placer_order_number",
    "filler_order_number",
    "study_date",
    "study_time",
    "study_description",
    "procedure_code",
    "procedure_scheme",
    "procedure_meaning",
    "patient_class",
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def theirs(message: hl7.Message, segment: str, field: int) -> str:
    """The first component of a field as python-hl7 reads and unescapes it."""
    return str(message.extract_field(segment, 1, field, 1, 1) or "").strip()


@QUICK
@given(TEXT)
def test_any_text_comes_back_from_its_escaped_form(text: str) -> None:
    escaped = escape(text)
    assert not set(escaped) & set("|^&~\r\n")
    assert unescape(escaped) == clean(text)


@QUICK
@given(TEXT)
def test_cleaning_leaves_no_control_character_and_is_done_once(text: str) -> None:
    cleaned = clean(text)
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in cleaned)
    assert clean(cleaned) == cleaned
    cleaned.encode("utf-8")


@QUICK
@given(st.text(max_size=900), st.integers(min_value=8, max_value=199))
def test_pieces_are_short_enough_and_join_to_the_whole(text: str, limit: int) -> None:
    cut = pieces(text, limit)
    assert "".join(cut) == clean(text)
    assert all(len(escape(piece)) <= limit for piece in cut)


@QUICK
@given(patient_id=TEXT, accession=TEXT, placer=TEXT, description=TEXT, family=TEXT, given_name=TEXT)
def test_any_identity_parses_back_to_the_same_values(
    patient_id: str, accession: str, placer: str, description: str, family: str, given_name: str
) -> None:
    family, given_name = (text.replace("^", " ").replace("=", " ") for text in (family, given_name))
    study = replace(
        STUDY,
        patient_id=patient_id,
        accession_number=accession,
        placer_order_number=placer,
        study_description=description,
        procedure_code="",
        patient_name=f"{family}^{given_name}",
    )
    message = oru(study=study)
    result = parse_result(message)
    assert result.patient.patient_id == tidy(patient_id)
    assert result.accession_number == tidy(accession)
    assert result.placer_order_number == tidy(placer)
    assert result.patient.patient_name == f"{tidy(family)}^{tidy(given_name)}".rstrip("^")
    problems = check_message(message, strict=False)
    assert [problem for problem in problems if not problem.startswith("PID-3 is required")] == []

    other = hl7.parse(message.decode("utf-8"))
    assert theirs(other, "PID", 3) == tidy(patient_id)
    assert theirs(other, "OBR", 18) == tidy(accession)
    assert len(other) == message.count(b"\r")


@QUICK
@given(detail=TEXT, note=TEXT, cause=TEXT)
def test_any_reason_and_note_parse_back_to_the_same_words(detail: str, note: str, cause: str) -> None:
    silent = replace(NOT_ANALYSED, reason=Reason(ReasonCode.CANNOT_DECODE, detail), notes=(note,))
    result = parse_result(oru(silent))
    assert result.reason is not None
    assert result.reason.code is ReasonCode.CANNOT_DECODE
    assert result.reason.detail in (tidy(detail), '""')  # two quotes are a null only when they stand alone
    assert result.notes == tuple(text for text in [tidy(note)] if text)
    raised = replace(RAISED, priority_reason=cause)
    assert parse_result(oru(raised)).priority_reason == tidy(cause)
    assert parse_result(oru(raised)).priority is Priority.STAT


@QUICK
@given(
    study=st.builds(
        StudyIdentity,
        **{name: TEXT | st.text("0123456789.:١２", max_size=16) for name in IDENTITY_FIELDS},
    ),
    finding=st.builds(
        FindingResult,
        st.sampled_from(LABELS) | TEXT.filter(lambda text: bool(tidy(text))),
        st.none() | st.floats(),
        st.none() | st.floats(0, 1),
        present=st.booleans(),
        experimental=st.booleans(),
        not_assessed=TEXT,
    ),
    priority=st.sampled_from(Priority),
    revision=st.integers(1, 9),
    causes=st.tuples(TEXT, st.sampled_from(LABELS)),
)
def test_no_study_and_no_finding_keeps_a_message_from_being_written(
    study: StudyIdentity, finding: FindingResult, priority: Priority, revision: int, causes: tuple[str, str]
) -> None:
    assessment = replace(RAISED, findings=(finding,), priority=priority, revision=revision, causes=causes)
    message = oru(assessment, study)
    problems = check_message(message, strict=False)
    assert [problem for problem in problems if not problem.startswith("PID-3 is required")] == []
    assert (parse_result(message).priority or Priority.ROUTINE) is priority


@QUICK
@given(st.data())
def test_damaged_messages_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from([oru(), ORDER, acknowledge(oru())])))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=8))
    message = bytes(damaged)
    for parse in (parse_orders, parse_results):
        with contextlib.suppress(UnreadableMessage):
            parse(message)
    check_message(message, strict=False)
    assert read_acknowledgement(acknowledge(message), "another").kind is AckKind.NOT_OURS
    assert isinstance(read_acknowledgement(message, "FR0001").kind, AckKind)


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (r"a\F\b\S\c\T\d\R\e\E\f", "a|b^c&d~e\\f"),
        (r"line one\.br\line two", "line one\nline two"),
        (r"a\.sp2\b", "a\nb"),
        (r"\H\bold\N\ text", "bold text"),
        (r"\.in4\indented", "indented"),
        (r"\X4D\\XC3BC\ller", "Müller"),
        (r"C:\temp", r"C:\temp"),
        (r"\Zlocal\kept", r"\Zlocal\kept"),
        (r"\E\F\E\ ", r"\F\ "),
    ],
)
def test_escape_sequences_of_others_are_understood(sent: str, meant: str) -> None:
    assert unescape(sent) == meant


def test_control_characters_of_others_reach_nobody_escaped_or_as_they_are() -> None:
    patient = b"PID|||4\\X00\\7\\X1B5B\\31m\x1b[0m\\.br\\11||DOE\\X0D0A\\FORGED^\x9b\x07A\r"
    message = read(b"MSH|^~\\&|RIS\r" + patient + b"NTE|||one\\X0A\\two\\X1B\\")
    pid, note = message.first("PID"), message.first("NTE")
    assert pid is not None and note is not None
    shown = [pid.value(3), pid.value(5, 1), pid.value(5, 2), note.value(3), note.text(note.field(3))]
    assert shown[0] == "47[31m[0m 11"
    assert all(text.isprintable() for text in shown[:4])
    assert shown[4] == "one\ntwo"


def test_other_delimiters_are_read_as_the_header_says() -> None:
    message = read(b"MSH#*!?$#RIS#HOSP\rPID###1*2!3?F?4$5\r")
    pid = message.first("PID")
    assert pid is not None
    assert [pid.value(3, 1), pid.value(3, 2), pid.value(3, 1, 1, 2), pid.value(3, 1, 2, 2)] == ["1", "2", "3#4", "5"]
