"""Orders as RIS write them: ORM^O01, OMI^O23, OMG^O19, in several dialects."""

from __future__ import annotations

from datetime import datetime

import pytest

from firstread.integration.hl7.er7 import segment
from firstread.integration.hl7.errors import UnreadableMessage
from firstread.integration.hl7.order import OrderKind, message_code, parse_order, parse_orders
from firstread.models.prediction import Priority
from tests.integration.hl7_examples import order

OBR_FIELDS = {1: "1", 2: "PL-1", 3: "FI-1", 4: "RXTHPA^Thorax p.a.^99RIS", 18: "ACC-1", 44: "RXC^Chest^C4"}
OBR = segment("OBR", OBR_FIELDS)
ZDS = "ZDS|1.2.840.1.5^RIS^Application^DICOM"
IPC = "IPC|ACC-9^RIS|RP-1|1.2.840.1.9^RIS|SPS-1|CR"


def test_a_new_order_in_orm_is_read_whole() -> None:
    told = parse_order(
        order("TQ1|1||||||||S^STAT^HL70485", OBR, ZDS, orc="ORC|NW|PL-1^RIS|FI-1^RIS||SC||||20260102030000")
    )
    assert told.kind is OrderKind.NEW
    assert (told.control, told.order_status, told.message_control_id) == ("NW", "SC", "CTL-1")
    assert (told.placer_order_number, told.filler_order_number, told.accession_number) == ("PL-1", "FI-1", "ACC-1")
    assert told.study_instance_uid == "1.2.840.1.5"
    assert told.ordered_priority is Priority.STAT
    assert (told.procedure_code, told.procedure_text, told.procedure_scheme) == ("RXTHPA", "Thorax p.a.", "99RIS")
    assert told.ordered_at == datetime(2026, 1, 2, 3, 0, 0)  # as sent, without a zone
    patient = told.patient
    assert (patient.patient_id, patient.issuer_of_patient_id) == ("P-4711", "HOSP")
    assert patient.patient_name == "Müller^Änne^Maria^Dr^MD"
    assert (patient.birth_date, patient.sex, patient.patient_class) == ("19500131", "F", "E")
    assert (patient.study_instance_uid, patient.accession_number) == ("1.2.840.1.5", "ACC-1")


def test_an_imaging_order_in_omi_names_the_study_in_ipc() -> None:
    told = parse_order(order(OBR.replace("ACC-1", ""), IPC, header="OMI^O23^OMI_O23"))
    assert told.accession_numbers == ("ACC-9",)
    assert told.study_instance_uid == "1.2.840.1.9"
    assert told.patient.modality == "CR"


def test_a_general_order_in_omg_is_taken_as_well() -> None:
    assert parse_order(order(OBR, header="OMG^O19^OMG_O19")).accession_number == "ACC-1"


@pytest.mark.parametrize(
    ("orc", "kind"),
    [
        ("ORC|NW|PL-1", OrderKind.NEW),
        ("ORC|XO|PL-1", OrderKind.CHANGE),
        ("ORC|CA|PL-1", OrderKind.CANCEL),
        ("ORC|OC|PL-1", OrderKind.CANCEL),
        ("ORC|RP|PL-1", OrderKind.CANCEL),
        ("ORC|RO|PL-1", OrderKind.NEW),
        ("ORC|DC|PL-1", OrderKind.DISCONTINUE),
        ("ORC|OD|PL-1", OrderKind.DISCONTINUE),
        ("ORC|SC|PL-1|||IP", OrderKind.STATUS),
        ("ORC|SC|PL-1|||CA", OrderKind.CANCEL),
        ("ORC|SC|PL-1|||DC", OrderKind.DISCONTINUE),
        ("ORC|HD|PL-1", OrderKind.STATUS),
    ],
)
def test_what_is_to_be_done_is_told_by_orc_1_and_a_status_that_ends_the_order(orc: str, kind: OrderKind) -> None:
    assert parse_order(order(OBR, orc=orc)).kind is kind


@pytest.mark.parametrize(
    ("sent", "priority"),
    [
        (("TQ1|1||||||||S^STAT^HL70485", OBR), Priority.STAT),
        (("TQ1|1||||||||A", OBR), Priority.URGENT),
        (("TQ1|1||||||||R", OBR), Priority.ROUTINE),
        (("TQ1|1||||||||T", OBR), Priority.URGENT),
        (("TQ1|1||||||||TM30", OBR), Priority.URGENT),
        (("TQ1|1||||||||asap", OBR), Priority.URGENT),
        ((segment("OBR", OBR_FIELDS | {5: "STAT"}),), Priority.STAT),
        ((segment("OBR", OBR_FIELDS | {27: "^^^20260102^^S"}),), Priority.STAT),
        ((OBR,), None),
    ],
)
def test_the_ordered_priority_is_found_where_senders_put_it(sent: tuple[str, ...], priority: Priority | None) -> None:
    assert parse_order(order(*sent)).ordered_priority is priority


def test_orc_7_counts_too_and_the_highest_of_several_places_holds() -> None:
    told = parse_order(order("TQ1|1||||||||R", OBR, orc="ORC|NW|PL-1|FI-1||||^^^^^S"))
    assert told.ordered_priority is Priority.STAT


