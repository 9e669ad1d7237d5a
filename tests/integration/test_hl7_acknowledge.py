"""What an answer means: delivered, later, never, or not for us (HL7 v2.5.1 2.9.2, table 0357)."""

from __future__ import annotations

import pytest

from firstread.integration.hl7.acknowledge import AckKind, acknowledge, read_acknowledgement
from firstread.integration.hl7.errors import ErrorLocation, UnreadableMessage
from tests.integration.hl7_examples import lines, oru

HEADER = "MSH|^~\\&|RIS||FIRSTREAD||20260102||ACK^R01^ACK|A1|P|2.5.1\r"


def answer(code: str, *more: str, control_id: str = "FR0001", text: str = "") -> bytes:
    return (HEADER + f"MSA|{code}|{control_id}|{text}\r" + "".join(line + "\r" for line in more)).encode()


def err(code: str, severity: str = "E", text: str = "") -> str:
    return f"ERR||OBR^1^18|{code}^x^HL70357|{severity}||||{text}"


def kind(reply: bytes, **more: object) -> AckKind:
    return read_acknowledgement(reply, "FR0001", **more).kind  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("AA", AckKind.DELIVERED),
        ("CA", AckKind.DELIVERED),
        ("AR", AckKind.RETRY),
        ("CE", AckKind.RETRY),
        ("AE", AckKind.REJECT_AFTER_TRIES),
        ("CR", AckKind.REJECT_AFTER_TRIES),
        ("QQ", AckKind.REJECT_AFTER_TRIES),
        ("", AckKind.REJECT_AFTER_TRIES),
    ],
)
def test_without_an_error_code_msa_1_decides(code: str, expected: AckKind) -> None:
    assert kind(answer(code)) is expected


@pytest.mark.parametrize("code", ["AE", "AR", "CE", "CR"])
@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        *((str(number), AckKind.REJECTED) for number in (100, 101, 102, 103, 200, 201, 202, 203, 205)),
        *((str(number), AckKind.RETRY) for number in (204, 206, 207)),
    ],
)
def test_err_3_decides_where_it_is_there_whatever_msa_1_says(code: str, condition: str, expected: AckKind) -> None:
    outcome = read_acknowledgement(answer(code, err(condition)), "FR0001")
    assert (outcome.kind, outcome.code, outcome.err_code) == (expected, code, condition)


def test_a_local_error_code_leaves_the_decision_to_msa_1() -> None:
    outcome = read_acknowledgement(answer("AR", err("E-77")), "FR0001")
    assert (outcome.kind, outcome.err_code) == (AckKind.RETRY, "E-77")


def test_of_several_errors_the_one_about_the_message_decides() -> None:
    assert kind(answer("AE", err("207"), err("101"))) is AckKind.REJECTED


def test_a_warning_beside_aa_is_delivered_and_an_error_beside_aa_is_not() -> None:
    warned = read_acknowledgement(answer("AA", err("103", "W", "patient class unknown")), "FR0001")
    assert warned.delivered
    assert "patient class unknown" in warned.text
    assert kind(answer("AA", err("101", "E"))) is AckKind.REJECTED
    assert kind(answer("AA", err("0", "I"))) is AckKind.DELIVERED


@pytest.mark.parametrize("code", ["AA", "CA", "AE", "AR"])
@pytest.mark.parametrize("other", ["FR0002", "", "FR00010", "fr0001"])
def test_an_answer_to_another_message_is_never_ours(code: str, other: str) -> None:
    assert kind(answer(code, control_id=other)) is AckKind.NOT_OURS


@pytest.mark.parametrize("reply", [b"", b"AA", b"HTTP/1.1 200 OK\r\n", HEADER.encode(), oru()])
def test_what_is_no_acknowledgement_is_never_ours(reply: bytes) -> None:
    outcome = read_acknowledgement(reply, "FR0001")
    assert outcome.kind is AckKind.NOT_OURS
    assert outcome.text


def test_a_destination_may_have_its_own_meanings() -> None:
    assert kind(answer("AE"), judgements={"AE": AckKind.RETRY}) is AckKind.RETRY
    assert kind(answer("AE", err("204")), judgements={"204": AckKind.REJECTED}) is AckKind.REJECTED
    assert kind(answer("AE", err("E-77")), judgements={"E-77": AckKind.REJECTED}) is AckKind.REJECTED


def test_errors_as_written_before_version_2_5_are_read() -> None:
    assert kind(answer("AE", "ERR|PID^1^3^101&Required field missing&HL70357")) is AckKind.REJECTED
    assert kind((HEADER + "MSA|AE|FR0001|text|||207^x^HL70357\r").encode()) is AckKind.RETRY


def test_the_receiver_s_words_and_place_are_kept() -> None:
    outcome = read_acknowledgement(answer("AE", err("204", text="order unknown"), text="rejected"), "FR0001")
    assert outcome.text == "order unknown (at OBR-18); rejected"
    assert "without a word" in read_acknowledgement(answer("AE"), "FR0001").text


def test_our_answer_turns_the_header_round_and_names_the_message() -> None:
    header, msa = (line.split("|") for line in lines(acknowledge(oru())))
    assert header[2:6] == ["RIS", "", "FIRSTREAD", "HOSP"]
    assert header[8] == "ACK^R01^ACK"
    assert header[10:12] == ["P", "2.5.1"]
    assert msa[:3] == ["MSA", "AA", "FR0001"]


def test_our_error_names_place_code_and_sentence() -> None:
    error = UnreadableMessage(101, ErrorLocation("OBR", 2, 18), "no accession | number")
    msa, told = (line.split("|") for line in lines(acknowledge(oru(), "AE", error))[1:])
    assert msa[1:4] == ["AE", "FR0001", r"no accession \F\ number"]
    assert told[2:5] == ["OBR^2^18^1", "101^Required field missing^HL70357", "E"]
    assert told[8] == r"no accession \F\ number"


def test_our_answers_are_understood_by_our_client() -> None:
    error = UnreadableMessage(207, ErrorLocation(), "later")
    assert kind(acknowledge(oru())) is AckKind.DELIVERED
    assert kind(acknowledge(oru(), "AE", error)) is AckKind.RETRY


@pytest.mark.parametrize(
    ("msh_15_16", "code"),
    [("|", "AA"), ("AL|NE", "CA"), ("AL|", "CA"), ("AL|AL", "AA"), ("NE|AL", "AA"), ("ER|NE", "CA")],
)
def test_who_asked_for_an_accept_acknowledgement_gets_one(msh_15_16: str, code: str) -> None:
    request = oru().replace(b"|2.5.1||||||UNICODE", f"|2.5.1|||{msh_15_16}||UNICODE".encode())
    assert lines(acknowledge(request))[1].split("|")[1] == code


def test_what_has_no_readable_header_is_answered_without_an_id() -> None:
    error = UnreadableMessage(100, ErrorLocation("MSH"), "not HL7")
    assert lines(acknowledge(b"\xff\xfegarbage", "AR", error))[1].split("|")[:3] == ["MSA", "AR", ""]


def test_a_message_unreadable_behind_its_header_is_still_named() -> None:
    broken = oru().replace(b"PV1||E", b"what is this")
    assert lines(acknowledge(broken, "AE"))[1].split("|")[2] == "FR0001"


def test_every_answer_has_a_control_id_of_its_own() -> None:
    ids = {lines(acknowledge(oru()))[0].split("|")[9] for _ in range(50)}
    assert len(ids) == 50
    assert {len(control_id) for control_id in ids} == {20}
