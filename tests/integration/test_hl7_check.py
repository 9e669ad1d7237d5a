"""The checks notice what hl7apy passes: each test breaks a good message in one place."""

from __future__ import annotations

import pytest

from firstread.integration.hl7.acknowledge import acknowledge
from firstread.integration.hl7.check import check_message
from firstread.integration.hl7.errors import ErrorLocation, UnreadableMessage
from tests.integration.hl7_examples import oru


@pytest.mark.parametrize(
    ("old", "new", "noticed"),
    [
        (b"|0.8123|", b"|abc|", "OBX[18]-5 is not a number"),
        (b"|0.8123|", b"|8e-1|", "OBX[18]-5 is not a number"),
        (b"UNICODE UTF-8\r", b"UTF-8\r", "MSH-18 is not of table 0211"),
        (b"UNICODE UTF-8\r", b"\r", "MSH-18 is not of table 0211"),
        (b"UNICODE UTF-8\r", b"ASCII\r", "MSH-18: the bytes are not ASCII"),
        (b"||ORU^R01^ORU_R01|", b"||ORU^R01|", "MSH-9.3"),
        (b"|P|2.5.1|", b"|X|2.5.1|", "MSH-11 is not of table 0103"),
        (b"|FR0001|", b"|FR00000000000000000001|", "MSH-10 is longer than 20"),
        (b"|F\rPV1", b"|W\rPV1", "PID-8 is not of table 0001"),
        (b"|19500131|", b"|19501331|", "PID-7 is not a time"),
        (b"ORC|RE|", b"ORC|XX|", "ORC-1 is not of table 0119"),
        (b"|RAD|R\r", b"|RAD|Q\r", "OBR-25 is not of table 0123"),
        (b"|<0.60|H|||R|", b"|<0.60|K|||R|", "OBX[18]-8 is not of table 0078"),
        (b"|<0.60|H|||R|", b"|<0.60|H|||Q|", "OBX[18]-11 is not of table 0085"),
        (b"||||||||X|", b"||0.00||||||X|", "OBX[14]-5 is filled though not obtained"),
        (b"|0.8123|", b"||", "OBX[18]-5 is filled though not obtained, or empty though obtained"),
        (b"||1.2.840.113619.2.55.3||||||R", b"||1.2.840.113619.2.55.3|||H|||R", "OBX-2 is no number"),
        (b"P-4711^^^HOSP^MR", b"P-4711^^^HOSP", "PID-3 does not say what type"),
        (b"1^^UCUM|<0.60", b"1|<0.60", "OBX[18]-6 holds a code without its coding system"),
        (b"OBX|2|", b"OBX|3|", "OBX[2]-1 is not 2"),
        (b"NTE|2|L|", b"NTE|1|L|", "NTE[2]-1 is not 2"),
        (b"NTE|2|L|one of", b"NTE|2|L|one\\of", "NTE[2]-3 holds an escape character"),
        (b"|1.0.0|", b"|1^0|", "OBX[21]-5 has 2 components, ST at most 1"),
        (b"S^Stat^HL70485\r", b"R^Routine^HL70485\r", "TQ1-9 says routine"),
        (
            b"|1|PL-1|FI-1|RXTHPA^Thorax p.a. Bett^99RIS||",
            b"|1|PL-1|FI-1|RXTHPA^Thorax p.a. Bett^99RIS|R|",
            "OBR-5 says",
        ),
        (b"lateral view|", b"lateral\x09view|", "control characters in the text: 09"),
        (b"PV1||E\r", b"PV1||E\r\r", "an empty segment"),
    ],
)
def test_a_fault_is_noticed_and_named(old: bytes, new: bytes, noticed: str) -> None:
    good = oru()
    assert old in good
    problems = check_message(good.replace(old, new, 1), strict=False)
    assert any(problem.startswith(noticed) for problem in problems), problems


def test_segments_out_of_order_are_noticed() -> None:
    lines = oru().split(b"\r")
    at = next(number for number, line in enumerate(lines) if line.startswith(b"TQ1"))
    lines.append(lines.pop(at))
    moved = b"\r".join([line for line in lines if line]) + b"\r"
    assert any("the order of segments" in problem for problem in check_message(moved, strict=False))


def test_a_last_segment_without_its_end_is_noticed() -> None:
    assert "the last segment is not ended by CR" in check_message(oru()[:-1], strict=False)


def test_hl7apy_speaks_at_strict_and_quotes_no_values() -> None:
    long = oru().replace(b"P-4711", b"P" * 300)
    problems = [problem for problem in check_message(long) if problem.startswith("hl7apy")]
    assert problems == ["hl7apy: MaxLengthReached"]


def test_what_is_no_message_is_said_in_one_sentence() -> None:
    assert any("does not begin with MSH" in problem for problem in check_message(b"GET / HTTP/1.1\r"))


@pytest.mark.parametrize("error", [None, UnreadableMessage(101, ErrorLocation("OBR", 1, 18), "no | accession")])
def test_our_acknowledgements_pass_the_same_checks(error: UnreadableMessage | None) -> None:
    assert check_message(acknowledge(oru(), "AE" if error else "AA", error)) == []