def test_an_unknown_priority_is_shown_and_not_guessed_unless_the_site_says_what_it_means() -> None:
    message = order("TQ1|1||||||||CITO", OBR)
    told = parse_order(message)
    assert (told.ordered_priority, told.unknown_priorities) == (None, ("CITO",))
    assert parse_order(message, priority_values={"Cito": Priority.STAT}).ordered_priority is Priority.STAT


def test_several_orders_in_one_message_are_all_read_and_never_halved() -> None:
    second = ("ORC|CA|PL-2|FI-2", segment("OBR", {1: "2", 2: "PL-2", 18: "ACC-2"}))
    message = order(OBR, *second)
    first, other = parse_orders(message)
    assert (first.kind, first.placer_order_number) == (OrderKind.NEW, "PL-1")
    assert (other.kind, other.placer_order_number, other.ordered_priority) == (OrderKind.CANCEL, "PL-2", None)
    with pytest.raises(UnreadableMessage, match="several orders"):
        parse_order(message)


def test_a_site_s_own_place_for_the_accession_is_asked() -> None:
    told = parse_order(order(OBR), accession_places=("OBR-3",))
    assert told.accession_numbers == ("FI-1",)


def test_the_medical_record_number_is_chosen_among_identifiers() -> None:
    message = order(OBR).replace(b"P-4711^^^HOSP^MR", b"999^^^AOK^NI~P-4711^^^HOSP&1.2.3&ISO^MR")
    patient = parse_order(message).patient
    assert (patient.patient_id, patient.issuer_of_patient_id) == ("P-4711", "HOSP&1.2.3&ISO")


def test_an_hl7_null_is_nothing_and_not_two_quotes() -> None:
    patient = parse_order(order(OBR).replace(b"|19500131|F", b'|""|""')).patient
    assert (patient.birth_date, patient.sex) == ("", "")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_segments_ended_as_senders_end_them_are_read(end: bytes) -> None:
    assert parse_order(order(OBR).replace(b"\r", end)).accession_number == "ACC-1"


@pytest.mark.parametrize(
    ("charset", "codec", "name"),
    [
        ("UNICODE UTF-8", "utf-8", "Müller"),
        ("8859/1", "latin-1", "Müller"),
        ("8859/5", "iso8859-5", "Иванов"),
        ("ISO IR87", "iso2022_jp", "山田"),
        ("~ISO IR87", "iso2022_jp", "山田"),
        ("GB 18030-2000", "gb18030", "王"),
        ("", "ascii", "Mueller"),
        ("", "utf-8", "Müller"),
        ("", "latin-1", "Müller"),
        ("ASCII", "latin-1", "Müller"),
        ("UNICODE UTF-8", "latin-1", "Müller"),
        ("KLINGON", "utf-8", "Müller"),
    ],
)
def test_names_are_read_in_the_declared_character_set_and_in_what_was_really_sent(
    charset: str, codec: str, name: str
) -> None:
    text = order(OBR, charset=charset).decode().replace("Müller^Änne^Maria^MD^Dr", f"{name}^X")
    assert parse_order(text.encode(codec)).patient.patient_name == f"{name}^X"


def test_a_wrong_character_set_is_remarked() -> None:
    assert "UNICODE UTF-8" in parse_order(order(OBR).decode().encode("latin-1")).remark
    assert parse_order(order(OBR)).remark == ""


@pytest.mark.parametrize(
    ("message", "code", "where"),
    [
        (b"", 100, "MSH"),
        (b"\x00\xff garbage", 100, "MSH"),
        (b"MSH", 102, "MSH"),
        (b"MSH|ab|RIS", 102, "MSH"),
        (b"MSH|^~\\&|RIS\r", 101, "MSH-9"),
        (order(OBR, header="ADT^A08"), 200, "MSH-9.1"),
        (order(OBR, header="ORM^O02"), 201, "MSH-9.2"),
        (order(OBR).replace(b"|CTL-1|", b"||"), 101, "MSH-10"),
        (order(OBR).replace(b"|2.5.1|", b"|3.0|"), 203, "MSH-12"),
        (order(orc="NTE|1|L|no order"), 100, "ORC"),
        (order(OBR, orc="ORC||PL-1"), 101, "ORC-1"),
        (order(OBR, orc="ORC|QQ|PL-1"), 103, "ORC-1"),
        (order("OBR|1|||X", orc="ORC|NW"), 101, "ORC-2"),
        (order(OBR) + order(OBR), 100, "MSH[2]"),
        (order(OBR).replace(b"PV1|1|E", b"a stray line"), 100, "PID"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_code_and_place(message: bytes, code: int, where: str) -> None:
    with pytest.raises(UnreadableMessage) as raised:
        parse_order(message)
    assert (raised.value.code, str(raised.value.location)) == (code, where)
    assert raised.value.unsupported is (code >= 200)
    assert "P-4711" not in str(raised.value)


def test_the_kind_of_message_is_told_before_it_is_parsed() -> None:
    assert message_code(order(OBR)) == "ORM"
